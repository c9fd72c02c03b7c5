"""A whole cluster in a lab: started from what a lab's file says, and at hand while it runs.

::

    with Lab(site.topology(), name="demo") as lab, WholeCluster(lab, site) as cluster:
        cluster.api.apply_all(manifests)
        cluster.wait_ready(120)
        cluster.processes.kill("control1", Role.API_SERVER)
        print(cluster.leader(Role.MANAGER))

Every part is a process of its own, in the host where it belongs, with credentials of its own. A
host's init (:mod:`init`) starts again who has ended; proxies and DNS are pods, which kubelets
start again. Nothing of it outlives the lab.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import msgspec

from kproxy import errors
from kproxy.api import kinds
from kproxy.lab import carrier
from kproxy.lab.eventlog import EventLog
from kproxy.lab.site import ADMIN, EDGE, Site
from kproxy.lab.whole import addons, init, leaders, monitoring, readiness, units
from kproxy.lab.whole.api import Api, Applied, Object
from kproxy.lab.whole.monitors import Monitors
from kproxy.lab.whole.places import Places
from kproxy.lab.whole.processes import Processes
from kproxy.lab.whole.roles import Role
from netns import wait
from netns.errors import WaitTimeout
from netns.lab import AttachedLab

START_SECONDS = 300.0
SETTLE_SECONDS = 60.0
CARRIER_SECONDS = 10.0
UPLINK = "eth0"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
_LOOK_AGAIN = 0.1

Told = Callable[[str], None]


def _silent(text: str) -> None:
    pass


class WholeCluster:
    """A cluster in a lab that runs: :meth:`start` it, or look at one that somebody started.

    To be closed; that ends nothing, because the processes are the lab's and go with it.
    """

    def __init__(self, lab: AttachedLab, site: Site, *, progress: Told = _silent) -> None:
        self.lab = lab
        self.site = site
        self.places = Places(lab.scratch, site)
        self._units = units.plan(self.places)
        self.processes = Processes(lab, self.places, tuple(self._units))
        self._progress = progress
        self._api: Api | None = None
        self._events: EventLog | None = None

    @property
    def api(self) -> Api:
        """The API through its virtual IP, from the host ``admin``, with all rights."""
        if self._api is None:
            self._api = Api(self.lab, self.places)
        return self._api

    def api_of(self, host: str, *, timeout: float = 5.0) -> Api:
        """Return the API of one server; to be closed."""
        return Api(self.lab, self.places, server=host, timeout=timeout)

    @property
    def monitors(self) -> Monitors:
        """What Prometheuses and Alertmanagers say, where there are any."""
        return Monitors(self.lab)

    @property
    def events(self) -> EventLog:
        """The log lines of all processes; a source is ``HOST-ROLE``, or a pod's log."""
        if self._events is None:
            self._events = EventLog(self.places.files.logs)
        return self._events

    def start(self, *, addons_too: bool = True) -> Self:
        """Start everything that the site says; returns when the API is ready and has the add-ons.

        Raises MeasurementError if that takes too long, with what a process reported last.
        """
        self._progress("making certificates and configuration")
        self.places.prepare()
        for program in self.places.prepare_programs():
            self._progress(f"this {program} reads the processor's counter: two runs will differ")
        addons.write_configuration(self.places)
        monitoring.write(self.places)
        for host, its_units in self._units.items():
            init.write(self.places.init(host) / init.UNITS, its_units)
        if self.site.etcd:
            self._progress(f"starting {len(self.site.etcd)} etcd members")
            self._start(self.site.etcd)
            self.wait_for(lambda: bool(self.leader(Role.ETCD)), START_SECONDS, "etcd's leader")
        self._progress("starting the control plane")
        self._start([host for host in self._units if host in (EDGE, *self.site.control)])
        self.wait_for(self.api.ready, START_SECONDS, "the API to be ready")
        self._progress("starting the nodes")
        self._start([node.name for node in self.site.nodes])
        names = {node.name for node in self.site.nodes}
        self.wait_for(lambda: names <= self._registered(), START_SECONDS, "nodes to register")
        self._taint()
        if addons_too:
            self.must_apply(addons.manifests(self.places))
        if self.site.monitors:
            self._start_monitors()
        return self

    def _start_monitors(self) -> None:
        """Let the cluster settle first: what is not there yet would be told as broken."""
        self._progress("starting what is to be watched")
        with contextlib.suppress(errors.MeasurementError):
            self.wait_for(lambda: not self._unready(), SETTLE_SECONDS, "something to be watched")
        self._progress("starting Prometheus and Alertmanager")
        self._start([ADMIN, *self.site.monitors])

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close connections and files."""
        if self._api is not None:
            self._api.close()
        if self._events is not None:
            self._events.close()

    def must_apply(self, objects: Sequence[Object]) -> list[Applied]:
        """Apply objects; MeasurementError for the first that the API refuses."""
        done = self.api.apply_all(objects)
        for one in done:
            if one.error:
                raise errors.MeasurementError(f"{one.label}: {one.error}")
        return done

    def wanted(self) -> list[tuple[str, Role]]:
        """Return the processes that are to run: host and role, the proxies among them."""
        found = [(host, Role(unit.name)) for host, some in self._units.items() for unit in some]
        return found + [(node.name, Role.PROXY) for node in self.site.nodes]

    def leader(self, role: Role) -> str:
        """Return the host of the replica of a role that leads; empty: none does."""
        return leaders.leader(role, self.api, self.lab, self.places)

    # Waiting.

    def wait_ready(self, timeout: float = START_SECONDS) -> None:
        """Wait until nodes are Ready, what is declared runs and is ready, and monitors see it."""
        told = ""

        def done() -> bool:
            nonlocal told
            missing = self._unready() or self.monitors.missing(self.site.monitors)
            text = "waiting for " + ", ".join(missing[:3]) + (", …" if missing[3:] else "")
            if missing and text != told:
                told = text
                self._progress(text)
            return not missing

        self.wait_for(done, timeout, "everything that is declared to be ready")

    def wait_for(self, done: Callable[[], bool], timeout: float, why: str) -> None:
        """Wait for something; MeasurementError after ``timeout`` seconds.

        While the API does not answer the thing is not there yet.
        """

        def asked() -> bool:
            try:
                return done()
            except errors.KproxyError:
                return False

        try:
            wait.wait_until(asked, timeout, why, interval=_LOOK_AGAIN)
        except WaitTimeout as late:
            self.events.refresh()
            raise errors.MeasurementError(str(late), remedy=self.events.trouble()) from None

    # Hosts and cables.

    def unplug(self, host: str) -> None:
        """Pull the cable of a host on the segment: a node is cut off, and its pods with it."""
        self.lab.plug(host, UPLINK, connected=False)
        there = self.lab.host(host)
        gone = f"{host}:{UPLINK} to lose its carrier"
        self.wait_for(lambda: not there.call(carrier.is_up, UPLINK), CARRIER_SECONDS, gone)

    def plug(self, host: str) -> None:
        """Plug the cable in again."""
        self.lab.plug(host, UPLINK, connected=True)

    def power_off(self, host: str) -> None:
        """Let a host die: its cable is out, and all its processes are killed, its pods' too."""
        self.unplug(host)
        self.processes.kill_everything(host)

    def power_on(self, host: str) -> None:
        """Let a host that died come up again: its init starts what belongs there."""
        self.plug(host)
        self.processes.start_init(host)

    def environment(self) -> Mapping[str, str]:
        """Return the environment of an administrator's programs, kubectl for one."""
        return self.places.kubectl_environment()

    def _start(self, hosts: Sequence[str]) -> None:
        for host in hosts:
            self.processes.start_init(host)

    def _unready(self) -> list[str]:
        return readiness.missing(self.api, self.site)

    def _registered(self) -> set[str]:
        return {node["metadata"]["name"] for node in self.api.objects(kinds.NODE)}

    def _taint(self) -> None:
        """Give nodes the taints of the lab's file; those of controllers stay."""
        for node in self.site.nodes:
            if node.file.taints:
                self.api.request(
                    "PATCH",
                    kinds.NODE.path("", node.name),
                    body=msgspec.json.encode({"spec": {"taints": node.file.taints}}),
                    content_type=STRATEGIC_PATCH,
                )

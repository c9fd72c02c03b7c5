"""The links of the chain: one function for the fault of each, and the table of them all.

A fault is given a :class:`~kproxy.lab.chain.stage.ChainStage`. It does one thing, marks on the
time line when that was, who noticed and who repaired it, and returns when it is repaired. It does
not look at traffic, nor at what did not work meanwhile: others do that all the time.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from signal import SIGKILL

from kproxy.api import catalog
from kproxy.controlplane import manager
from kproxy.lab.chain import shop
from kproxy.lab.chain.stage import FAULT, NOTICED, REPAIRED, ChainStage
from kproxy.lab.eventlog import Event
from kproxy.lab.whole import addons
from kproxy.lab.whole.api import Object
from kproxy.lab.whole.roles import Role
from kproxy.lab.whole.units import log_name

BY_HAND = "by hand"
EVERYTHING = ("udp", "tcp-established", "tcp-connect")
NEW_CONNECTIONS = ("tcp-connect",)
QUIET_S = 10.0
"""How long nothing is done to the baseline: there is no event that could be waited for."""
AWAY_S = 20.0
"""How long one of several is away: with nobody to compute, starting again would take no time."""
CUT_OFF_S = 10.0
"""How long a node that is known to be lost stays cut off."""


def baseline(stage: ChainStage) -> None:
    """Do nothing: what is lost here is the tester's own doing."""
    stage.sleep(QUIET_S)


def proxy_process(stage: ChainStage) -> None:
    """Kill the proxy with SIGKILL."""
    fault = stage.mark(FAULT, stage.kill(stage.hit, Role.PROXY))
    _noticed_by_kubelet(stage, addons.PROXY, fault)
    stage.mark(REPAIRED, stage.proxy_synced(stage.hit, fault), f"kubelet of {stage.hit}")


def proxy_pod(stage: ChainStage) -> None:
    """Delete the proxy's pod."""
    fault = stage.mark(FAULT)
    stage.delete_proxy()
    _replaced_by_daemonset(stage, fault)


def proxy_and_backend(stage: ChainStage) -> None:
    """Kill the proxy and, as soon as it is gone, destroy one of its backends on the same node."""
    pod = stage.choose_backend()
    fault = stage.mark(FAULT, stage.kill(stage.hit, Role.PROXY))
    stage.destroy(pod)
    _noticed_by_kubelet(stage, shop.SHOP, fault)
    for node in stage.nodes:
        synced = stage.synced_without(stage.victim, node)
        stage.mark(f"{node} without it", synced)
    by = f"kubelet of {stage.hit}, EndpointSlice controller"
    stage.mark(REPAIRED, max(mark.ns for mark in stage.marks), by)


def backend_pod(stage: ChainStage) -> None:
    """Destroy a backend's processes and network from outside."""
    pod = stage.choose_backend()
    fault = stage.mark(FAULT)
    stage.destroy(pod)
    _noticed_by_kubelet(stage, shop.SHOP, fault)
    for node in stage.nodes:
        stage.mark(f"{node} without it", stage.synced_without(stage.victim, node))
    stage.mark(REPAIRED, max(mark.ns for mark in stage.marks), "EndpointSlice controller")


def daemonset_controller(stage: ChainStage) -> None:
    """Kill the leading manager, in which the DaemonSet controller is, and delete a proxy's pod."""
    fault = stage.mark(FAULT, stage.kill(stage.leader(Role.MANAGER), Role.MANAGER))
    stage.delete_proxy()
    _replaced_by_next_leader(stage, fault)


def all_managers(stage: ChainStage) -> None:
    """Kill all managers at once, and delete a proxy's pod."""
    fault = stage.mark(FAULT)
    for host in stage.control:
        stage.kill(host, Role.MANAGER)
    stage.delete_proxy()
    _replaced_by_next_leader(stage, fault)


def api_server(stage: ChainStage) -> None:
    """Kill one of the API servers, and let it be away for a while."""
    _away(stage, stage.control[0], Role.API_SERVER)


def all_api_servers(stage: ChainStage) -> None:
    """Kill all API servers; somebody starts them again after a while."""
    _take_down(stage, stage.control, Role.API_SERVER)
    stage.sleep(stage.hand_s)
    up = stage.mark("servers started")
    for host in stage.control:
        stage.cluster.processes.bring_up(host, Role.API_SERVER)
    first = min(_listening(stage, host, up).mono_ns for host in stage.control)
    stage.mark(REPAIRED, first, BY_HAND)


def etcd_member(stage: ChainStage) -> None:
    """Kill an etcd member that does not lead, and let it be away for a while."""
    leader = stage.leader(Role.ETCD)
    _away(stage, next(one for one in stage.cluster.site.etcd if one != leader), Role.ETCD)


def etcd_leader(stage: ChainStage) -> None:
    """Kill the etcd member that leads, and let it be away for a while."""
    host = stage.leader(Role.ETCD)
    _take_down(stage, [host], Role.ETCD)
    fault = stage.fault_ns or 0
    noticed = stage.etcd_turn(elected=False, since=fault)
    stage.mark(NOTICED, max(fault, noticed.ns), noticed.member)
    elected = stage.etcd_turn(elected=True, since=fault)
    stage.mark(REPAIRED, max(fault, elected.ns), f"election of {elected.member}")
    stage.sleep(AWAY_S)
    stage.cluster.processes.bring_up(host, Role.ETCD)


def etcd_majority(stage: ChainStage) -> None:
    """Kill the leader of etcd and others, so that no majority is left, until somebody comes."""
    leader, members = stage.leader(Role.ETCD), stage.cluster.site.etcd
    others = [one for one in members if one != leader]
    dead = [leader, *others][: len(members) // 2 + 1]
    _take_down(stage, dead, Role.ETCD)
    stage.sleep(stage.hand_s)
    up = stage.mark("members started")
    for host in dead:
        stage.cluster.processes.bring_up(host, Role.ETCD)
    elected = stage.etcd_turn(elected=True, since=up)
    stage.mark(REPAIRED, max(up, elected.ns), BY_HAND)


def kubelet(stage: ChainStage) -> None:
    """Kill the kubelet of the node."""
    fault = stage.mark(FAULT, stage.kill(stage.hit, Role.KUBELET))
    _noticed_by_init(stage, stage.hit, Role.KUBELET, fault)
    source = log_name(stage.hit, Role.KUBELET)
    started = stage.event(
        lambda event: event.source == source and event.msg == "started",
        f"the kubelet of {stage.hit} to start",
        fault,
    )
    stage.mark(REPAIRED, started.mono_ns, f"init of {stage.hit}")


def uplink(stage: ChainStage) -> None:
    """Pull the node's cable, and plug it in again some time after the node is known to be lost."""
    fault = stage.mark(FAULT)
    stage.cluster.unplug(stage.hit)
    _noticed_by_lifecycle(stage, fault)
    stage.sleep(CUT_OFF_S)
    plugged = stage.mark("cable plugged in")
    stage.cluster.plug(stage.hit)
    back = stage.event(
        lambda event: event.msg == "node untainted" and event.fields.get("node") == stage.hit,
        f"{stage.hit} to be taken back",
        plugged,
    )
    stage.mark(REPAIRED, back.mono_ns, BY_HAND)


def whole_node(stage: ChainStage) -> None:
    """Let the node die: its cable is out and all its processes are gone, its pods' too."""
    fault = stage.mark(FAULT)
    stage.cluster.power_off(stage.hit)
    stage.lost_nodes.add(stage.hit)
    stage.notes.append(f"{shop.HIT}: gone with its node")
    _noticed_by_lifecycle(stage, fault)
    evicted = stage.event(
        lambda event: event.msg == "pod evicted" and event.fields.get("node") == stage.hit,
        f"the pods of {stage.hit} to be evicted",
        fault,
    )
    stage.mark("pods evicted", evicted.mono_ns)
    stage.until(lambda: _backends_elsewhere(stage), "all backends to run on other nodes")
    stage.mark(REPAIRED, detail="taint eviction, ReplicaSet controller")


def rollout(stage: ChainStage) -> None:
    """Replace all backends by a rolling update; they are careful, see ``shop``."""
    _roll(stage, careful=True)


def careless_rollout(stage: ChainStage) -> None:
    """Replace all backends by a rolling update; they neither tell nor wait, see ``shop``."""
    _roll(stage, careful=False)


def make_careless(stage: ChainStage) -> None:
    """Have careless backends."""
    _replace(stage, shop.deployment(stage.cluster.places.files, careful=False))


def proxy_rollout(stage: ChainStage) -> None:
    """Replace all proxies, one after the other (maxUnavailable 1)."""
    _roll_proxies(stage, surge=False)


def proxy_surge_rollout(stage: ChainStage) -> None:
    """Replace all proxies, each by one that starts beside it (maxSurge 1)."""
    _roll_proxies(stage, surge=True)


# What several faults have in common.


def _noticed_by_kubelet(stage: ChainStage, container: str, fault: int) -> None:
    ended = stage.kubelet_says("container exited", stage.hit, container, fault)
    stage.mark(NOTICED, ended.mono_ns, f"kubelet of {stage.hit}")


def _noticed_by_init(stage: ChainStage, host: str, role: Role, fault: int) -> None:
    ended = stage.event(
        lambda event: (
            event.msg == "unit ended"
            and event.source == log_name(host, Role.INIT)
            and event.fields.get("unit") == role
        ),
        f"the init of {host} to notice the end of {role}",
        fault,
    )
    stage.mark(NOTICED, ended.mono_ns, f"init of {host}")


def _noticed_by_lifecycle(stage: ChainStage, fault: int) -> None:
    lost = stage.event(
        lambda event: event.msg == "node lost" and event.fields.get("node") == stage.hit,
        f"the loss of {stage.hit} to be noticed",
        fault,
    )
    stage.mark(NOTICED, lost.mono_ns, f"node controller on {_host(lost)}")


def _host(event: Event) -> str:
    return event.source.rpartition("-")[0]


def _by_daemonset(event: Event) -> bool:
    return event.msg == "pod created" and event.fields.get("owner") == f"DaemonSet {addons.PROXY}"


def _replaced_by_daemonset(stage: ChainStage, fault: int) -> None:
    made = stage.event(_by_daemonset, "another pod of the DaemonSet", fault)
    by = f"DaemonSet controller on {_host(made)}"
    stage.mark(NOTICED, made.mono_ns, by)
    stage.mark(REPAIRED, stage.proxy_synced(stage.hit, fault), by)


def _replaced_by_next_leader(stage: ChainStage, fault: int) -> None:
    leading = stage.event(
        lambda event: event.msg == "leading" and event.fields.get("lease") == manager.NAME,
        "another manager to lead",
        fault,
    )
    stage.mark(NOTICED, leading.mono_ns, f"manager on {_host(leading)}")
    by = f"DaemonSet controller on {_host(leading)}"
    stage.mark(REPAIRED, stage.proxy_synced(stage.hit, fault), by)


def _take_down(stage: ChainStage, hosts: Iterable[str], role: Role) -> None:
    """SIGKILL programs that nothing starts again."""
    stage.mark(FAULT)
    for host in hosts:
        process = stage.cluster.processes.get(host, role)
        stage.cluster.processes.bring_down(host, role)  # first, or its init would be quicker
        stage.cluster.processes.signal(process, SIGKILL)


def _away(stage: ChainStage, host: str, role: Role) -> None:
    """Have one of several be away; nobody has to do anything."""
    _take_down(stage, [host], role)
    stage.sleep(AWAY_S)
    stage.mark("started again", detail=host)
    stage.cluster.processes.bring_up(host, role)


def _listening(stage: ChainStage, host: str, since: int) -> Event:
    source = log_name(host, Role.API_SERVER)
    return stage.event(
        lambda event: event.source == source and event.msg == "listening",
        f"the API server on {host} to listen",
        since,
    )


def _backends_elsewhere(stage: ChainStage) -> bool:
    nodes = [pod["spec"]["nodeName"] for pod in stage.backends()]
    return len(nodes) == shop.REPLICAS and stage.hit not in nodes


def _replace(stage: ChainStage, deployment: Object) -> None:
    # Not applied: that would leave what the server has filled in for a probe that is gone.
    stage.cluster.api.update(catalog.DEPLOYMENT, deployment)


def _roll(stage: ChainStage, *, careful: bool) -> None:
    files = stage.cluster.places.files
    old = {pod["metadata"]["name"] for pod in stage.backends()}
    fault = stage.mark(FAULT)
    _replace(stage, shop.deployment(files, careful=careful, restarted="again"))
    made = stage.event(
        lambda event: event.msg == "replica set created", "another ReplicaSet", fault
    )
    by = f"Deployment controller on {_host(made)}"
    stage.mark(NOTICED, made.mono_ns, by)

    def rolled() -> bool:
        pods = stage.cluster.api.objects(catalog.POD, shop.NAMESPACE, {"app": shop.SHOP})
        names = {pod["metadata"]["name"] for pod in pods}
        return not names & old and len(stage.backends()) == shop.REPLICAS

    stage.until(rolled, "the rolling update to end")
    stage.mark(REPAIRED, detail=by)


def _roll_proxies(stage: ChainStage, *, surge: bool) -> None:
    limits = {"maxSurge": int(surge), "maxUnavailable": int(not surge)}
    change = {
        "spec": {
            "template": {"metadata": {"annotations": {"kproxy/restarted-at": "again"}}},
            "updateStrategy": {"rollingUpdate": limits},
        }
    }
    fault = stage.mark(FAULT)
    stage.cluster.api.patch(catalog.DAEMON_SET, addons.NAMESPACE, addons.PROXY, change)
    made = stage.event(_by_daemonset, "another pod of the DaemonSet", fault)
    by = f"DaemonSet controller on {_host(made)}"
    stage.mark(NOTICED, made.mono_ns, by)
    for node in stage.nodes:
        stage.mark(f"{node} replaced", stage.proxy_synced(node, fault))
    stage.mark(REPAIRED, max(mark.ns for mark in stage.marks), by)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A link by its name. ``guarantor``: who is to keep it, whatever happens to it.

    Links of one ``group`` are broken one after the other on one cluster, and use up nothing that
    another one of them needs. ``seconds``: how long a trial takes, roughly. ``etcd``: it is about
    etcd. ``prepare`` is done before there is traffic. ``connects_per_s``: new connections over
    all vantage points, where it is about those. ``lossless``: kinds of traffic of which losing
    anything breaks the promise. ``about``: what is done, where its function does not say.

    ``variant`` and ``fault``: of what only monitoring catches, who watches, and what the links of
    the same fault are called. ``modes``: those of the proxy in which there is such a thing; empty:
    in all.
    """

    name: str
    title: str
    guarantor: str
    run: Callable[[ChainStage], None]
    group: int
    seconds: int = 40
    etcd: bool = False
    prepare: Callable[[ChainStage], None] | None = None
    connects_per_s: float | None = None
    lossless: tuple[str, ...] = ()
    about: str = ""
    variant: str = ""
    fault: str = ""
    modes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """Return what is done, in a line."""
        return self.about or (self.run.__doc__ or "").strip().partition("\n")[0]

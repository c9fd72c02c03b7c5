"""A whole small cluster in a lab: API server, controller manager, kubelets, proxies, a workload.

Every part is a process of its own and can be killed. The proxies are pods of a DaemonSet, started
by their nodes' kubelets; this module starts only what on a real cluster systemd and the
administrator start.
"""

import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

from kproxy import errors
from kproxy.api import catalog, kinds
from kproxy.client.kubeconfig import load_kubeconfig
from kproxy.client.objects import ObjectClient
from kproxy.client.rest import Rest
from kproxy.lab import generators, layout, plan, podviews, proxysets, workload
from kproxy.lab.cablepull import Cable
from kproxy.lab.eventlog import Event, EventLog
from kproxy.lab.podruntime import Room
from netns import wait
from netns.errors import CommandFailed, WaitTimeout
from netns.lab import AttachedLab
from netns.process import Process, ProcessId

Object = dict[str, Any]
PROXY_NAMESPACE = proxysets.NAMESPACE
PROXY_NAME = proxysets.CONTAINER
START_SECONDS = 120.0
SETTLE_SECONDS = 60.0
HEARTBEAT_SECONDS = 10
_LOOK_AGAIN = 0.05
_KINDS = {kind.name: kind for kind in kinds.known()}


class Cluster:
    """A cluster whose proxies run in one mode. A context manager: entering starts it.

    ``proxies`` are its DaemonSets of proxies, one in ``mode`` if none are given; ``labels`` say of
    each node which of several runs there; ``node_rules`` is what ``nft -f`` makes on each first.
    ``settings`` are added to the proxies' configuration; the kubelets give a sign of life every
    ``heartbeat`` seconds, and a node is lost that gave none for five times as long; ``progress``
    is told in words what is being waited for. Leaving the block ends nothing: the
    processes are the lab's and go with it.
    """

    def __init__(
        self,
        lab: AttachedLab,
        the_plan: plan.Plan,
        mode: str,
        load: workload.Workload,
        *,
        proxies: Sequence[proxysets.ProxySet] = (),
        labels: Mapping[str, str] | None = None,
        node_rules: str = "",
        room: Room | None = None,
        settings: Mapping[str, Any] | None = None,
        heartbeat: int = HEARTBEAT_SECONDS,
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._room = room or Room()
        self._proxies = tuple(proxies) or (proxysets.ProxySet(mode=mode),)
        self._labels = labels or {}
        self._node_rules = node_rules
        self._heartbeat = heartbeat
        self.settings = settings or {}
        self._told = ""
        self.lab = lab
        self.plan = the_plan
        self.mode = mode
        self.workload = load
        self.files = layout.Layout(lab.scratch)
        for directory in (self.files.logs, self.files.records):
            directory.mkdir(parents=True, exist_ok=True)
        self.events = EventLog(self.files.logs)
        self.targets: list[workload.Target] = []
        self.clients: dict[str, generators.Client] = {}
        self.kubelets: dict[str, Process] = {}
        self._progress = progress
        self._cables: dict[str, Cable] = {}

    def __enter__(self) -> Self:
        self._write_configuration()
        self._write_node_rules()
        self._start_control_plane()
        self._progress("starting generators")
        for node in self.plan.each_node():
            vantage = generators.behind(node)
            self.clients[node.name] = generators.Client(self.lab, vantage, self.files)
        self._label_nodes()
        self._apply()
        self._progress("waiting for pods and proxies")
        self.settle(START_SECONDS)
        self.targets = workload.targets(self.objects(kinds.SERVICE))
        for client in self.clients.values():
            client.await_ready()
        return self

    def __exit__(self, *exc: object) -> None:
        for client in self.clients.values():
            client.quit()
        self._rest.close()
        self.events.close()

    # The API, from the control plane's host.

    def objects(self, kind: kinds.Kind, namespace: str = "") -> list[Object]:
        """Return the objects of a kind."""
        return list(self._control.call(self._api.list_objects, kind, namespace))

    def delete_pod(self, namespace: str, name: str) -> None:
        """Delete a pod; its kubelet ends it in its grace period."""
        self._control.call(self._api.delete, catalog.POD, namespace, name)

    def restart_daemonset(self, *, surge: bool = False) -> None:
        """Change the proxies' template, as ``kubectl rollout restart`` does.

        ``surge``: with ``maxSurge`` 1 instead of ``maxUnavailable`` 1.
        """
        stamp = {"kproxy/restarted-at": str(len(self.events.events))}
        limits = {"maxSurge": int(surge), "maxUnavailable": int(not surge)}
        change = {
            "spec": {
                "template": {"metadata": {"annotations": stamp}},
                "updateStrategy": {"rollingUpdate": limits},
            }
        }
        self._control.call(
            self._api.patch, catalog.DAEMON_SET, PROXY_NAMESPACE, PROXY_NAME, change
        )

    def upgrade_daemonset(self) -> None:
        """Give the proxies another version, whose rules look different: a rolling update."""
        older, *others = self._proxies
        newer = dataclasses.replace(older, version=older.version + 1)
        self._proxies = newer, *others
        self._write_proxy_config(newer)
        wanted = proxysets.daemon_set(newer, self.files.kubeconfig, self.files.root)
        limits = {"maxSurge": 0, "maxUnavailable": 1}
        change = {
            "spec": {
                "template": wanted["spec"]["template"],
                "updateStrategy": {"rollingUpdate": limits},
            }
        }
        self._control.call(
            self._api.patch, catalog.DAEMON_SET, PROXY_NAMESPACE, newer.name, change
        )

    def change_node(self, name: str, change: Object) -> None:
        """Change a Node by a merge patch, as ``kubectl label`` and ``kubectl cordon`` do."""
        self._control.call(self._api.patch, kinds.NODE, "", name, change)

    def create(self, kind: kinds.Kind, manifest: Object) -> None:
        """Create an object."""
        self._control.call(self._api.create, kind, manifest)

    # What runs where.

    def proxy_pod(self, node: str) -> Object:
        """Return the proxy's pod on a node. Raises MeasurementError if there is none."""
        for pod in self.objects(catalog.POD, PROXY_NAMESPACE):
            meta = pod["metadata"]
            if (
                pod["spec"].get("nodeName") == node
                and proxysets.LABELS.items() <= (meta.get("labels") or {}).items()
                and not meta.get("deletionTimestamp")
            ):
                return pod
        raise errors.MeasurementError(f"there is no proxy pod on {node}")

    def proxy_process(self, node: str) -> Process:
        """Return the process of a node's proxy."""
        pod = self.proxy_pod(node)["metadata"]
        self.events.refresh()
        started = [e for e in self.events.events if _started(e, pod["uid"])]
        if not started:
            raise errors.MeasurementError(f"the proxy on {node} has not been started")
        fields = started[-1].fields
        return Process(ProcessId(fields["pid"], fields["start_time"]))

    def pods(self) -> list[Object]:
        """Return the workload's pods that are in service, by name."""
        found = [
            p for p in self.objects(catalog.POD) if p["metadata"]["namespace"] != PROXY_NAMESPACE
        ]
        ready = [pod for pod in found if podviews.is_ready(pod)]
        return sorted(ready, key=lambda pod: str(pod["metadata"]["name"]))

    def destroy(self, pod: Object) -> None:
        """Destroy a pod from outside: processes, namespace, address. Nobody is told."""
        meta = pod["metadata"]
        self.lab.remove(f"{meta['namespace']}-{meta['name']}")

    def slices_version(self, *, without: str = "") -> int:
        """Return the newest version among the slices; -1 while a pod is still in one of them."""
        newest = 0
        for piece in self.objects(kinds.ENDPOINT_SLICE):
            newest = max(newest, int(piece["metadata"]["resourceVersion"]))
            for endpoint in piece.get("endpoints") or []:
                if without and endpoint.get("targetRef", {}).get("name") == without:
                    return -1
        return newest

    def synced_version(self, event: Event) -> int:
        """Return the newest slice that a proxy's ``synced`` event says is in its kernel."""
        return int(event.fields.get("versions", {}).get("endpointslices", 0) or 0)

    def proxy_source(self, pod: str) -> str:
        """Return the source of the events of the proxy in a pod."""
        return f"{PROXY_NAMESPACE}_{pod}_{PROXY_NAME}"

    def is_synced(self, event: Event, pod: str) -> bool:
        """Return whether this is a ``synced`` event of the proxy in that pod."""
        return event.msg == "synced" and event.source == self.proxy_source(pod)

    def settle(self, timeout: float = SETTLE_SECONDS) -> None:
        """Wait until everything declared runs, is ready, and is in every node's kernel."""
        self.wait_for(self._all_ready, timeout, "all pods to be ready")
        self.wait_for(self._all_synced, timeout, "every proxy to sync the endpoints")

    def cable(self, node: str) -> Cable:
        """Return a node's cable. Ask for it first while nothing is measured."""
        if node not in self._cables:
            self._cables[node] = Cable(self.lab, node, self.tell)
        return self._cables[node]

    def tell(self, text: str) -> None:
        """Tell the progress, where it is news."""
        if text != self._told:
            self._told = text
            self._progress(text)

    def wait_for(self, done: Callable[[], bool], timeout: float, why: str) -> None:
        """Wait for something; ``MeasurementError`` after ``timeout`` seconds."""
        try:
            wait.wait_until(done, timeout, why, interval=_LOOK_AGAIN)
        except WaitTimeout as late:
            self.events.refresh()
            raise errors.MeasurementError(
                f"mode {self.mode}: {late}", remedy=f"{self.events.trouble()}"
            ) from None

    def _all_ready(self) -> bool:
        # One that has ended has been replaced, and stays to be looked at.
        pods = [pod for pod in self.objects(catalog.POD) if not podviews.has_ended(pod)]
        wanted = {
            podviews.key(d): d["spec"].get("replicas", 1) for d in self.objects(catalog.DEPLOYMENT)
        }
        total = sum(wanted.values()) + self.plan.nodes
        have: dict[tuple[str, str], int] = {}
        for pod in pods:
            if not podviews.is_ready(pod):
                continue
            for owner in pod["metadata"].get("ownerReferences", []):
                key = podviews.workload(pod, owner)
                have[key] = have.get(key, 0) + 1
        if not self.targets:  # only while it comes up: later this is the matter of a moment
            self.tell(f"waiting for pods: {sum(have.values())} of {total} ready")
        proxies = sum(have.get(one.key, 0) for one in self._proxies)
        if proxies != self.plan.nodes or len(pods) != sum(have.values()):
            return False
        return all(have.get(("Deployment", key), 0) == count for key, count in wanted.items())

    def _all_synced(self) -> bool:
        self.events.refresh()
        newest = self.slices_version()
        listed = {
            endpoint["targetRef"]["name"]
            for piece in self.objects(kinds.ENDPOINT_SLICE)
            for endpoint in piece.get("endpoints") or []
            if (endpoint.get("conditions") or {}).get("ready", True)
        }
        if {pod["metadata"]["name"] for pod in self.pods()} != listed:
            return False
        for node in self.plan.each_node():
            pod = self.proxy_pod(node.name)["metadata"]["name"]
            synced = [e for e in self.events.events if self.is_synced(e, pod)]
            if not synced or self.synced_version(synced[-1]) < newest:
                return False
        return True

    def _write_configuration(self) -> None:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {"server": self.plan.api_url}}],
            "users": [{"name": "lab", "user": {}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        }
        self.files.kubeconfig.write_text(json.dumps(config))
        for proxies in self._proxies:
            self._write_proxy_config(proxies)

    def _write_proxy_config(self, proxies: proxysets.ProxySet) -> None:
        cidr, kubeconfig = str(self.plan.cluster_cidr), self.files.kubeconfig
        wanted = proxysets.configuration(proxies, cidr, kubeconfig, self.settings)
        (self.files.root / proxies.file).write_text(json.dumps(wanted))

    def _write_node_rules(self) -> None:
        for node in self.plan.each_node() if self._node_rules else ():
            try:
                self.lab.host(node.name).run(["nft", "-f", "-"], input=self._node_rules)
            except CommandFailed as error:
                raise errors.UsageError(
                    f"the rules for nodes are refused: {error.output.strip()}",
                    remedy="try them with nft -c -f FILE",
                ) from None

    def _start_control_plane(self) -> None:
        self._progress("starting the control plane")
        self._control = self.lab.host(plan.CONTROL)
        bind = f"{self.plan.control_address}:{self.plan.api_port}"
        cidr = str(self.plan.service_cidr)
        options = ("--insecure", "--bind", bind, "--service-cidr", cidr)
        self._spawn(plan.CONTROL, "controlplane.apiserver", *options)
        self.events.wait(
            lambda event: event.msg == "listening",
            why="the API server to listen",
            timeout=START_SECONDS,
        )
        self._rest = Rest(load_kubeconfig(self.files.kubeconfig), agent="kproxy-lab")
        self._api = ObjectClient(self._rest)
        config = str(self.files.kubeconfig)
        # One replica, on a host where nobody asks how it is.
        alone = ("--kubeconfig", config, "--leader-elect=false", "--healthz-bind-address=")
        looks = (
            f"--node-monitor-period={self._heartbeat / 2:g}s",
            f"--node-monitor-grace-period={5 * self._heartbeat}s",
        )
        self._spawn(plan.CONTROL, "controlplane.manager", *alone, *looks)
        self._spawn(plan.CONTROL, "controlplane.scheduler", *alone)
        for node in self.plan.each_node():
            self.start_kubelet(node)

    def start_kubelet(self, node: plan.NodePlan) -> Process:
        """Start a node's kubelet, also another one after it was killed."""
        state = str(self.lab.state_dir)
        cidr = str(self.plan.cluster_cidr)
        options = ("--state-dir", state, "--node", node.name, "--cluster-cidr", cidr)
        images = ("--any-image",)  # a workload's own images run echo servers here
        room = ("--rate", str(self._room.rate), "--records", str(self._room.records))
        beat = (f"--lease-renew={self._heartbeat}", f"--lease-duration={4 * self._heartbeat}")
        process = self._spawn(node.name, "lab.node", *options, *images, *room, *beat)
        self.kubelets[node.name] = process
        return process

    def _spawn(self, host: str, module: str, *options: str) -> Process:
        log = self.files.log(f"{host}-{module.rpartition('.')[2]}")
        command = [sys.executable, "-m", f"kproxy.{module}", *options]
        host_of_it = self.lab.host(host)
        return host_of_it.spawn(command, stdout=log, stderr=log, env=dict(os.environ))

    def _label_nodes(self) -> None:
        for name, mode in self._labels.items():
            open_ = functools.partial(self._takes_pods, name)
            self.wait_for(open_, START_SECONDS, f"{name} to take pods")
            self.change_node(name, {"metadata": {"labels": {proxysets.MODE_LABEL: mode}}})

    def _takes_pods(self, name: str) -> bool:
        """Return whether pods would be bound to a node: else all would gather at another one."""
        found = {node["metadata"]["name"]: node for node in self.objects(kinds.NODE)}
        return name in found and podviews.takes_pods(found[name])

    def _apply(self) -> None:
        self._progress("applying the workload")
        for proxies in self._proxies:
            where = self.files.kubeconfig, self.files.root
            self._create([proxysets.daemon_set(proxies, *where)])
        self._create(self.workload.manifests)

    def _create(self, manifests: Iterable[Object]) -> None:
        for manifest in manifests:
            kind = _KINDS[manifest["kind"]]
            try:
                self._control.call(self._api.create, kind, manifest)
            except errors.ApiError as error:
                # Some namespaces are there from the start.
                if not (isinstance(error, errors.Conflict) and kind is kinds.NAMESPACE):
                    label = kind.label(
                        manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"]
                    )
                    raise errors.MeasurementError(f"{label}: {error}") from None


def _started(event: Event, uid: str) -> bool:
    return event.msg == "container started" and event.fields.get("uid") == uid

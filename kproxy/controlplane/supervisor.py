"""A kubelet connected to its API server: informer in, reports out, the Node object kept alive."""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from kproxy import errors, logs
from kproxy.api import core, kinds
from kproxy.api.pods import Pod
from kproxy.client import informer, objects, rest

from .backoff import RetryBackoff
from .cluster import Cluster
from .kubelet import Kubelet
from .runtime import PodRuntime
from .store import timestamp

Object = dict[str, Any]

HEARTBEAT_SECONDS = 300.0
"""Kubernetes' nodeStatusReportFrequency: how often an unchanged node is reported again. Nothing
here judges a node by the age of its report, and each report wakes everyone who watches nodes."""


class Supervisor:
    """Runs the pods of one node until :meth:`stop`.

    ``addresses``: of the node, the first is told as its pods' ``hostIP``; ``pod_cidr`` and
    ``labels`` are written into a Node object that does not exist yet.
    """

    def __init__(
        self,
        node_name: str,
        client: rest.Rest,
        runtime: PodRuntime,
        *,
        addresses: Sequence[str],
        pod_cidr: str = "",
        labels: Mapping[str, str] | None = None,
        log: logs.Log | None = None,
    ) -> None:
        self._log = log or logs.Log("kubelet")
        self._client = client
        cluster = objects.ObjectClient(client)
        self.kubelet = Kubelet(
            node_name,
            cluster,
            runtime,
            host_ip=addresses[0] if addresses else "",
            log=self._log,
        )
        self._node = NodeObject(
            cluster, node_name, addresses=addresses, pod_cidr=pod_cidr, labels=labels or {}
        )
        self._informers = self._follow(node_name)
        self._stopped = False
        self._report_due = threading.Event()

    def run(self) -> None:
        """Supervise in this thread (and a few more) until :meth:`stop`; the pods go on."""
        self._log.info("started", node=self.kubelet.node_name)
        threads = [
            threading.Thread(target=self.kubelet.outbox.run, name="outbox", daemon=True),
            threading.Thread(target=self._keep_node, name="node", daemon=True),
        ]
        for thread in threads:
            thread.start()
        for one in self._informers:
            one.start()
        try:
            self.kubelet.run()
        finally:
            self._stopped = True
            self._report_due.set()
            for one in self._informers:
                one.stop()
            self.kubelet.outbox.stop()
            self._client.close()
            for thread in threads:
                thread.join()
            self.kubelet.close()
        self._log.info("stopped", node=self.kubelet.node_name)

    def stop(self) -> None:
        """Make :meth:`run` return; may be called from a signal handler."""
        self.kubelet.stop()

    def _follow(self, node_name: str) -> tuple[informer.Informer[Any], ...]:
        """Return what listens for the node's pods, and for the Node itself.

        A Node that somebody deleted, or that a new API server never had, is registered again.
        """

        def synced() -> None:
            found = list(pods.objects.values())
            self.kubelet.post(lambda: self.kubelet.replace(found))

        def changed(old: Pod | None, new: Pod | None) -> None:
            # The first list is handed over whole: what runs must be adopted first.
            if pods.synced:
                self._changed(old, new)

        pods = informer.Informer(
            self._client,
            Pod,
            on_change=changed,
            on_synced=synced,
            on_problem=self._problem,
            selection=informer.Selection(field_selector=f"spec.nodeName={node_name}"),
        )
        node = informer.Informer(
            self._client,
            core.Node,
            on_change=self._node_changed,
            on_problem=self._problem,
            selection=informer.Selection(field_selector=f"metadata.name={node_name}"),
        )
        return pods, node

    def _changed(self, old: Pod | None, new: Pod | None) -> None:

        def take() -> None:
            if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
                self.kubelet.deleted(old.metadata.uid)
            if new is not None:
                self.kubelet.changed(new)

        self.kubelet.post(take)

    def _node_changed(self, old: core.Node | None, new: core.Node | None) -> None:
        if new is None:
            self._report_due.set()

    def _problem(self, error: errors.KproxyError) -> None:
        self._log.warning("API server", error=str(error))
        # It may come back without our Node, before our informer has ever seen that Node.
        self._report_due.set()

    def _keep_node(self) -> None:
        """Register the node and report it now and then, until the end."""
        backoff = RetryBackoff()
        while not self._stopped:
            self._report_due.clear()
            wait = HEARTBEAT_SECONDS
            try:
                self._node.report(time.time())
                backoff.succeeded("")
            except errors.KproxyError as error:
                wait = backoff.failed("")
                self._log.warning("node not reported", error=str(error))
            self._report_due.wait(wait)


class NodeObject:
    """The Node object of a kubelet."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        *,
        addresses: Sequence[str],
        pod_cidr: str,
        labels: Mapping[str, str],
    ) -> None:
        self._cluster = cluster
        self._name = name
        self._addresses = addresses
        self._spec = {"podCIDR": pod_cidr, "podCIDRs": [pod_cidr]} if pod_cidr else {}
        self._labels = {"kubernetes.io/hostname": name, **labels}

    def report(self, wall: float) -> None:
        """Create the Node if it is missing, and say that it is ready. Raises KproxyError."""
        node = self._cluster.get(kinds.NODE, "", self._name)
        status = self._status(node, timestamp(wall))
        if node is not None:
            self._cluster.update_status(kinds.NODE, {**node, "status": status})
            return
        meta = {"name": self._name, "labels": self._labels}
        self._cluster.create(kinds.NODE, {"metadata": meta, "spec": self._spec, "status": status})

    def _status(self, node: Object | None, now: str) -> Object:
        before = (node or {}).get("status") or {}
        ready: Object = next(
            (one for one in before.get("conditions") or () if one["type"] == "Ready"), {}
        )
        since = ready.get("lastTransitionTime") if ready.get("status") == "True" else None
        addresses = [{"type": "InternalIP", "address": address} for address in self._addresses]
        return {
            **before,
            "addresses": [*addresses, {"type": "Hostname", "address": self._name}],
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "KubeletReady",
                    "lastHeartbeatTime": now,
                    "lastTransitionTime": since or now,
                }
            ],
        }

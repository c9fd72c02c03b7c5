"""A kubelet connected to its API server: informers in, reports out, the node kept alive.

Without an API server (``client`` None) it runs the static pods of a directory only.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kproxy import errors, logs
from kproxy.api import core
from kproxy.api.pods import Pod
from kproxy.client import informer, objects, rest

from . import accountfiles, staticpods
from .actions import Performer
from .cluster import Cluster
from .envsources import EnvSources
from .images import Images
from .kubelet import Kubelet
from .nodekeeper import NodeKeeper
from .nodestatus import KUBELET_PORT, NodeFacts, Times
from .resolving import ClusterNames
from .runtime import PodRuntime

Object = dict[str, Any]


class Service(threading.Thread):
    """Something that runs beside the kubelet until it is told to stop (its server)."""

    def __init__(self, name: str, run: Callable[[], None], stop: Callable[[], None]) -> None:
        super().__init__(target=run, name=name, daemon=True)
        self.stop = stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may be different from a plain kubelet.

    ``manifests``: a directory of static pods (``--pod-manifest-path``); ``performer``: who does
    probes and hooks; ``serve``: makes the kubelet's server, None: there is none;
    ``resolving``: how pods find names, None: as their node does; ``accounts``: where the files of
    service accounts go, None: there are none.
    """

    images: Images | None = None
    manifests: Path | None = None
    performer: Performer | None = None
    times: Times | None = None
    pods: int = 110
    port: int = KUBELET_PORT
    serve: Callable[[Kubelet], Service] | None = None
    resolving: ClusterNames | None = None
    accounts: accountfiles.Source | None = None


class Supervisor:
    """Runs the pods of one node until :meth:`stop`.

    ``addresses``: of the node, told as its pods' ``hostIPs``; ``pod_cidrs`` and ``labels`` are
    written into a Node object that does not exist yet.
    """

    def __init__(
        self,
        node_name: str,
        client: rest.Rest | None,
        runtime: PodRuntime,
        *,
        addresses: Sequence[str],
        pod_cidrs: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        options: Options | None = None,
        log: logs.Log | None = None,
    ) -> None:
        options = options or Options()
        self._log = log or logs.Log("kubelet")
        self._client = client
        self._options = options
        writer = objects.ObjectClient(client) if client else None
        cluster: Cluster = writer or _Nobody()
        self._accounts = self._account_files(writer)
        self._sources = EnvSources(writer.get, wake=self._look_again) if writer else None
        self.kubelet = self._made_kubelet(node_name, cluster, runtime, addresses)
        facts = NodeFacts(
            name=node_name,
            addresses=addresses,
            pod_cidrs=pod_cidrs,
            labels=labels or {},
            info=runtime.machine(),
            pods=options.pods,
            port=options.port,
            cpus=os.cpu_count() or 1,
            memory=_memory(),
        )
        self._keeper = _keeper(cluster, facts, runtime, options, self._log)
        self._manifests = staticpods.ManifestDirectory(
            options.manifests or Path(), node_name, self._complain
        )
        self._ending = threading.Event()
        self._informers = self._follow(client, node_name) if client else ()
        self.kubelet.metrics.of_process(node_name, client, self._informers)

    def run(self) -> None:
        """Supervise in this thread (and a few more) until :meth:`stop`; the pods go on."""
        self._log.info("started", node=self.kubelet.node_name)
        self._read_manifests()
        threads = self._threads()
        serving = self._options.serve(self.kubelet) if self._options.serve else None
        for thread in (*threads, *([serving] if serving else [])):
            thread.start()
        for one in self._informers:
            one.start()
        if not self._client:
            self.kubelet.post(lambda: self.kubelet.replace(()))
        try:
            self.kubelet.run()
        finally:
            self._ending.set()
            self._keeper.stop()
            if serving:
                serving.stop()
            for one in self._informers:
                one.stop()
            self.kubelet.outbox.stop()
            if self._accounts:
                self._accounts.stop()
            if self._sources:
                self._sources.stop()
            if self._client:
                self._client.close()
            for thread in (*threads, *([serving] if serving else [])):
                thread.join()
            self.kubelet.close()
        self._log.info("stopped", node=self.kubelet.node_name)

    def stop(self) -> None:
        """Make :meth:`run` return; may be called from a signal handler."""
        self.kubelet.stop()

    def _made_kubelet(
        self, name: str, cluster: Cluster, runtime: PodRuntime, addresses: Sequence[str]
    ) -> Kubelet:
        options = self._options
        return Kubelet(
            name,
            cluster,
            runtime,
            host_ips=addresses,
            images=options.images,
            performer=options.performer,
            resolving=options.resolving,
            accounts=self._accounts,
            sources=self._sources,
            log=self._log,
        )

    def _account_files(
        self, writer: objects.ObjectClient | None
    ) -> accountfiles.AccountFiles | None:
        source = self._options.accounts
        if writer is None or source is None or not source.useful():
            return None
        return accountfiles.AccountFiles(
            source, writer.create_token, self._log, wake=self._look_again
        )

    def _look_again(self) -> None:
        """Wake the kubelet for nothing: it looks at its pods, and sees who need wait no more."""
        self.kubelet.post(lambda: None)

    def _threads(self) -> list[threading.Thread]:
        work: dict[str, Callable[[], None]] = {}
        if self._client:
            work = {"outbox": self.kubelet.outbox.run, "node": self._keeper.run}
        if self._accounts:
            work["accounts"] = self._accounts.run
        if self._sources:
            work["sources"] = self._sources.run
        if self._options.manifests:
            work["static-pods"] = self._watch_manifests
        return [threading.Thread(target=run, name=name, daemon=True) for name, run in work.items()]

    def _follow(self, client: rest.Rest, node_name: str) -> tuple[informer.Informer[Any], ...]:
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
            client,
            Pod,
            on_change=changed,
            on_synced=synced,
            on_problem=self._problem,
            selection=informer.Selection(field_selector=f"spec.nodeName={node_name}"),
        )
        node = informer.Informer(
            client,
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
            shown = new or old
            gone = new is None or new.metadata.deletion_timestamp is not None
            if shown is not None and staticpods.is_mirror(shown):
                self.kubelet.mirror_changed(shown, gone=gone)

        self.kubelet.post(take)

    def _node_changed(self, old: core.Node | None, new: core.Node | None) -> None:
        if new is None:
            self._keeper.registered_no_more()
        else:
            self._keeper.heard(new)

    def _problem(self, error: errors.KproxyError) -> None:
        self._log.warning("API server", error=str(error))
        self._keeper.doubtful()

    def _complain(self, error: errors.KproxyError) -> None:
        self._log.warning("static pod left out", error=str(error))

    def _watch_manifests(self) -> None:
        while not self._ending.wait(staticpods.CHECK_SECONDS):
            self._read_manifests()

    def _read_manifests(self) -> None:
        if self._options.manifests is None:
            return
        try:
            found = self._manifests.read()
        except errors.KproxyError as error:
            self._log.warning("static pods not read", error=str(error))
            return
        self.kubelet.post(lambda: self.kubelet.replace_static(found))


def _memory() -> str:
    """Return the machine's memory as Kubernetes writes it."""
    kibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
    return f"{kibibytes}Ki"


def _keeper(
    cluster: Cluster, facts: NodeFacts, runtime: PodRuntime, options: Options, log: logs.Log
) -> NodeKeeper:
    return NodeKeeper(cluster, facts, log, trouble=runtime.trouble, times=options.times)


class _Nobody:
    """No API server."""

    def __getattr__(self, name: str) -> Any:
        raise errors.KproxyError("there is no API server")

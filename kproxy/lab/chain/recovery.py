"""How it is told that a fault which nobody reports is over: by looking, again and again.

Each function is given a stage just after the fault, and returns what is called until it returns a
time (monotonic, in ns). Where a log line tells it, the time is that of the line.
"""

import socket
import time
from collections.abc import Callable, Sequence

from kproxy.api import catalog, discovery, kinds
from kproxy.lab.chain import shop, strangers
from kproxy.lab.chain.stage import ChainStage, proxies_of, proxy_source, slices_version
from kproxy.lab.eventlog import Event
from kproxy.lab.podviews import is_ready
from kproxy.lab.whole import addons
from kproxy.lab.whole.roles import Role
from kproxy.lab.whole.units import log_name

Look = Callable[[], int | None]
_CONNECT_S = 0.2


def new_proxy(stage: ChainStage) -> Look:
    """Tell when another proxy has put the hit node's kernel in order."""
    since = stage.fault_ns or 0

    def look() -> int | None:
        stage.cluster.events.refresh()
        sources = {
            proxy_source(str(event.fields["pod"]).partition("/")[2])
            for event in stage.cluster.events.events
            if event.mono_ns >= since and _starts_proxy(event, stage.hit)
        }
        found = stage.cluster.events.find(
            lambda event: (
                event.msg == "synced" and event.source in sources and bool(event.fields["first"])
            ),
            since_ns=since,
        )
        return None if found is None else found.mono_ns

    return look


def caught_up(stage: ChainStage, nodes: Sequence[str]) -> Look:
    """Tell when the kernels of nodes send nothing more to the backend that was destroyed."""
    since = stage.fault_ns or 0
    version = -1

    def look() -> int | None:
        nonlocal version
        if version < 0:
            slices = [
                one
                for name in (shop.SHOP, shop.OUTSIDE_SHOP)
                for one in stage.cluster.api.objects(
                    kinds.ENDPOINT_SLICE, shop.NAMESPACE, {discovery.SERVICE_NAME_LABEL: name}
                )
            ]
            version = slices_version(slices, stage.victim)
            if version < 0:
                return None
        stage.cluster.events.refresh()
        found = [_synced(stage, node, version, since) for node in nodes]
        done = [one for one in found if one is not None]
        return max(done) if len(done) == len(found) else None

    return look


def both(*looks: Look) -> Look:
    """Tell when the last of several is over."""

    def look() -> int | None:
        found = [one() for one in looks]
        done = [one for one in found if one is not None]
        return max(done) if len(done) == len(found) else None

    return look


def connects(stage: ChainStage) -> Look:
    """Tell when a client behind the hit node can connect to the shop: as exact as one looks."""
    service = stage.cluster.api.get(kinds.SERVICE, shop.NAMESPACE, shop.SHOP)
    assert service is not None
    place = (str(service["spec"]["clusterIP"]), shop.SERVICE_TCP_PORT)
    client = stage.cluster.lab.host(stage.cluster.site.node(stage.hit).client)

    def look() -> int | None:
        with client.entered():
            try:
                socket.create_connection(place, _CONNECT_S).close()
            except OSError:
                return None
        return time.monotonic_ns()

    return look


def flows_lead_on(stage: ChainStage) -> Look:
    """Tell when no UDP flow of the shop leads to nobody any more: as exact as one looks."""

    def look() -> int | None:
        return None if strangers.poisoned(stage) else time.monotonic_ns()

    return look


def proxy_is_ready(stage: ChainStage) -> bool:
    """Return whether the hit node has a proxy pod that is ready."""
    return any(
        pod["spec"].get("nodeName") == stage.hit and is_ready(pod)
        for pod in stage.cluster.api.objects(
            catalog.POD, addons.NAMESPACE, {"k8s-app": addons.PROXY}
        )
    )


def _starts_proxy(event: Event, node: str) -> bool:
    return (
        event.msg == "container started"
        and event.source == log_name(node, Role.KUBELET)
        and event.fields.get("container") == addons.PROXY
    )


def _synced(stage: ChainStage, node: str, version: int, since: int) -> int | None:
    sources = proxies_of(stage.cluster.events.events, node)
    found = stage.cluster.events.find(
        lambda event: (
            event.msg == "synced"
            and event.source in sources
            and int(event.fields["versions"].get("endpointslices") or 0) >= version
        ),
        since_ns=since,
    )
    return None if found is None else found.mono_ns

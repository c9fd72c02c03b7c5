"""What makes each alert of ``deploy/monitoring/rules`` fire, for real: see ``ROUNDS``.

A cause is a context manager: it does something to a running cluster, and undoes it. Causes of one
round are there at the same time, because they do not get in each other's way.
"""

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGUSR1
from typing import Any

from monitored import HIT, NAMESPACE, OTHER, REPLICAS, SHOP, Monitored, deployment, service

from kproxy import errors
from kproxy.api import catalog, kinds
from kproxy.lab.chain import shop as chainshop
from kproxy.lab.chain import strangers
from kproxy.lab.chain.stage import ChainStage
from kproxy.lab.site import ADMIN
from kproxy.lab.whole import addons
from kproxy.lab.whole.roles import Role
from netns.impairment import Impairment

SYSTEM = addons.NAMESPACE
PROXY = {"ipvs": {"syncPeriod": "6s", "minSyncPeriod": "2s"}}
"""Of the proxies that are looked at here: what takes minutes otherwise takes seconds."""
_SET = "KUBE-LOOP-BACK"
_CHANGE_S = 0.7
_FLOWS = 3000
_CLIENTS = 4 * REPLICAS
"""So many connections that each backend has one."""


@dataclass(frozen=True, slots=True)
class Cause:
    """What is done, and the alerts that it makes fire."""

    alerts: frozenset[str]
    make: Callable[[Monitored], AbstractContextManager[None]]


def cause(*alerts: str) -> Callable[[Callable[[Monitored], Iterator[None]]], Cause]:
    """Return what makes a cause of a generator."""

    def made(function: Callable[[Monitored], Iterator[None]]) -> Cause:
        return Cause(frozenset(alerts), contextlib.contextmanager(function))

    return made


# Those who watch.


@cause("KproxyPrometheusDown")
def prometheus_down(lab: Monitored) -> Iterator[None]:
    """Have the second Prometheus down: one cannot tell of its own end."""
    with lab.down(("monitor2", Role.PROMETHEUS)):
        yield


@cause("KproxyAlertmanagerDown", "KproxyAlertsNotSent")
def alertmanager_down(lab: Monitored) -> Iterator[None]:
    """Have one of two Alertmanagers down."""
    with lab.down(("monitor2", Role.ALERTMANAGER)):
        yield


@cause("KproxyNotificationsFailing")
def nobody_listens(lab: Monitored) -> Iterator[None]:
    """Have the receiver of notifications down."""
    with lab.down((ADMIN, Role.PAGER)):
        yield


@cause("KproxyRuleEvaluationFailing")
def wrong_rule(lab: Monitored) -> Iterator[None]:
    """Have a rule that can be read, but not evaluated."""
    path = lab.cluster.places.monitoring.rules / "wrong.yaml"
    path.write_text('groups: [{name: wrong, rules: [{record: wrong, expr: "up * on() up"}]}]')
    try:
        lab.cluster.processes.kill("monitor1", Role.PROMETHEUS)  # its init starts it again
        yield
    finally:
        path.unlink()
        lab.cluster.processes.kill("monitor1", Role.PROMETHEUS)


@cause("KproxyStateOfObjectsUnknown")
def states_unknown(lab: Monitored) -> Iterator[None]:
    """Have the exporter of states down, of both Prometheuses."""
    with lab.down(*((host, Role.STATE) for host in lab.cluster.site.monitors)):
        yield


@cause("KproxyProberDown")
def no_prober(lab: Monitored) -> Iterator[None]:
    """Delete the DaemonSet of probers."""
    yield from _deleted(lab, catalog.DAEMON_SET, SYSTEM, addons.PROBER)


@cause("KproxyDNSDown")
def no_dns(lab: Monitored) -> Iterator[None]:
    """Delete the Deployment of name servers."""
    yield from _deleted(lab, catalog.DEPLOYMENT, SYSTEM, addons.DNS)


@cause("KubeProxyDown")
def no_proxies(lab: Monitored) -> Iterator[None]:
    """Delete the DaemonSet of proxies."""
    yield from _deleted(lab, catalog.DAEMON_SET, SYSTEM, addons.PROXY)


# The control plane.


@cause("KproxyStoreWithoutQuorum", "KproxyStoreNotAnswering", "KproxyAPIServerErrors")
def no_store(lab: Monitored) -> Iterator[None]:
    """Have etcd's only member down."""
    with lab.down(("etcd1", Role.ETCD)):
        yield


@cause("KproxyAPIServerDown", "KproxyControlPlaneUnreachable")
def no_api(lab: Monitored) -> Iterator[None]:
    """Have the only API server down."""
    with lab.down(("control1", Role.API_SERVER)):
        yield


@cause("KproxyNoLeader")
def no_manager(lab: Monitored) -> Iterator[None]:
    """Have the only manager down."""
    with lab.down(("control1", Role.MANAGER)):
        yield


@cause("KproxyControllerStuck")
def slow_api(lab: Monitored) -> Iterator[None]:
    """Have each answer of the API take longer, and a controller need many for one object."""
    control = lab.cluster.lab.host("control1")
    control.impair("eth0", Impairment.parse({"delay": "60ms"}, "control1"))
    try:
        lab.cluster.must_apply([_nowhere(100)])
        yield
    finally:
        control.impair("eth0", None)
        lab.cluster.api.delete(catalog.DEPLOYMENT, NAMESPACE, "nowhere")


# Nodes.


@cause("KproxyKubeletDown", "KproxyNodeNotReady", "KproxyDaemonSetShortOfPods")
def no_kubelet(lab: Monitored) -> Iterator[None]:
    """Have a kubelet down for so long that its node's pods do not count any more."""
    with lab.down((OTHER, Role.KUBELET)):
        yield


@cause("KproxyNodeUnreachable")
def unplugged(lab: Monitored) -> Iterator[None]:
    """Pull a node's cable."""
    lab.cluster.unplug(OTHER)
    try:
        yield
    finally:
        lab.cluster.plug(OTHER)


@cause("KproxyConntrackNearlyFull")
def many_flows(lab: Monitored) -> Iterator[None]:
    """Track flows, and allow hardly more than those: the limit is that of the whole kernel."""
    limit = Path("/proc/sys/net/netfilter/nf_conntrack_max")
    before = limit.read_text()
    place = (lab.service_address(), chainshop.UDP_PORT)
    with lab.cluster.lab.host(f"client-{HIT}").entered():
        for number in range(_FLOWS):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind(("", 20000 + number))
                sock.sendto(b"", place)
    with lab.hit.entered():
        count = int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text())
    assert count > _FLOWS  # of other hosts, which the limit shall not touch, there are fewer
    limit.write_text(str(round(count / 0.95)))
    try:
        yield
    finally:
        limit.write_text(before)


# Proxies.


@cause("KproxyProxyUnreachable", "KubeProxyInstanceUnreachable", "KproxyNodeOutOfDate")
def hung_proxy(lab: Monitored) -> Iterator[None]:
    """Stop a proxy where it is."""
    lab.cluster.processes.pause(HIT, Role.PROXY)
    try:
        yield
    finally:
        lab.cluster.processes.resume(HIT, Role.PROXY)


@cause("KproxyWatchStale")
def stuck_watch(lab: Monitored) -> Iterator[None]:
    """Let no data through to a proxy, while endpoints change."""
    stage = _stage(lab)
    strangers.hold_watches(stage)
    try:
        lab.scale(REPLICAS + 1)
        yield
    finally:
        strangers.release(stage)
        lab.scale(REPLICAS)


@cause("KproxyDrift", "KproxyServiceLossOnNode", "KproxyServiceLossBudgetBurn")
def rules_deleted(lab: Monitored) -> Iterator[None]:
    """Delete a node's virtual servers, again whenever the proxy has put them right."""
    with _again_and_again(lambda: strangers.delete_rules(_stage(lab)), pause=1.0):
        yield


@cause("KproxyUDPBlackHole")
def poisoned(lab: Monitored) -> Iterator[None]:
    """Have UDP flows tracked to nobody, again whenever the proxy has put them right."""

    def poison() -> None:
        with contextlib.suppress(errors.MeasurementError):  # no flow is tracked just now
            strangers.poison_flows(_stage(lab))

    with _again_and_again(poison, pause=0.1):
        yield


@cause(
    "KproxyProxyNotSyncing", "KproxySyncFailing", "KproxyProxyUnhealthy", "KproxyDriftNotRepaired"
)
def usurped_set(lab: Monitored) -> Iterator[None]:
    """Put an IP set of another type into the place of the proxy's, and keep it in use."""
    began = time.monotonic()
    node = lab.cluster.lab.host(OTHER)
    usage = ["POSTROUTING", "-m", "set", "--match-set", _SET, "src", "-j", "RETURN"]
    node.run(["iptables", "-t", "nat", "-F", "KUBE-POSTROUTING"])
    node.run(["ipset", "destroy", _SET])
    node.run(["ipset", "create", _SET, "hash:ip"])
    node.run(["iptables", "-t", "nat", "-A", *usage])
    try:
        # It is drift while nothing has changed; what is asked for then, and not done, is late.
        lab.await_fired({"KproxyDriftNotRepaired"}, began)
        lab.scale(REPLICAS + 1)
        yield
    finally:
        node.run(["iptables", "-t", "nat", "-D", *usage])
        node.run(["ipset", "destroy", _SET])
        lab.cluster.processes.kill(OTHER, Role.PROXY, SIGUSR1)  # read the kernel now, not later
        lab.scale(REPLICAS)


@cause("KproxyNetworkProgrammingSlow")
def too_many_changes(lab: Monitored) -> Iterator[None]:
    """Change endpoints all the time, faster than the proxies may sync (minSyncPeriod)."""
    numbers = itertools.count()
    try:
        with _again_and_again(lambda: lab.scale(REPLICAS + next(numbers) % 2), pause=_CHANGE_S):
            yield
    finally:
        lab.scale(REPLICAS)


@cause("KproxyNoLocalEndpoints")
def not_local(lab: Monitored) -> Iterator[None]:
    """Have a Service for the pods of each node by themselves, and such a pod on one node only."""
    spec = {"internalTrafficPolicy": "Local", "selector": {"app": "lonely"}}
    lab.cluster.must_apply([deployment("lonely", 1), service("local", **spec)])
    try:
        yield
    finally:
        lab.cluster.api.delete(kinds.SERVICE, NAMESPACE, "local")
        lab.cluster.api.delete(catalog.DEPLOYMENT, NAMESPACE, "lonely")


@cause("KproxyServiceWithoutEndpoints")
def nobody_serves(lab: Monitored) -> Iterator[None]:
    """Have a Service for pods that there are not."""
    lab.cluster.must_apply([service("deserted", selector={"app": "deserted"})])
    try:
        yield
    finally:
        lab.cluster.api.delete(kinds.SERVICE, NAMESPACE, "deserted")


@cause("KproxyRealServerStuckAtZero")
def draining(lab: Monitored) -> Iterator[None]:
    """Destroy a backend with an open connection: nobody ever says that it has ended."""
    stage = _stage(lab)
    with lab.cluster.lab.host(f"client-{HIT}").entered():
        open_ones = [
            socket.create_connection((lab.service_address(), 80), 5.0) for _ in range(_CLIENTS)
        ]
    stage.destroy(stage.choose_backend())
    try:
        yield
    finally:
        for one in open_ones:
            one.close()


# What they have in common.


@contextlib.contextmanager
def _again_and_again(act: Callable[[], None], pause: float) -> Iterator[None]:
    """Have something be done all the time, in a thread; what it raises is raised in the end."""
    ending = threading.Event()
    with ThreadPoolExecutor(1) as pool:

        def acting() -> None:
            while not ending.wait(pause):
                act()

        done = pool.submit(acting)
        try:
            yield
        finally:
            ending.set()
        done.result()


def _stage(lab: Monitored) -> ChainStage:
    """Return what faults of the chain act on; the shop here has its names."""
    assert (chainshop.NAMESPACE, chainshop.SHOP) == (NAMESPACE, SHOP)
    return ChainStage(lab.cluster, HIT, hand_s=0.0)


def _deleted(lab: Monitored, kind: kinds.Kind, namespace: str, name: str) -> Iterator[None]:
    found = lab.cluster.api.get(kind, namespace, name)
    assert found is not None
    lab.cluster.api.delete(kind, namespace, name)
    try:
        yield
    finally:
        lab.cluster.must_apply(addons.manifests(lab.cluster.places))


def _nowhere(replicas: int) -> dict[str, Any]:
    """Return a Deployment whose pods fit on no node."""
    labels = {"app": "nowhere"}
    spec = {
        "nodeSelector": {"nowhere": "true"},
        "containers": [{"name": "nowhere", "image": "pause"}],
    }
    template = {"metadata": {"labels": labels}, "spec": spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "nowhere", "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": template,
        },
    }


ROUNDS: tuple[tuple[Cause, ...], ...] = (
    # First: while something drains, what is not as it was is no drift.
    (rules_deleted,),
    (poisoned,),
    (
        too_many_changes,
        prometheus_down,
        nobody_listens,
        states_unknown,
        no_prober,
        no_dns,
        many_flows,
    ),
    # The first one needs some quiet, and waits until it has had it.
    (usurped_set, alertmanager_down, draining, nobody_serves, not_local),
    # Not beside what is to vanish: whose end a Prometheus misses is up for five more minutes.
    (wrong_rule, no_kubelet, hung_proxy),
    # Not sooner: what an API server has only just been started for is not behind.
    (unplugged, stuck_watch),
    (no_store, no_manager),
    (no_proxies, slow_api),
    (no_api,),
)

"""A watched cluster: silent while it is well, and well while those who watch it are not."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from monitored import ALWAYS, HIT, NAMESPACE, PATIENCE, REPLICAS, SHOP, Monitored, running

from kproxy.api import catalog, kinds
from kproxy.lab import pager
from kproxy.lab.chain.alarms import Alarms, Prometheus
from kproxy.lab.eventlog import Event
from kproxy.lab.site import ADMIN
from kproxy.lab.whole import addons
from kproxy.lab.whole.roles import Role
from netns.kernels import base

pytestmark = [
    pytest.mark.lab,
    pytest.mark.needs_module("ip_vs"),
    pytest.mark.needs_tool("prometheus", "prometheus-alertmanager"),
    pytest.mark.skipif(base.clock() is not base.Clock.VIRTUAL, reason="needs the virtual clock"),
]
CALM_S = 300.0


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    state = tmp_path_factory.mktemp("calm")
    with running(state, "calm", controlPlane={"replicas": 1}) as made:
        yield made


def restart(lab: Monitored, kind: kinds.Kind, namespace: str, name: str) -> None:
    """Have all pods of a workload replaced, as ``kubectl rollout restart`` does."""
    again = {"metadata": {"annotations": {"kproxy/restarted-at": str(time.monotonic_ns())}}}
    lab.cluster.api.patch(kind, namespace, name, {"spec": {"template": again}})


def test_nothing_fires_while_all_is_well_and_everything_is_replaced(lab: Monitored) -> None:
    lab.await_only({ALWAYS})
    began = time.monotonic()
    workloads = (
        (catalog.DEPLOYMENT, NAMESPACE, SHOP),
        (catalog.DAEMON_SET, addons.NAMESPACE, addons.PROXY),
        (catalog.DEPLOYMENT, addons.NAMESPACE, addons.DNS),
    )
    for kind, namespace, name in workloads:
        restart(lab, kind, namespace, name)
        time.sleep(CALM_S / (len(workloads) + 1))  # time in which an alert could fire
        lab.settle()
    time.sleep(max(0.0, began + CALM_S - time.monotonic()))  # and the rest of it
    fired = f'ALERTS{{alertstate="firing"}}[{CALM_S:.0f}s]'
    for host in lab.cluster.site.monitors:
        found = Prometheus(lab.cluster, host).query(f"count_over_time({fired})")
        names = {one["metric"]["alertname"]: one["value"][1] for one in found}
        assert set(names) == {ALWAYS}, names
        assert int(names[ALWAYS]) >= CALM_S - 2  # they were there all the time, and evaluated


def serves(lab: Monitored) -> None:
    """Have the chain below show that it works: a change gets into each node's kernel."""

    def synced(name: str) -> Callable[[Event], bool]:
        return lambda event: event.msg == "synced" and of(lab, event.source, name)

    since = time.monotonic_ns()
    lab.scale(REPLICAS + 1)
    try:
        for node in lab.cluster.site.nodes:
            lab.cluster.events.wait(
                synced(node.name),
                why=f"a change in the kernel of {node.name}",
                timeout=PATIENCE,
                since_ns=since,
            )
    finally:
        lab.scale(REPLICAS)


def of(lab: Monitored, source: str, node: str) -> bool:
    """Return whether a log is that of the proxy on a node."""
    pods = lab.cluster.api.objects(catalog.POD, addons.NAMESPACE, {"k8s-app": addons.PROXY})
    names = {pod["metadata"]["name"] for pod in pods if pod["spec"].get("nodeName") == node}
    return any(name in source for name in names)


def switch(lab: Monitored, state: str, since: int) -> None:
    """Wait for what the dead man's switch says."""
    lab.event(pager.SWITCH, since, state=state)


def test_without_prometheus_the_switch_tells_and_the_chain_works(lab: Monitored) -> None:
    since = time.monotonic_ns()
    with lab.down(*((host, Role.PROMETHEUS) for host in lab.cluster.site.monitors)):
        switch(lab, "silent", since)
        serves(lab)
    switch(lab, "back", since)


def test_cut_off_alertmanagers_leave_the_chain_alone_and_the_switch_tells(lab: Monitored) -> None:
    since = time.monotonic_ns()
    first, second = lab.cluster.site.monitors
    lab.cluster.unplug(second)
    try:
        heal_a_hung_proxy(lab)  # the other one goes on by itself
        lab.cluster.unplug(first)
        try:
            switch(lab, "silent", since)
            serves(lab)
        finally:
            lab.cluster.plug(first)
    finally:
        lab.cluster.plug(second)
    switch(lab, "back", since)
    lab.settle()
    lab.await_only({ALWAYS})


def heal_a_hung_proxy(lab: Monitored) -> None:
    """Stop a proxy, and wait until remediation has put it right."""
    since = time.monotonic_ns()
    alarms = Alarms(lab.cluster, since)
    lab.cluster.processes.pause(HIT, Role.PROXY)
    lab.await_it(lambda: any(one.helped for one in alarms.acts()), PATIENCE, "a repair")
    (act,) = [one for one in alarms.acts() if one.helped]
    assert act.action == "restart-proxy"


def test_a_receiver_that_comes_back_does_what_is_to_be_done(lab: Monitored) -> None:
    since = time.monotonic_ns()
    (monitor, *_) = lab.cluster.site.monitors
    alarms = Alarms(lab.cluster, since)
    with lab.down((monitor, Role.REMEDIATION)):
        lab.cluster.processes.pause(HIT, Role.PROXY)
        lab.await_fired({"KproxyProxyUnreachable", "KproxyRemediationDown"}, since / 1e9)
        serves_other(lab)
        assert alarms.acts() == []
    lab.await_it(lambda: any(one.helped for one in alarms.acts()), PATIENCE, "a repair")
    lab.settle()
    lab.await_only({ALWAYS})


def serves_other(lab: Monitored) -> None:
    """Have the node whose proxy is well show that it goes on."""
    since = time.monotonic_ns()
    lab.scale(REPLICAS + 1)
    other = lab.cluster.site.nodes[1].name
    lab.cluster.events.wait(
        lambda event: event.msg == "synced" and of(lab, event.source, other),
        why=f"a change in the kernel of {other}",
        timeout=PATIENCE,
        since_ns=since,
    )
    lab.scale(REPLICAS)


@contextlib.contextmanager
def next_proxies_run(lab: Monitored, command: str) -> Iterator[None]:
    """Have proxies that are made from now on run another program; those that run stay."""

    def declare(containers: list[Any], strategy: dict[str, Any]) -> None:
        spec = {"template": {"spec": {"containers": containers}}, "updateStrategy": strategy}
        lab.cluster.api.patch(catalog.DAEMON_SET, addons.NAMESPACE, addons.PROXY, {"spec": spec})

    found = lab.cluster.api.get(catalog.DAEMON_SET, addons.NAMESPACE, addons.PROXY)
    assert found is not None
    containers = found["spec"]["template"]["spec"]["containers"]
    others = [{**one, "command": [command]} for one in containers]
    declare(others, {"type": "OnDelete", "rollingUpdate": None})
    try:
        yield
    finally:
        declare(containers, found["spec"]["updateStrategy"])


def test_what_a_repair_does_not_help_is_left_to_people(lab: Monitored) -> None:
    """A proxy that is made anew ends at once: to make it anew once more does not help."""
    since = time.monotonic_ns()
    with next_proxies_run(lab, "/bin/false"):
        lab.cluster.processes.pause(HIT, Role.PROXY)
        lab.await_fired({"KproxyRemediationEscalated"}, since / 1e9, 300.0)
        told = lab.event(pager.TOLD, since, alert="KproxyRemediationEscalated", status="firing")
        assert told.source == f"{ADMIN}-{Role.PAGER}"
    lab.settle()

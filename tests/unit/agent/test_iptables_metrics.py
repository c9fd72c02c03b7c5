"""What rules have counted: in both families together, and left out where it is not known."""

import io
from typing import Any

import msgspec
import pytest
from exposition_parser import parse

from kproxy.agent.iptablesmetrics import REST, IptablesMetrics
from kproxy.backends.base import FAMILIES
from kproxy.backends.iptables import base_rules, render
from kproxy.desired.model import Family, NodePorts, State
from kproxy.errors import KernelError
from kproxy.exposition import Registry
from kproxy.kernel import inet
from kproxy.kernel.iptables.fake import FakeIptables
from kproxy.kernel.iptables.types import TableChange
from kproxy.logs import Log

DROPPED = "kubeproxy_iptables_ct_state_invalid_dropped_packets_total"
ACCEPTED = "kubeproxy_iptables_localhost_nodeports_accepted_packets_total"
FOUR = State(family=Family.IPV4, services={}, node_ports=NodePorts(localhost=True))
SIX = State(family=Family.IPV6, services={}, node_ports=NodePorts(localhost=True))


class Kernel:
    """Rules of two families, as a proxy wrote them, and a clock."""

    def __init__(self, *states: State, liberal: bool = False) -> None:
        self.now = 100.0
        self.log = io.StringIO()
        self.iptables = {family: FakeIptables() for family in inet.Family}
        for state in states:
            renderer = render.Renderer(tcp_be_liberal=liberal)
            renderer.render(state)
            self.iptables[FAMILIES[state.family]].restore(
                [TableChange(table, one.chains) for table, one in renderer.wanted().items()]
            )
        clients: Any = self.iptables.__getitem__
        counted = IptablesMetrics(
            clients,
            lambda: states,
            Log("proxy", stream=self.log),
            liberal=liberal,
            clock=lambda: self.now,
        )
        self.registry = Registry()
        self.registry.collect_by(counted.collect)

    def meet(self, family: inet.Family, table: str, rule: str, count: int) -> None:
        self.iptables[family].met[table, rule] = count

    def told(self) -> dict[str, float]:
        return {name: one.samples[name, ()] for name, one in parse(self.registry.text()).items()}


def test_both_families_are_told_as_one() -> None:
    kernel = Kernel(FOUR, SIX)
    assert kernel.told() == {DROPPED: 0, ACCEPTED: 0}
    kernel.meet(inet.Family.IPV4, "filter", base_rules.DROPPED_INVALID, 3)
    kernel.meet(inet.Family.IPV6, "filter", base_rules.DROPPED_INVALID, 4)
    kernel.meet(inet.Family.IPV4, "nat", base_rules.FROM_LOCALHOST, 5)
    assert kernel.told() == {DROPPED: 7, ACCEPTED: 5}


def test_where_nothing_can_happen_it_has_not_happened() -> None:
    remote = msgspec.structs.replace(FOUR, node_ports=NodePorts())
    assert Kernel(remote, liberal=True).told() == {DROPPED: 0, ACCEPTED: 0}


def test_a_chain_that_is_not_as_wanted_is_not_told() -> None:
    kernel = Kernel(FOUR)
    kernel.iptables[inet.Family.IPV4].restore(
        [TableChange("filter", {"KUBE-FORWARD": ("-A KUBE-FORWARD -j ACCEPT",)})]
    )
    assert kernel.told() == {ACCEPTED: 0}


def test_a_kernel_that_cannot_be_read_is_logged_and_told_nothing_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = Kernel(FOUR)

    def refuse(table: str, chain: str) -> tuple[int, ...]:
        raise KernelError(f"read {table}", 1, "no")

    monkeypatch.setattr(kernel.iptables[inet.Family.IPV4], "packets", refuse)
    assert kernel.told() == {}
    assert "reading iptables counters failed" in kernel.log.getvalue()


def test_what_takes_long_is_not_read_at_every_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(FOUR)
    fake, readings = kernel.iptables[inet.Family.IPV4], []
    packets = fake.packets

    def slow(table: str, chain: str) -> tuple[int, ...]:
        kernel.now += 0.5 if table == "nat" else 0.0
        readings.append(table)
        return packets(table, chain)

    monkeypatch.setattr(fake, "packets", slow)
    assert kernel.told() == kernel.told()
    assert readings == ["filter", "nat", "filter"]
    kernel.now += 0.5 * REST
    kernel.told()
    assert readings[3:] == ["filter", "nat"]

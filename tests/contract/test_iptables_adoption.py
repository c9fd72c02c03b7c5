"""Every rule of iptables mode comes back as it was said, so that nothing is rewritten."""

import dataclasses
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from msgspec import structs
from test_iptables_contract import kernel_client

from kproxy.backends.iptables.backend import Backend, Kernel
from kproxy.desired import model
from kproxy.desired.model import (
    Address,
    Endpoint,
    NodePorts,
    Prefix,
    Protocol,
    ServicePort,
    ServicePortName,
    ServiceState,
    State,
)
from kproxy.kernel.conntrack.fake import FakeConntrack
from kproxy.kernel.inet import Family
from kproxy.kernel.iptables import text
from kproxy.kernel.iptables.client import Iptables
from kproxy.kernel.iptables.types import RuleSet, TableChange
from kproxy.kernel.sysctl import FakeSysctl

FAMILIES = {Family.IPV4: model.Family.IPV4, Family.IPV6: model.Family.IPV6}
SYSCTLS = ("ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/all/route_localnet")

pytestmark = pytest.mark.kernel


@dataclasses.dataclass(frozen=True)
class Addresses:
    """Addresses of one family."""

    service: str
    external: str
    balanced: str
    pods: tuple[str, str]
    pod_range: str
    source_ranges: tuple[str, ...]
    node: str


ADDRESSES = {
    Family.IPV4: Addresses(
        "10.96.0.{}", "203.0.113.{}", "192.0.2.{}", ("10.128.0.5", "10.128.1.6"),
        "10.128.0.0/9", ("198.51.100.0/24", "10.0.0.0/8", "192.0.2.77/32"), "10.20.0.1",
    ),
    Family.IPV6: Addresses(
        "fd00:10:96::{}", "2001:db8::{}", "2001:db8:1::{}", ("fd00:10:128::5", "fd00:10:128:1::6"),
        "fd00:10:128::/48", ("2001:db8:9::/64", "fd00::/16", "::/0"), "fd00:20::1",
    ),
}  # fmt: skip


def services(family: Family, sctp: bool) -> Iterator[ServiceState]:
    """Yield service ports with every combination of what rules depend on."""
    where = ADDRESSES[family]
    here, there = (
        Endpoint(address=Address(pod), port=8080, local=index == 0)
        for index, pod in enumerate(where.pods)
    )
    protocols = [Protocol.TCP, Protocol.UDP, *([Protocol.SCTP] if sctp else [])]
    ways = product(protocols, (None, 60), (False, True), (False, True), (0, 1, 2))
    for number, (protocol, affinity, local, inside, endpoints) in enumerate(ways, 1):
        chosen = ((), (there,), (here, there))[endpoints]
        yield ServiceState(
            service=ServicePort(
                name=ServicePortName("demo", f"s{number}", "p", protocol),
                cluster_ip=Address(where.service.format(number)),
                port=80,
                node_port=30000 + number,
                external_ips=(Address(where.external.format(number)),),
                load_balancer_vips=(Address(where.balanced.format(number)),),
                source_ranges=tuple(map(Prefix, where.source_ranges)) if number % 2 else (),
                affinity_seconds=affinity,
                external_local=local,
                internal_local=inside,
                health_check_node_port=32000 + number if local else 0,
            ),
            cluster=chosen,
            local=tuple(one for one in chosen if one.local) if local or inside else (),
            known=chosen,
            anywhere=bool(chosen),
        )


def state(family: Family, variation: int, *, sctp: bool) -> State:
    where = ADDRESSES[family]
    node_ports = [
        NodePorts(addresses=(Address(where.node),), localhost=True),
        NodePorts(everywhere=False, addresses=(Address(where.node),)),
        NodePorts(everywhere=False, addresses=(Address(where.node),), localhost=True),
    ]
    return State(
        family=FAMILIES[family],
        services={one.service.name: one for one in services(family, sctp)},
        cluster_cidrs=(Prefix(where.pod_range),),
        local_interface=("", "cali+", "br0")[variation],
        masquerade_all=variation == 1,
        node_ports=node_ports[variation],
    )


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_a_second_proxy_finds_everything_right(
    request: pytest.FixtureRequest, family: Family, variant: str
) -> None:
    client = kernel_client(request, family, variant)
    kernel = Kernel(
        iptables=client,
        conntrack=FakeConntrack(),
        sysctl=FakeSysctl({f"net/{name}": "1" for name in SYSCTLS}),
    )
    before = client.save("filter", "nat")
    for variation in range(3):
        sctp = True
        result = Backend(kernel, family).sync(state(family, variation, sctp=sctp))
        if result.refused:
            assert all("sctp" in str(error) for error in result.refused)
            sctp = False
        assert result.failures == ()
        assert result.writes > 20
        again = Backend(kernel, family)
        again.reread()
        wanted = state(family, variation, sctp=sctp)
        assert again.differences(wanted) == []
        found = again.sync(wanted)
        assert (found.writes, found.failures, found.refused, found.invalid) == (0, (), (), ())
    Backend(kernel, family).cleanup()
    assert client.save("filter", "nat") == before


@pytest.mark.parametrize("variant", ["nft", "legacy"])
@pytest.mark.parametrize(
    "damage",
    ["chain lost", "chain flushed", "rule added", "jump lost", "rule changed", "stale chain"],
)
def test_what_others_change_is_told_and_put_right(
    request: pytest.FixtureRequest, variant: str, damage: str
) -> None:
    client = kernel_client(request, Family.IPV4, variant)
    kernel = Kernel(
        iptables=client,
        conntrack=FakeConntrack(),
        sysctl=FakeSysctl({f"net/{name}": "1" for name in SYSCTLS}),
    )
    wanted = state(Family.IPV4, 0, sctp=False)
    backend = Backend(kernel, Family.IPV4)
    backend.sync(wanted)
    right = client.save("filter", "nat")
    hurt(client, right, damage)
    assert client.save("filter", "nat") != right
    assert backend.differences(wanted) != []
    backend.reread()
    result = backend.sync(wanted)
    assert (result.failures, result.refused) == ((), ())
    assert 0 < result.writes < 10
    assert client.save("filter", "nat") == right
    assert backend.differences(wanted) == []


def hurt(client: Iptables, right: RuleSet, damage: str) -> None:
    """Do to the kernel's rules what another program may do."""
    nat = right["nat"]
    chain = next(name for name in nat if name.startswith("KUBE-EXT-"))
    rules = nat[chain].rules
    users = [
        name
        for name, one in nat.items()
        if any(text.target_of(rule) == chain for rule in one.rules)
    ]
    changes: dict[str, dict[str, Any]] = {
        "chain lost": {"replace": dict.fromkeys(users, ()), "delete": [chain]},
        "chain flushed": {"replace": {chain: ()}},
        "rule added": {"replace": {chain: (*rules, f"-A {chain} -j RETURN")}},
        "rule changed": {"replace": {chain: (f"-A {chain} -j RETURN", *rules[1:])}},
        "jump lost": {"remove": [nat["PREROUTING"].rules[0]]},
        "stale chain": {"replace": {"KUBE-SEP-AAAAAAAAAAAAAAAA": ()}},
    }
    client.restore([TableChange("nat", **changes[damage])])


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_a_service_whose_rules_the_tool_refuses_is_left_out(
    request: pytest.FixtureRequest, variant: str
) -> None:
    client = kernel_client(request, Family.IPV4, variant)
    sysctl = FakeSysctl({f"net/{name}": "1" for name in SYSCTLS})
    kernel = Kernel(iptables=client, conntrack=FakeConntrack(), sysctl=sysctl)
    wanted = state(Family.IPV4, 0, sctp=False)
    sticky = next(
        name
        for name, one in wanted.services.items()
        if one.cluster and one.service.affinity_seconds
    )
    others = {name: one for name, one in wanted.services.items() if name != sticky}
    too_long = structs.replace(wanted.services[sticky].service, affinity_seconds=1 << 40)
    bad = structs.replace(wanted.services[sticky], service=too_long)
    result = Backend(kernel, Family.IPV4).sync(
        structs.replace(wanted, services={sticky: bad, **others})
    )
    assert result.failures == ()
    (refused,) = result.refused
    assert str(sticky) in str(refused)
    assert "--seconds" in str(refused)
    assert Backend(kernel, Family.IPV4).differences(structs.replace(wanted, services=others)) == []

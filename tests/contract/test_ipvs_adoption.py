"""Whatever ipvs mode writes comes back as it was said, in both families and variants of iptables.

And what others do to it is told and put right.
"""

import subprocess
from collections.abc import Iterator

import pytest
from msgspec import structs
from test_iptables_adoption import state
from test_iptables_contract import kernel_client

from kproxy.backends.ipvs.backend import Backend, Kernel
from kproxy.backends.ipvs.render import DEVICE
from kproxy.desired.model import NodePorts, Prefix, State
from kproxy.kernel.conntrack.fake import FakeConntrack
from kproxy.kernel.inet import Family
from kproxy.kernel.ipset.client import Ipset
from kproxy.kernel.ipvs.client import IPVS
from kproxy.kernel.links.client import Links
from kproxy.kernel.sysctl import Sysctl
from netns.wait import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.needs_module("ip_vs", "dummy", "ip_set")]


@pytest.fixture
def doors(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """The kernel of a namespace of its own, but for its conntrack, through one variant."""
    family, variant = request.param
    rules = kernel_client(request, family, variant)
    with IPVS() as ipvs, Ipset() as ipset, Links() as links:
        yield Kernel(
            ipvs=ipvs,
            ipset=ipset,
            iptables=rules,
            links=links,
            conntrack=FakeConntrack(),
            sysctl=Sysctl(),
            release=(6, 1),
        )


def ways(*variants: str) -> list[object]:
    return [
        pytest.param((family, variant), id=f"{variant}-ipv{family.value}")
        for family in Family
        for variant in variants
    ]


def everybody_is_a_pod(family: Family) -> State:
    cidr = Prefix("0.0.0.0/0" if family is Family.IPV4 else "::/0")
    return structs.replace(state(family, 0, sctp=True), cluster_cidrs=(cidr,))


@pytest.mark.parametrize("doors", ways("nft", "legacy"), indirect=True)
def test_a_second_proxy_finds_everything_right(
    request: pytest.FixtureRequest, doors: Kernel
) -> None:
    family: Family = request.node.callspec.params["doors"][0]
    plain = state(family, 0, sctp=True)
    variations = [
        *(state(family, variation, sctp=True) for variation in range(3)),
        everybody_is_a_pod(family),
        structs.replace(plain, cluster_cidrs=()),
        # Where the node's own address is not served, source ranges leave it out.
        structs.replace(plain, node_ports=NodePorts(everywhere=False)),
    ]
    before = doors.iptables.save("filter", "nat")
    for wanted in variations:
        result = Backend(doors, family).sync(wanted)
        assert (result.failures, result.refused) == ((), ())
        assert result.writes > 0
        again = Backend(doors, family)
        again.reread()
        assert again.differences(wanted) == []
        found = again.sync(wanted)
        assert (found.writes, found.failures, found.refused, found.invalid) == (0, (), (), ())
    Backend(doors, family).cleanup()
    assert doors.iptables.save("filter", "nat") == before
    assert (doors.ipvs.dump(), doors.ipset.dump()) == ({}, {})
    assert not doors.links.exists(DEVICE)


@pytest.mark.parametrize("doors", ways("legacy"), indirect=True)
@pytest.mark.parametrize("kept", ["0", "1"])
def test_a_device_that_was_set_down_serves_after_a_full_sync(
    request: pytest.FixtureRequest, doors: Kernel, kept: str
) -> None:
    """IPv6 addresses vanish then, or stay without being of use."""
    doors.sysctl.set("net/ipv6/conf/all/keep_addr_on_down", kept)
    family: Family = request.node.callspec.params["doors"][0]
    wanted = state(family, 0, sctp=True)
    backend = Backend(doors, family)
    backend.sync(wanted)
    some = [str(one.ip) for one in sorted(doors.links.addresses(DEVICE))[:3]]
    wait_until(lambda: all(map(is_local, some)), 60, "the addresses are not local")
    subprocess.run(["ip", "link", "set", DEVICE, "down"], check=True)
    backend.reread()
    result = backend.sync(wanted)
    assert (result.failures, result.refused) == ((), ())
    wait_until(lambda: all(map(is_local, some)), 60, "the addresses are not local again")
    assert backend.differences(wanted) == []


def is_local(address: str) -> bool:
    """Return whether a packet to an address is for this node."""
    done = subprocess.run(["ip", "route", "get", address], check=False, capture_output=True)
    return done.stdout.startswith(b"local ")

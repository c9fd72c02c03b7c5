"""Random transactions on a fake and on the kernel: the same answers, the same state.

A fake that agrees to more, or to less, than the kernel would let a wrong backend pass its tests.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from fresh_netns import fresh_namespace
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kproxy.errors import KernelError
from kproxy.kernel.inet import Family, Protocol
from kproxy.kernel.ipset import types as ipset
from kproxy.kernel.ipset.client import Ipset
from kproxy.kernel.ipset.fake import FakeIpset
from kproxy.kernel.ipvs import types as ipvs
from kproxy.kernel.ipvs.client import IPVS
from kproxy.kernel.ipvs.fake import FakeIPVS

pytestmark = pytest.mark.kernel

RANDOM = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)

addresses = st.sampled_from(
    [
        *("10.0.0.1", "10.0.0.2", "127.0.0.1", "0.0.0.0", "224.0.0.5", "255.255.255.255"),
        *("fd00::1", "fd00::2", "fe80::1", "ff02::1", "::"),
    ]
).map(ipaddress.ip_address)
ports = st.sampled_from([0, 1, 80, 65535])
protocols = st.sampled_from(list(Protocol))

service_keys = st.builds(ipvs.ServiceKey, protocols, addresses, st.sampled_from([0, 80]))
destination_keys = st.builds(ipvs.DestinationKey, addresses, ports)
ipv4_destination_keys = destination_keys.filter(lambda key: len(key) == 6)
service_configs = st.builds(
    ipvs.ServiceConfig,
    scheduler=st.sampled_from(["rr", "wrr", "sh", "lc", "nonsense", "", "x" * 16]),
    flags=st.sampled_from([0, 1, 4, 8, 0x10, 0x11]).map(ipvs.ServiceFlags),
    timeout=st.sampled_from([0, 1, 10800]),
    netmask=st.sampled_from([None, None, 24]),
)
destination_configs = st.builds(
    ipvs.DestinationConfig,
    weight=st.sampled_from([0, 1, 65535, 0x7FFFFFFF, 0x80000000]),
    forwarding=st.sampled_from(list(ipvs.Forwarding)),
)
ipvs_operations = st.one_of(
    st.builds(ipvs.AddService, service_keys, service_configs),
    st.builds(
        ipvs.AddService,
        service_keys,
        service_configs,
        st.lists(ipv4_destination_keys, max_size=3).map(b"".join),
        destination_configs,
    ).filter(lambda op: op.service.family is Family.IPV4),
    st.builds(ipvs.SetService, service_keys, service_configs),
    st.builds(ipvs.DelService, service_keys),
    st.builds(ipvs.AddDestination, service_keys, destination_keys, destination_configs),
    st.builds(ipvs.SetDestination, service_keys, destination_keys, destination_configs),
    st.builds(ipvs.DelDestination, service_keys, destination_keys),
)


def answers(results: Sequence[KernelError | None]) -> list[tuple[str, int] | None]:
    return [(type(r).__name__, r.errno) if r is not None else None for r in results]


@dataclass(frozen=True)
class Answered:
    """An operation with the answer to it: a difference shows both."""

    operation: object
    answer: tuple[str, int] | None


def answered(
    operations: Sequence[object], results: Sequence[KernelError | None]
) -> list[Answered]:
    return [Answered(op, a) for op, a in zip(operations, answers(results), strict=True)]


@pytest.fixture(scope="module")
def ipvs_here() -> None:
    with IPVS() as client:
        if why := client.supported():
            pytest.skip(f"needs a kernel that can: {why}")


@RANDOM
@given(st.lists(ipvs_operations, max_size=40))
def test_ipvs(ipvs_here: None, transaction: list[ipvs.Operation]) -> None:
    fake = FakeIPVS()
    with fresh_namespace(), IPVS() as real:
        expected = answered(transaction, real.run(transaction))
        assert answered(transaction, fake.run(transaction)) == expected
        assert fake.dump() == real.dump()


names = st.sampled_from(["A", "B", "x" * 31, "x" * 32])
networks = st.sampled_from(["10.0.0.0/8", "10.0.0.1/32", "0.0.0.0/0", "fd00::/64", "::/0"]).map(
    ipaddress.ip_network
)
hosts = st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"]).map(ipaddress.ip_address)
none = st.none()
entries = st.one_of(
    st.builds(ipset.Entry, none, none, ports, none),
    st.builds(ipset.Entry, hosts, none, none, none),
    st.builds(ipset.Entry, hosts, protocols, ports, none),
    st.builds(ipset.Entry, hosts, protocols, ports, st.one_of(hosts, networks)),
)
specs = st.builds(
    ipset.SetSpec,
    st.sampled_from(list(ipset.SetType)),
    st.sampled_from(list(Family)),
    st.sampled_from([1, 2, 65536]),
)
ipset_operations = st.one_of(
    st.builds(ipset.CreateSet, names, specs),
    st.builds(ipset.DestroySet, names),
    st.builds(ipset.FlushSet, names),
    st.builds(ipset.SwapSets, names, names),
    st.builds(ipset.AddEntry, names, entries),
    st.builds(ipset.DelEntry, names, entries),
)


@pytest.fixture(scope="module")
def ipset_here() -> None:
    with Ipset() as client:
        if why := client.supported():
            pytest.skip(f"needs a kernel that can: {why}")


@RANDOM
@given(specs, st.lists(ipset_operations, max_size=40))
def test_ipset(ipset_here: None, spec: ipset.SetSpec, transaction: list[ipset.Operation]) -> None:
    transaction = [ipset.CreateSet("A", spec), *transaction]
    fake = FakeIpset()
    with fresh_namespace(), Ipset() as real:
        expected = answered(transaction, real.run(transaction))
        assert answered(transaction, fake.run(transaction)) == expected
        assert fake.dump() == real.dump()

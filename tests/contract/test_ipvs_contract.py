"""What an IPVS table promises, kept by the fake and by the kernel."""

import errno
import ipaddress
import random
from collections.abc import Iterator

import pytest
from fresh_netns import BOTH, fresh_namespace

from kproxy.errors import AlreadyExists, KernelError, NotFound
from kproxy.kernel.inet import Family, Protocol
from kproxy.kernel.ipvs.client import IPVS
from kproxy.kernel.ipvs.fake import FakeIPVS
from kproxy.kernel.ipvs.types import (
    AddDestination,
    AddService,
    DelDestination,
    DelService,
    DestinationConfig,
    DestinationKey,
    DestinationStats,
    Forwarding,
    IPVSClient,
    Operation,
    ServiceConfig,
    ServiceFlags,
    ServiceKey,
    SetDestination,
    SetService,
    Timeouts,
)


def service(address: str, port: int = 80, protocol: Protocol = Protocol.TCP) -> ServiceKey:
    return ServiceKey(protocol, ipaddress.ip_address(address), port)


def server(address: str, port: int = 8080) -> DestinationKey:
    return DestinationKey(ipaddress.ip_address(address), port)


WEB = service("10.96.0.1")
WEB6 = service("fd00:96::1")
RR = ServiceConfig("rr")
ONE = DestinationConfig(weight=1)


@pytest.fixture(params=BOTH)
def ipvs(request: pytest.FixtureRequest) -> Iterator[IPVSClient]:
    if request.param == "fake":
        yield FakeIPVS()
    else:
        yield request.getfixturevalue("opened")(IPVS())


@pytest.fixture
def kernel_ipvs(request: pytest.FixtureRequest) -> IPVS:
    client: IPVS = request.getfixturevalue("opened")(IPVS())
    return client


def do(ipvs: IPVSClient, *operations: Operation) -> None:
    """Do what must succeed."""
    assert [result for result in ipvs.run(operations) if result is not None] == []


def configs(ipvs: IPVSClient) -> dict[ServiceKey, tuple[ServiceConfig, dict]]:
    """Return the table without what changes by itself."""
    return {
        key: (entry.config, {s: e.config for s, e in entry.destinations.items()})
        for key, entry in ipvs.dump().items()
    }


def test_empty_table_is_empty(ipvs: IPVSClient) -> None:
    assert ipvs.dump() == {}
    assert ipvs.traffic() == {}
    assert ipvs.run([]) == []


@pytest.mark.parametrize("protocol", list(Protocol))
@pytest.mark.parametrize(
    ("address", "target"), [("10.96.0.1", "10.0.0.7"), ("fd00:96::1", "fd00::7")]
)
def test_what_is_added_is_there(
    ipvs: IPVSClient, protocol: Protocol, address: str, target: str
) -> None:
    key = service(address, 53, protocol)
    config = ServiceConfig("wrr", ServiceFlags.PERSISTENT, timeout=10800)
    how = DestinationConfig(weight=7)
    do(ipvs, AddService(key, config), AddDestination(key, server(target, 5353), how))
    assert configs(ipvs) == {key: (config, {server(target, 5353): how})}
    entry = ipvs.dump()[key].destinations[server(target, 5353)]
    assert entry.stats == DestinationStats(active=0, inactive=0)


@pytest.mark.parametrize(
    "config",
    [
        ServiceConfig("rr"),
        ServiceConfig("sh", ServiceFlags.SH_PORT),
        ServiceConfig("sh", ServiceFlags.SH_PORT | ServiceFlags.SH_FALLBACK),
        ServiceConfig("rr", ServiceFlags.ONE_PACKET),
        ServiceConfig("lc", ServiceFlags.PERSISTENT, timeout=1),
        ServiceConfig("lc", ServiceFlags.PERSISTENT, timeout=360, netmask=24),
    ],
)
@pytest.mark.parametrize("key", [service("10.96.0.1", 53, Protocol.UDP), WEB6])
def test_every_configuration_comes_back_as_written(
    ipvs: IPVSClient, key: ServiceKey, config: ServiceConfig
) -> None:
    do(ipvs, AddService(key, config))
    assert ipvs.dump()[key].config == config


@pytest.mark.parametrize(("key", "target"), [(WEB, "10.0.0.1"), (WEB6, "fd00::1")])
def test_single_services_are_read(ipvs: IPVSClient, key: ServiceKey, target: str) -> None:
    other = ServiceKey(key.protocol, key.address, 81)
    session = ServiceConfig("wrr", ServiceFlags.PERSISTENT, timeout=10800)
    do(
        ipvs,
        AddService(key, session),
        AddDestination(key, server(target), ONE),
        AddDestination(key, server(target, 8081), DestinationConfig(0)),
        AddService(other, RR),
    )
    table = ipvs.dump()
    assert ipvs.read([key]) == {key: table[key]}
    assert ipvs.read([other, key]) == table
    assert ipvs.read([]) == {}
    missing = ServiceKey(key.protocol, key.address, 82)
    assert ipvs.read([missing, other]) == {other: table[other]}


@pytest.mark.parametrize(("key", "prefix"), [(WEB, "10.0.0."), (WEB6, "fd00::")])
def test_a_service_is_added_with_all_its_servers(
    ipvs: IPVSClient, key: ServiceKey, prefix: str
) -> None:
    servers = [server(f"{prefix}{n}", 8000 + n) for n in range(1, 200)]
    do(ipvs, AddService(key, RR, b"".join(servers), DestinationConfig(3)))
    other = ServiceKey(key.protocol, key.address, 81)
    do(ipvs, AddService(other, RR), AddDestination(other, servers[0], ONE))
    assert configs(ipvs) == {
        key: (RR, dict.fromkeys(servers, DestinationConfig(3))),
        other: (RR, {servers[0]: ONE}),
    }


def test_of_a_service_with_its_servers_one_refusal_is_told_and_the_rest_done(
    ipvs: IPVSClient,
) -> None:
    good, bad, twice = server("10.0.0.1"), server("0.0.0.0"), server("10.0.0.2")
    (invalid,) = ipvs.run([AddService(WEB, RR, good + bad)])
    assert (invalid and invalid.errno, "0.0.0.0:8080" in str(invalid)) == (errno.EINVAL, True)
    other = service("10.96.0.2")
    told = ipvs.run([DelService(service("10.96.9.9")), AddService(other, RR, bad + twice + twice)])
    assert [result and result.errno for result in told] == [errno.ESRCH, errno.EEXIST]
    assert configs(ipvs) == {WEB: (RR, {good: ONE}), other: (RR, {twice: ONE})}
    (missing,) = ipvs.run([AddService(service("10.96.0.3"), ServiceConfig("nonsense"), good)])
    assert (missing and missing.errno, "virtual service" in str(missing)) == (errno.ENOENT, True)


@pytest.mark.parametrize("forwarding", list(Forwarding))
def test_every_forwarding_method_comes_back(ipvs: IPVSClient, forwarding: Forwarding) -> None:
    how = DestinationConfig(3, forwarding)
    do(ipvs, AddService(WEB, RR), AddDestination(WEB, server("10.0.0.1"), how))
    assert configs(ipvs)[WEB][1] == {server("10.0.0.1"): how}


def test_a_service_is_changed_and_keeps_its_servers(ipvs: IPVSClient) -> None:
    do(ipvs, AddService(WEB, RR), AddDestination(WEB, server("10.0.0.1"), ONE))
    other = ServiceConfig("sh", ServiceFlags.SH_PORT)
    do(ipvs, SetService(WEB, other))
    assert configs(ipvs) == {WEB: (other, {server("10.0.0.1"): ONE})}


@pytest.mark.parametrize(("key", "target"), [(WEB, "10.0.0.1"), (WEB6, "fd00::1")])
def test_a_changed_weight_really_changes(ipvs: IPVSClient, key: ServiceKey, target: str) -> None:
    do(ipvs, AddService(key, RR), AddDestination(key, server(target), ONE))
    for weight in (5, 0, 65535):
        do(ipvs, SetDestination(key, server(target), DestinationConfig(weight)))
        assert configs(ipvs)[key][1] == {server(target): DestinationConfig(weight)}


def test_deleting_a_server_leaves_the_others(ipvs: IPVSClient) -> None:
    do(
        ipvs,
        AddService(WEB, RR),
        AddDestination(WEB, server("10.0.0.1"), ONE),
        AddDestination(WEB, server("10.0.0.1", 8081), ONE),
        DelDestination(WEB, server("10.0.0.1")),
    )
    assert set(ipvs.dump()[WEB].destinations) == {server("10.0.0.1", 8081)}


def test_deleting_a_service_takes_its_servers_along(ipvs: IPVSClient) -> None:
    do(ipvs, AddService(WEB, RR), AddDestination(WEB, server("10.0.0.1"), ONE), DelService(WEB))
    do(ipvs, AddService(WEB, RR))
    assert configs(ipvs) == {WEB: (RR, {})}


@pytest.mark.parametrize(
    ("operation", "kind", "number"),
    [
        (AddService(WEB, RR), AlreadyExists, errno.EEXIST),
        (AddService(service("10.96.0.9"), ServiceConfig("nonsense")), NotFound, errno.ENOENT),
        (AddService(service("10.96.0.9"), ServiceConfig("")), NotFound, errno.ENOENT),
        (AddService(service("10.96.0.9"), ServiceConfig("x" * 16)), KernelError, errno.EINVAL),
        (
            AddService(service("fd00::9"), ServiceConfig("rr", netmask=0)),
            KernelError,
            errno.EINVAL,
        ),
        (SetService(service("10.96.0.9"), RR), NotFound, errno.ESRCH),
        (SetService(WEB, ServiceConfig("nonsense")), NotFound, errno.ENOENT),
        (DelService(service("10.96.0.9")), NotFound, errno.ESRCH),
        (DelService(service("10.96.0.1", protocol=Protocol.UDP)), NotFound, errno.ESRCH),
        (AddDestination(WEB, server("10.0.0.1"), ONE), AlreadyExists, errno.EEXIST),
        (
            AddDestination(service("10.96.0.9"), server("10.0.0.1"), ONE),
            NotFound,
            errno.ESRCH,
        ),
        (
            AddDestination(WEB, server("10.0.0.2"), DestinationConfig(1 << 31)),
            KernelError,
            errno.ERANGE,
        ),
        (AddDestination(WEB, server("fd00::1"), ONE), KernelError, errno.EINVAL),
        (AddDestination(WEB, server("224.0.0.1"), ONE), KernelError, errno.EINVAL),
        (AddDestination(WEB, server("0.0.0.0"), ONE), KernelError, errno.EINVAL),
        (AddDestination(WEB6, server("fe80::1"), ONE), KernelError, errno.EINVAL),
        (AddDestination(WEB6, server("10.0.0.1"), ONE), KernelError, errno.EINVAL),
        (SetDestination(WEB, server("10.0.0.2"), ONE), NotFound, errno.ENOENT),
        (
            SetDestination(service("10.96.0.9"), server("10.0.0.1"), ONE),
            NotFound,
            errno.ESRCH,
        ),
        (DelDestination(WEB, server("10.0.0.2")), NotFound, errno.ENOENT),
        (DelDestination(WEB, server("10.0.0.1", 1)), NotFound, errno.ENOENT),
        (DelDestination(service("10.96.0.9"), server("10.0.0.1")), NotFound, errno.ESRCH),
    ],
)
def test_refusals(
    ipvs: IPVSClient, operation: Operation, kind: type[KernelError], number: int
) -> None:
    do(
        ipvs,
        AddService(WEB, RR),
        AddService(WEB6, RR),
        AddDestination(WEB, server("10.0.0.1"), ONE),
    )
    before = configs(ipvs)
    (result,) = ipvs.run([operation])
    assert type(result) is kind
    assert result.errno == number
    assert str(operation.service) in str(result)
    assert configs(ipvs) == before


def test_port_zero_and_any_address_are_not_refused(ipvs: IPVSClient) -> None:
    """The kernel takes them; that ipvsadm does not is its own rule."""
    do(
        ipvs,
        AddService(service("10.96.0.1", 0), RR),
        AddService(service("0.0.0.0"), RR),
        AddDestination(service("0.0.0.0"), server("10.0.0.1", 0), ONE),
    )
    assert set(ipvs.dump()) == {service("10.96.0.1", 0), service("0.0.0.0")}


def test_failures_among_thousands_are_told_by_operation(ipvs: IPVSClient) -> None:
    """Several batches, with failures of different kinds in places of their own."""
    key = service("10.96.0.1")
    operations: list[Operation] = [AddService(key, RR)]
    expected: dict[int, type[KernelError]] = {}
    order = random.Random(1)
    for number in range(4000):
        target = server(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        if number % 256 == 0:
            target = server("10.99.0.1", number + 1)
        operations.append(AddDestination(key, target, ONE))
        fault = order.random()
        if fault < 0.1:
            expected[len(operations)] = AlreadyExists
            operations.append(AddDestination(key, target, ONE))
        elif fault < 0.2:
            expected[len(operations)] = NotFound
            operations.append(DelDestination(service("10.96.9.9"), target))
    results = ipvs.run(operations)
    assert len(expected) > 500
    assert {at: type(result) for at, result in enumerate(results) if result} == expected
    assert len(ipvs.dump()[key].destinations) == 4000


def test_nothing_but_failures(ipvs: IPVSClient) -> None:
    """More answers at once than a receive buffer of the usual size holds."""
    missing = [DelService(service("10.96.0.1", port)) for port in range(1, 5001)]
    results = ipvs.run(missing)
    assert {type(result) for result in results} == {NotFound}
    assert [str(op.service) in str(r) for op, r in zip(missing, results, strict=True)] == (
        [True] * 5000
    )


def test_timeouts(ipvs: IPVSClient) -> None:
    before = ipvs.timeouts()
    assert before == Timeouts(tcp=900, tcp_fin=120, udp=300)
    ipvs.set_timeouts(Timeouts(tcp=100, tcp_fin=0, udp=5))
    assert ipvs.timeouts() == Timeouts(tcp=100, tcp_fin=120, udp=5)
    with pytest.raises(KernelError):
        ipvs.set_timeouts(Timeouts(tcp=0, tcp_fin=0xFFFFFFFF, udp=0))


def test_info(ipvs: IPVSClient) -> None:
    assert ipvs.info().version >= (1, 2, 0)
    assert ipvs.info().connection_table_size >= 256
    assert ipvs.supported() is None


def test_counters_begin_at_zero(ipvs: IPVSClient) -> None:
    do(ipvs, AddService(WEB6, RR), AddDestination(WEB6, server("fd00::1"), ONE))
    counted = ipvs.traffic()[WEB6]
    assert set(counted.traffic) == {0}
    assert set(counted.destinations[server("fd00::1")].traffic) == {0}


@pytest.mark.kernel
def test_a_fake_unsupported_kernel_says_why(namespace: None) -> None:
    """Whatever the kernel, the answer is None or a reason in words; never an exception."""
    with IPVS() as client:
        why = client.supported()
    assert why is None or "IPVS" in why


@pytest.mark.kernel
def test_procfs_and_netlink_tell_the_same(kernel_ipvs: IPVS) -> None:
    operations: list[Operation] = []
    for number, protocol in enumerate(Protocol):
        for address, pods in (("10.96.0.", "10.0.0."), ("fd00:96::", "fd00::")):
            key = service(f"{address}{number + 1}", 65535 - number, protocol)
            operations.append(AddService(key, ServiceConfig("wrr", timeout=number)))
            operations.extend(
                AddDestination(key, server(f"{pods}{n + 1}", n), DestinationConfig(n, forwarding))
                for n, forwarding in enumerate(Forwarding)
            )
    do(kernel_ipvs, *operations)
    by_procfs = kernel_ipvs.dump()
    assert len(by_procfs) == 6
    assert kernel_ipvs._dump_by_netlink(kernel_ipvs._services()) == by_procfs


def test_one_family_alone_is_read(ipvs: IPVSClient) -> None:
    to, to6 = server("10.0.0.1"), server("fd00::1")
    do(
        ipvs,
        *(AddService(WEB, RR), AddService(WEB6, RR)),
        *(AddDestination(WEB, to, ONE), AddDestination(WEB6, to6, ONE)),
    )
    both = ipvs.dump()
    assert set(both) == {WEB, WEB6}
    assert ipvs.dump(Family.IPV4) == {WEB: both[WEB]}
    assert ipvs.dump(Family.IPV6) == {WEB6: both[WEB6]}


@pytest.mark.kernel
def test_each_namespace_has_a_table_of_its_own(kernel_ipvs: IPVS) -> None:
    do(kernel_ipvs, AddService(WEB, RR))
    with fresh_namespace(), IPVS() as other:
        assert other.dump() == {}
        do(other, AddService(WEB6, RR))
        assert set(other.dump()) == {WEB6}
    assert set(kernel_ipvs.dump()) == {WEB}


def test_ordered_faults_hit_the_nth_write() -> None:
    fake = FakeIPVS()
    fake.fail_write = {1: errno.ENOMEM, 2: errno.EBUSY}
    results = fake.run([AddService(WEB, RR), AddDestination(WEB, server("10.0.0.1"), ONE)])
    assert results[0] is None
    assert results[1] is not None
    assert results[1].errno == errno.ENOMEM
    (result,) = fake.run([AddService(WEB6, RR)])
    assert result is not None
    assert result.errno == errno.EBUSY
    assert fake.run([AddService(WEB6, RR)]) == [None]

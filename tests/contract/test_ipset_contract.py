"""What IP sets promise, kept by the fake and by the kernel."""

import errno
import ipaddress
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from fresh_netns import BOTH

from kproxy.errors import AlreadyExists, KernelError, NotFound
from kproxy.kernel.inet import Family, Protocol
from kproxy.kernel.ipset import wire
from kproxy.kernel.ipset.client import Ipset
from kproxy.kernel.ipset.fake import FakeIpset
from kproxy.kernel.ipset.types import (
    AddEntry,
    CreateSet,
    DelEntry,
    DestroySet,
    Entry,
    FlushSet,
    IpsetClient,
    Operation,
    SetSpec,
    SetType,
    SwapSets,
)

ip = ipaddress.ip_address
net = ipaddress.ip_network

CLUSTER_IP = SetSpec(SetType.HASH_IP_PORT)
LOOP_BACK = SetSpec(SetType.HASH_IP_PORT_IP)
WEB = Entry(ip("10.96.0.1"), Protocol.TCP, 80)
OTHER_PORT = Entry(WEB.address, WEB.protocol, 81)

# One entry of each type and family, with its form in ipset(8).
EXAMPLES = [
    (SetType.HASH_IP, "10.0.0.1", Entry(ip("10.0.0.1"))),
    (SetType.HASH_IP, "fd00::1", Entry(ip("fd00::1"))),
    (SetType.HASH_NET, "10.0.0.0/8", Entry(net("10.0.0.0/8"))),
    (SetType.HASH_NET, "10.0.0.1", Entry(net("10.0.0.1/32"))),
    (SetType.HASH_NET, "fd00::/64", Entry(net("fd00::/64"))),
    (SetType.HASH_IP_PORT, "10.0.0.1,tcp:80", Entry(ip("10.0.0.1"), Protocol.TCP, 80)),
    (SetType.HASH_IP_PORT, "10.0.0.1,sctp:9", Entry(ip("10.0.0.1"), Protocol.SCTP, 9)),
    (SetType.HASH_IP_PORT, "fd00::1,udp:65535", Entry(ip("fd00::1"), Protocol.UDP, 65535)),
    (
        SetType.HASH_IP_PORT_IP,
        "10.0.0.1,udp:53,10.0.0.2",
        Entry(ip("10.0.0.1"), Protocol.UDP, 53, ip("10.0.0.2")),
    ),
    (
        SetType.HASH_IP_PORT_IP,
        "fd00::1,tcp:53,fd00::2",
        Entry(ip("fd00::1"), Protocol.TCP, 53, ip("fd00::2")),
    ),
    (
        SetType.HASH_IP_PORT_NET,
        "10.0.0.1,udp:53,10.1.0.0/16",
        Entry(ip("10.0.0.1"), Protocol.UDP, 53, net("10.1.0.0/16")),
    ),
    (
        SetType.HASH_IP_PORT_NET,
        "fd00::1,udp:53,fd01::/64",
        Entry(ip("fd00::1"), Protocol.UDP, 53, net("fd01::/64")),
    ),
    (SetType.BITMAP_PORT, "30080", Entry(None, None, 30080)),
    (SetType.BITMAP_PORT, "0", Entry(None, None, 0)),
    (SetType.BITMAP_PORT, "65535", Entry(None, None, 65535)),
]


def spec_for(kind: SetType, entry: Entry) -> SetSpec:
    return SetSpec(kind) if entry.address is None else SetSpec(kind, Family(entry.address.version))


@pytest.fixture(params=BOTH)
def ipset(request: pytest.FixtureRequest) -> Iterator[IpsetClient]:
    if request.param == "fake":
        yield FakeIpset()
    else:
        yield request.getfixturevalue("opened")(Ipset())


@pytest.fixture
def kernel_ipset(request: pytest.FixtureRequest) -> Ipset:
    client: Ipset = request.getfixturevalue("opened")(Ipset())
    return client


def do(ipset: IpsetClient, *operations: Operation) -> None:
    """Do what must succeed."""
    assert [result for result in ipset.run(operations) if result is not None] == []


def entries(ipset: IpsetClient, name: str) -> set[Entry]:
    return set(ipset.dump()[name].entries)


def test_nothing_at_first(ipset: IpsetClient) -> None:
    assert ipset.dump() == {}
    assert not ipset.exists("KUBE-CLUSTER-IP")
    assert ipset.run([]) == []


@pytest.mark.parametrize(("kind", "text", "entry"), EXAMPLES, ids=[e[1] for e in EXAMPLES])
def test_every_type_gives_its_entries_back(
    ipset: IpsetClient, kind: SetType, text: str, entry: Entry
) -> None:
    spec = spec_for(kind, entry)
    do(ipset, CreateSet("one", spec), AddEntry("one", entry))
    assert ipset.dump() == {"one": (spec, frozenset({entry}), 0)}
    assert ipset.exists("one")
    assert str(entry) == text
    do(ipset, DelEntry("one", entry))
    assert entries(ipset, "one") == set()


@pytest.mark.kernel
@pytest.mark.needs_tool("ipset")
@pytest.mark.parametrize(("kind", "text", "entry"), EXAMPLES, ids=[e[1] for e in EXAMPLES])
def test_the_tool_shows_the_same_entry(
    kernel_ipset: Ipset, kind: SetType, text: str, entry: Entry
) -> None:
    spec = spec_for(kind, entry)
    do(kernel_ipset, CreateSet("one", spec), AddEntry("one", entry))
    told = subprocess.run(["ipset", "save", "one"], check=True, capture_output=True, text=True)
    created, added = told.stdout.splitlines()
    how = "range 0-65535" if kind is SetType.BITMAP_PORT else "family inet"
    assert created.startswith(f"create one {kind} {how}")
    assert added == f"add one {text}"
    subprocess.run(["ipset", "del", "one", text], check=True)
    subprocess.run(["ipset", "add", "one", text], check=True)
    assert entries(kernel_ipset, "one") == {entry}


@pytest.mark.parametrize(
    ("operation", "kind", "number"),
    [
        (CreateSet("A", CLUSTER_IP), AlreadyExists, errno.EEXIST),
        (CreateSet("A", LOOP_BACK), AlreadyExists, errno.EEXIST),
        (CreateSet("x" * 32, CLUSTER_IP), KernelError, errno.EINVAL),
        (DestroySet("missing"), NotFound, errno.ENOENT),
        (FlushSet("missing"), NotFound, errno.ENOENT),
        (SwapSets("missing", "A"), NotFound, errno.ENOENT),
        (SwapSets("A", "missing"), NotFound, errno.ENOENT),
        (SwapSets("A", "other"), KernelError, errno.EINVAL),
        (AddEntry("A", WEB), AlreadyExists, errno.EEXIST),
        (AddEntry("missing", WEB), NotFound, errno.ENOENT),
        (DelEntry("missing", WEB), NotFound, errno.ENOENT),
        (DelEntry("A", OTHER_PORT), NotFound, errno.ENOENT),
        (DelEntry("A", Entry(WEB.address, Protocol.UDP, WEB.port)), NotFound, errno.ENOENT),
        (AddEntry("A", Entry(ip("fd00::1"), WEB.protocol, WEB.port)), KernelError, errno.EPROTO),
        (AddEntry("A", Entry(ip("10.96.0.2"))), KernelError, errno.EPROTO),
        (
            AddEntry("A", Entry(WEB.address, WEB.protocol, WEB.port, ip("10.0.0.1"))),
            KernelError,
            errno.EPROTO,
        ),
        (AddEntry("other", WEB), KernelError, errno.EPROTO),
        (AddEntry("nets", Entry(net("0.0.0.0/0"))), KernelError, errno.EINVAL),
        (AddEntry("A", Entry(None, None, 80)), KernelError, errno.EPROTO),
        (AddEntry("ports", Entry(None, None, 80)), AlreadyExists, errno.EEXIST),
        (DelEntry("ports", Entry(None, None, 81)), NotFound, errno.ENOENT),
        (AddEntry("ports", Entry(ip("10.0.0.1"))), KernelError, errno.EPROTO),
        (CreateSet("ports", SetSpec(SetType.BITMAP_PORT)), AlreadyExists, errno.EEXIST),
        (AddEntry("full", OTHER_PORT), KernelError, errno.ENOSPC),
    ],
)
def test_refusals(
    ipset: IpsetClient, operation: Operation, kind: type[KernelError], number: int
) -> None:
    do(
        ipset,
        CreateSet("A", CLUSTER_IP),
        AddEntry("A", WEB),
        CreateSet("other", LOOP_BACK),
        CreateSet("nets", SetSpec(SetType.HASH_NET)),
        CreateSet("ports", SetSpec(SetType.BITMAP_PORT)),
        AddEntry("ports", Entry(None, None, 80)),
        CreateSet("full", SetSpec(SetType.HASH_IP_PORT, max_elements=1)),
        AddEntry("full", WEB),
    )
    before = ipset.dump()
    (result,) = ipset.run([operation])
    assert type(result) is kind
    assert result.errno == number
    assert operation.name in str(result)
    assert ipset.dump() == before


def test_names_as_long_as_the_kernel_takes(ipset: IpsetClient) -> None:
    do(ipset, CreateSet("x" * 31, CLUSTER_IP))
    assert ipset.exists("x" * 31)


def test_flush_empties_and_keeps_the_set(ipset: IpsetClient) -> None:
    do(ipset, CreateSet("A", CLUSTER_IP), AddEntry("A", WEB), FlushSet("A"))
    assert ipset.dump() == {"A": (CLUSTER_IP, frozenset(), 0)}


def test_swap_exchanges_contents(ipset: IpsetClient) -> None:
    do(
        ipset,
        CreateSet("A", CLUSTER_IP),
        CreateSet("B", SetSpec(SetType.HASH_IP_PORT, max_elements=99)),
        AddEntry("A", WEB),
        SwapSets("A", "B"),
    )
    assert entries(ipset, "A") == set()
    assert entries(ipset, "B") == {WEB}
    assert ipset.dump()["A"].spec.max_elements == 99


def test_destroyed_sets_are_gone(ipset: IpsetClient) -> None:
    do(ipset, CreateSet("A", CLUSTER_IP), AddEntry("A", WEB), DestroySet("A"))
    assert ipset.dump() == {}


def test_thousands_of_entries_and_failures_among_them(ipset: IpsetClient) -> None:
    """Large sets come in several messages, and go in several batches."""
    wanted = [
        Entry(ip(0x0A000000 + n), Protocol.TCP, n % 65536, ip(0x0B000000 + n)) for n in range(5000)
    ]
    operations: list[Operation] = [CreateSet("A", LOOP_BACK)]
    expected = set()
    for number, entry in enumerate(wanted):
        operations.append(AddEntry("A", entry))
        if number % 7 == 0:
            expected.add(len(operations))
            operations.append(AddEntry("A", entry))
    results = ipset.run(operations)
    assert {at for at, result in enumerate(results) if result} == expected
    assert {type(results[at]) for at in expected} == {AlreadyExists}
    do(ipset, CreateSet("B", CLUSTER_IP), AddEntry("B", WEB))
    assert entries(ipset, "A") == set(wanted)
    assert entries(ipset, "B") == {WEB}


def test_sets_of_some_names_alone_are_read(
    ipset: IpsetClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sets of another program may be very large: not one of their entries is made."""
    others = [Entry(ip(0x0A000000 + n), Protocol.TCP, 80) for n in range(3000)]
    do(ipset, CreateSet("A", CLUSTER_IP), CreateSet("other", CLUSTER_IP), AddEntry("A", WEB))
    do(ipset, *(AddEntry("other", entry) for entry in others))
    assert len(ipset.dump()["other"].entries) == 3000
    made: list[object] = []
    read = wire._EntryReader.read

    def counted(reader: Any, *place: Any) -> Entry:
        made.append(reader)
        return read(reader, *place)

    monkeypatch.setattr(wire._EntryReader, "read", counted)
    assert ipset.dump({"A", "missing"}) == {"A": (CLUSTER_IP, frozenset({WEB}), 0)}
    assert len(made) <= 1


@pytest.mark.kernel
@pytest.mark.needs_tool("ipset", "iptables", "iptables-legacy")
def test_a_set_named_by_a_rule_cannot_be_destroyed(kernel_ipset: Ipset) -> None:
    from kproxy.kernel.iptables.client import Iptables
    from kproxy.kernel.iptables.types import TableChange

    rule = "-A FORWARD -m set --match-set A dst,dst -j ACCEPT"
    do(kernel_ipset, CreateSet("A", CLUSTER_IP))
    rules = Iptables()
    if why := rules.supported():
        pytest.skip(f"needs a kernel that can: {why}")
    rules.restore([TableChange("filter", append=[rule])])
    assert kernel_ipset.dump()["A"].references == 1
    (result,) = kernel_ipset.run([DestroySet("A")])
    assert isinstance(result, KernelError)
    assert result.errno == errno.EBUSY
    rules.restore([TableChange("filter", remove=[rule])])
    do(kernel_ipset, DestroySet("A"))


def test_the_fake_knows_of_rules_too() -> None:
    fake = FakeIpset()
    do(fake, CreateSet("A", CLUSTER_IP))
    fake.references["A"] = 1
    assert fake.dump()["A"].references == 1
    (result,) = fake.run([DestroySet("A")])
    assert result is not None
    assert result.errno == errno.EBUSY


@pytest.mark.kernel
@pytest.mark.needs_tool("ipset")
@pytest.mark.parametrize("kind", ["list:set"])
def test_sets_of_other_types_are_seen_but_not_read(kernel_ipset: Ipset, kind: str) -> None:
    command = ["ipset", "create", "other", *kind.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "set type not supported" in done.stderr:
        pytest.skip(f"needs a kernel with sets of type {kind.split()[0]}")
    assert (done.returncode, done.stderr) == (0, "")
    do(kernel_ipset, CreateSet("A", CLUSTER_IP))
    assert set(kernel_ipset.dump()) == {"A"}
    assert kernel_ipset.exists("other")
    (result,) = kernel_ipset.run([CreateSet("other", CLUSTER_IP)])
    assert isinstance(result, AlreadyExists)


def test_ordered_faults_hit_the_nth_write() -> None:
    fake = FakeIpset()
    fake.fail_write = {1: errno.ENOMEM}
    results = fake.run([CreateSet("A", CLUSTER_IP), AddEntry("A", WEB), AddEntry("A", WEB)])
    assert [result and result.errno for result in results] == [None, errno.ENOMEM, None]

"""What connection tracking promises, kept by the fake and by the kernel."""

import contextlib
import errno
import ipaddress
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from fresh_netns import BOTH

from kproxy.errors import KernelError, NotFound
from kproxy.kernel.conntrack.client import Conntrack
from kproxy.kernel.conntrack.fake import FakeConntrack
from kproxy.kernel.conntrack.types import ConntrackClient, Flow
from kproxy.kernel.inet import Family, Protocol
from kproxy.kernel.iptables.client import Iptables
from kproxy.kernel.iptables.types import TableChange

ip = ipaddress.ip_address
SERVICE_PORT, POD_PORT = 53, 5353
LOOPBACK = {Family.IPV4: "127.0.0.1", Family.IPV6: "::1"}


def flow(source_port: int, family: Family = Family.IPV4, identity: int = 1) -> Flow:
    """A flow from loopback to port 53, translated to port 5353."""
    address = ip(LOOPBACK[family])
    there = (address, source_port, address, SERVICE_PORT)
    back = (address, POD_PORT, address, source_port)
    return Flow(Protocol.UDP, *there, *back, zone=0, id=identity)


@dataclass
class Table:
    """A table in which flows from the given ports are tracked, and a TCP connection too."""

    client: ConntrackClient
    track: Callable[[Family, int], list[Flow]]


@pytest.fixture(params=BOTH)
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    if request.param == "fake":
        fake = FakeConntrack()

        def pretend(family: Family, count: int) -> list[Flow]:
            made = [flow(20000 + n, family, n + 1) for n in range(count)]
            fake.table.extend(made)
            return made

        yield Table(fake, pretend)
    else:
        yield kernel_table(request)


def kernel_table(request: pytest.FixtureRequest) -> Table:
    client: Conntrack = request.getfixturevalue("opened")(Conntrack())
    for family in Family:
        rules = Iptables(family)
        if why := rules.supported():
            pytest.skip(f"needs a kernel that can: {why}")
        redirect = f"-A OUTPUT -p udp -m udp --dport 53 -j REDIRECT --to-ports {POD_PORT}"
        rules.restore([TableChange("nat", append=[redirect])])

    def send(family: Family, count: int) -> list[Flow]:
        ports = [send_one(family) for _ in range(count)]
        return [flow(port, family) for port in ports]

    return Table(client, send)


def send_one(family: Family) -> int:
    """Send a datagram to port 53 and return the port that it came from."""
    kind = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
    with socket.socket(kind, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", (LOOPBACK[family], SERVICE_PORT))
        port: int = sock.getsockname()[1]
        return port


def without_ids(flows: list[Flow]) -> set[Flow]:
    return {one._replace(id=0) for one in flows}


def test_nothing_at_first(table: Table) -> None:
    assert table.client.flows(Family.IPV4) == []
    assert table.client.delete([]) == []


@pytest.mark.parametrize("family", list(Family))
def test_both_directions_of_a_flow_are_told(table: Table, family: Family) -> None:
    made = table.track(family, 3)
    found = table.client.flows(family)
    assert without_ids(found) == without_ids(made)
    other = Family.IPV6 if family is Family.IPV4 else Family.IPV4
    assert table.client.flows(other) == []
    assert table.client.flows(family, Protocol.TCP) == []


def test_exactly_the_given_flows_are_forgotten(table: Table) -> None:
    table.track(Family.IPV4, 500)
    table.track(Family.IPV6, 2)
    found = table.client.flows(Family.IPV4)
    assert len(found) > 450  # a source port may have been used twice
    gone, stay = found[::2], found[1::2]
    assert table.client.delete(gone) == [None] * len(gone)
    assert set(table.client.flows(Family.IPV4)) == set(stay)
    six = table.client.flows(Family.IPV6)
    assert table.client.delete(six) == [None] * len(six)
    assert table.client.flows(Family.IPV6) == []
    assert set(table.client.flows(Family.IPV4)) == set(stay)


def test_a_flow_that_has_ended_is_not_found(table: Table) -> None:
    table.track(Family.IPV4, 2)
    one, two = table.client.flows(Family.IPV4)
    successor = two._replace(id=two.id ^ 0xFF)
    results = table.client.delete([one, one, successor])
    assert results[0] is None
    assert [type(result) for result in results[1:]] == [NotFound, NotFound]
    assert results[1] is not None
    assert results[1].errno == errno.ENOENT
    assert f"port {one.source_port}" in str(results[1])
    assert table.client.flows(Family.IPV4) == [two]


@pytest.mark.kernel
def test_connections_of_other_protocols_are_kept(request: pytest.FixtureRequest) -> None:
    table = kernel_table(request)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        stack.enter_context(socket.create_connection(server.getsockname()))
        table.track(Family.IPV4, 1)
        assert table.client.delete(table.client.flows(Family.IPV4)) == [None]
        (tcp,) = table.client.flows(Family.IPV4, Protocol.TCP)
        assert tcp.destination_port == server.getsockname()[1]


@pytest.mark.kernel
@pytest.mark.needs_tool("conntrack")
def test_the_tool_tells_the_same(request: pytest.FixtureRequest) -> None:
    table = kernel_table(request)
    table.track(Family.IPV4, 1)
    (one,) = table.client.flows(Family.IPV4)
    told = subprocess.run(
        ["conntrack", "-L", "-o", "id"], check=True, capture_output=True, text=True
    ).stdout.split()
    assert f"id={one.id}" in told
    ports = [word.partition("=")[2] for word in told if word.startswith(("sport", "dport"))]
    source = str(one.source_port)
    assert ports == [source, str(SERVICE_PORT), str(POD_PORT), source]


def test_ordered_faults_hit_the_nth_deletion() -> None:
    fake = FakeConntrack([flow(1), flow(2)])
    fake.fail_delete = {1: errno.EBUSY}
    one, two = fake.delete([flow(1), flow(2)])
    assert one is None
    assert isinstance(two, KernelError)
    assert two.errno == errno.EBUSY
    assert fake.table == [flow(2)]

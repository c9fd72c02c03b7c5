"""What the bench sees of a kernel: an endpoint, when and only when it is there."""

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

import pytest

from kproxy.kernel.ipvs.client import IPVS
from kproxy.kernel.ipvs.types import (
    AddDestination,
    AddService,
    DestinationConfig,
    DestinationKey,
    ServiceConfig,
)
from kproxy.lab import syncbench_look, syncbench_replay

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespace")]

SERVICE = syncbench_look.service_key(IPv4Address("10.96.0.1"), 80)
WANTED, OTHER = IPv4Address("10.128.0.7"), IPv4Address("10.128.0.8")


@pytest.fixture
def seen() -> Iterator[Callable[[type[syncbench_look._Way]], syncbench_look._Way]]:
    with contextlib.ExitStack() as stack:

        def open_way(kind: type[syncbench_look._Way]) -> syncbench_look._Way:
            return stack.enter_context(contextlib.closing(kind()))

        yield open_way


def run(*argv: str, text: str = "") -> None:
    subprocess.run(argv, input=text, text=True, check=True, capture_output=True)


def told(way: syncbench_look._Way) -> bool:
    """Look once; what is seen was seen before now and after the test began."""
    at = way.seen()
    assert at <= time.monotonic_ns()
    return at > 0


@pytest.mark.needs_module("ip_vs")
def test_a_real_server_is_seen(seen: Callable[..., syncbench_look._Way]) -> None:
    run("ip", "link", "set", "lo", "up")
    way = seen(syncbench_look._Servers)
    way.expect(SERVICE, WANTED)
    assert not told(way)  # there is not even the virtual server
    with IPVS() as ipvs:
        for address in (OTHER, WANTED):
            add = AddDestination(SERVICE, DestinationKey(address, 8080), DestinationConfig())
            first = [] if address == WANTED else [AddService(SERVICE, ServiceConfig())]
            operations = [*first, add]
            assert ipvs.run(operations) == [None] * len(operations)
            assert told(way) is (address == WANTED)


@pytest.mark.needs_tool("nft")
def test_a_transaction_that_names_the_endpoint_is_seen(
    seen: Callable[..., syncbench_look._Way],
) -> None:
    run("nft", "-f", "-", text="add table ip t; add set ip t s { type ipv4_addr; }")
    way = seen(syncbench_look._Commits)
    way.expect(SERVICE, WANTED)
    run("nft", "add", "element", "ip", "t", "s", f"{{ {OTHER} }}")
    assert not told(way)
    run("nft", "add", "element", "ip", "t", "s", f"{{ {WANTED} }}")
    assert told(way)
    way.expect(SERVICE, IPv4Address("10.128.0.9"))
    assert not told(way)


@pytest.mark.needs_tool("iptables-legacy-restore")
@pytest.mark.needs_module("ip_tables")
def test_an_entry_more_in_table_nat_is_seen(seen: Callable[..., syncbench_look._Way]) -> None:
    def restore(rules: str) -> None:
        run("iptables-legacy-restore", "--noflush", text=f"*nat\n{rules}COMMIT\n")

    restore(":A - [0:0]\n-A A -j RETURN\n")
    way = seen(syncbench_look._Entries)
    way.expect(SERVICE, WANTED)
    assert not told(way)
    restore("-A A -j RETURN\n")
    assert told(way)


@pytest.mark.needs_module("ip_vs")
def test_a_bare_dump_reads_the_whole_table() -> None:
    run("ip", "link", "set", "lo", "up")
    with IPVS() as ipvs:
        assert ipvs.run([AddService(SERVICE, ServiceConfig())]) == [None]
    with syncbench_replay.BareDump() as dump:
        assert len(dump._requests) == 1
        dump.netlink()
        dump.proc()

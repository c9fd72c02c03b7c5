"""Tracing by nf_tables on this kernel: which packets it tells of, and that nothing stays."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from kproxy.errors import Unsupported
from kproxy.kernel.nft import tracing
from kproxy.kernel.nft.expressions import Base, Compare, Meta, MetaKey, Payload
from kproxy.kernel.nft.traced import TABLE_PREFIX
from kproxy.kernel.nft.tracing import Tracing
from netns import namespace

pytestmark = [pytest.mark.kernel, pytest.mark.needs_tool("nft")]

NAME = f"kproxy-tracing-{os.getpid()}"
TOKEN = b"kpxtrace00000000"
MATCH = (
    Meta(MetaKey.L4PROTO, 0),
    Compare(0, b"\x11"),
    Payload(Base.TRANSPORT, 8, 16, 0),
    Compare(0, TOKEN),
)
RULES = """
table ip test {
    chain out {
        type filter hook output priority 0; policy accept;
        udp dport 9 jump inner comment "to nobody"
    }
    chain inner {
        udp dport 9 counter
    }
}
"""


@pytest.fixture
def inside() -> Iterator[None]:
    namespace.create(NAME)
    try:
        with namespace.entered(NAME):
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            try:
                with Tracing([MATCH]):
                    pass
            except Unsupported as error:
                pytest.skip(str(error))
            yield
    finally:
        namespace.delete(NAME)


def tables() -> str:
    listing = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True)
    return listing.stdout


def send(data: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(data, ("127.0.0.1", 9))


def test_only_the_marked_packet_is_told_of(inside: None) -> None:
    subprocess.run(["nft", "-f", "-"], input=RULES, text=True, check=True)
    with Tracing([MATCH]) as traced:
        send(b"another one, longer than a token")
        send(TOKEN)
        steps = [one for one in traced.read() if one.table == "test"]
        jump = steps[0]
        chains = tracing.base_chains()
        comment = tracing.comment(jump.family, jump.table, jump.chain, jump.handle)
        assert tracing.comment(jump.family, jump.table, "inner", 9999) == ""
    assert (jump.chain, jump.verdict, comment) == ("out", "jump inner", "to nobody")
    assert len({one.number for one in steps}) == 1
    assert jump.transport[8:16] == TOKEN[:8]
    assert ("inner", "continue") in [(one.chain, one.verdict) for one in steps if one.handle]
    assert chains["ip", "test", "out"].hook.name == "OUTPUT"


def test_afterwards_nothing_is_left(inside: None) -> None:
    with Tracing([MATCH]):
        assert TABLE_PREFIX in tables()
    assert TABLE_PREFIX not in tables()


def test_a_killed_process_leaves_nothing(inside: None) -> None:
    program = (
        "import sys; from kproxy.kernel.nft.tracing import Tracing\n"
        "with Tracing([]): print('ready', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert TABLE_PREFIX in tables()
        process.send_signal(signal.SIGKILL)
    assert TABLE_PREFIX not in tables()


def test_what_a_dead_process_left_without_owner_is_taken_away(inside: None) -> None:
    with subprocess.Popen(["true"]) as dead:
        pass
    for name in (f"{TABLE_PREFIX}{dead.pid}", f"{TABLE_PREFIX}1", "kproxy-trace"):
        subprocess.run(["nft", "add", "table", "inet", name], check=True)
    with Tracing([MATCH]):
        pass
    # Process 1 lives, and the other name is nobody's pid.
    assert tables().split() == [
        *("table", "inet", f"{TABLE_PREFIX}1"),
        *("table", "inet", "kproxy-trace"),
    ]

"""What the kernel tells of traced packets, rules' comments and connections of IPVS, read."""

import struct
from ipaddress import ip_address

import pytest

from kproxy.kernel.attributes import attribute, be32, nest, text
from kproxy.kernel.ipvs import connections
from kproxy.kernel.nft import tracing
from kproxy.kernel.nft.traced import Hooked
from kproxy.kernel.nft.types import Hook

LISTING = """\
Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
TCP 0A800064 B7C7 0A60000A 0050 0A800106 1F90 ESTABLISHED     899
UDP 0A800064 A5F0 0A60000A 0035 0A800005 14E9 UDP             300
TCP [fd00:0000:0000:0000:0000:0000:0000:0001] 9C40 [fd96::a] 0050 [fd80::5] 1F90 SYN_RECV 58
ICMP something else
"""


def test_connections_of_ipvs_are_read_in_both_families() -> None:
    found = list(connections.parse(LISTING.splitlines()))
    assert [one.protocol for one in found] == ["tcp", "udp", "tcp"]
    assert found[0].client == (ip_address("10.128.0.100"), 47047)
    assert found[0].virtual == (ip_address("10.96.0.10"), 80)
    assert found[1].real == (ip_address("10.128.0.5"), 5353)
    assert (found[2].real, found[2].state) == ((ip_address("fd80::5"), 8080), "SYN_RECV")
    assert found[0].expires_s == 899


def message(*attributes: bytes, af: int = 2) -> bytes:
    return struct.pack("=BBH", af, 0, 0) + b"".join(attributes)


@pytest.mark.parametrize(
    ("code", "chain", "words"),
    [
        (0, "", "drop"),
        (1, "", "accept"),
        (-1, "", "continue"),
        (-3, "KUBE-SERVICES", "jump KUBE-SERVICES"),
        (-4, "pick", "goto pick"),
        (-5, "", "return"),
        (77, "", "verdict 77"),
    ],
)
def test_a_step_is_read_with_its_verdict_in_words(code: int, chain: str, words: str) -> None:
    verdict = be32(1, code & 0xFFFFFFFF) + (text(2, chain) if chain else b"")
    data = message(
        text(1, "nat"),
        text(2, "PREROUTING"),
        attribute(3, struct.pack("!Q", 9)),
        be32(4, 3),
        nest(5, verdict),
        be32(6, 77),
        attribute(8, b"network"),
        be32(10, 4),
    )
    found = tracing.read_step(data, 0, len(data))
    assert (found.family, found.table, found.chain) == ("ip", "nat", "PREROUTING")
    assert (found.kind, found.handle, found.number) == ("rule", 9, 77)
    assert (found.verdict, found.iif, found.network) == (words, 4, b"network")


def test_the_verdict_of_a_policy_is_read() -> None:
    data = message(text(1, "filter"), text(2, "FORWARD"), be32(4, 1), be32(6, 1), be32(16, 0))
    found = tracing.read_step(data, 0, len(data))
    assert (found.kind, found.verdict) == ("policy", "drop")


def base_chain(hook: int, *more: bytes) -> bytes:
    priority = attribute(2, struct.pack("!i", -5))
    return message(text(1, "t"), text(3, "c"), nest(4, be32(1, hook), priority), *more)


@pytest.mark.parametrize("policy", [0, 1])
def test_base_chains_are_known_whatever_their_policy(policy: int) -> None:
    data = base_chain(2, be32(5, policy))
    found = ("ip", "t", "c"), Hooked(Hook.FORWARD, -5)
    assert tracing.read_base(data, 0, len(data)) == found


def test_chains_that_no_traced_packet_enters_first_are_no_base_chains() -> None:
    for data in (message(text(1, "t"), text(3, "c")), base_chain(5)):  # 5: a device's ingress
        assert tracing.read_base(data, 0, len(data)) is None


def expression(name: str, *inside: bytes) -> bytes:
    return nest(1, text(1, name), nest(2, *inside))


def test_comments_of_both_tools_are_read() -> None:
    own = attribute(7, bytes([9, 2]) + b"xx" + bytes([0, 6]) + b"hello\0")
    data = message(text(1, "t"), own)
    assert tracing.read_comment(data, 0, len(data)) == "hello"
    other = expression("match", text(1, "tcp"), attribute(3, b"irrelevant"))
    comment = expression("match", text(1, "comment"), attribute(3, b"demo/web:p\0".ljust(256)))
    data = message(text(1, "t"), nest(4, expression("cmp", be32(1, 1)), other, comment))
    assert tracing.read_comment(data, 0, len(data)) == "demo/web:p"
    data = message(text(1, "t"), nest(4, other))
    assert tracing.read_comment(data, 0, len(data)) == ""

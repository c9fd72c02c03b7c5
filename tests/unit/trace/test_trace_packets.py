"""What frames say: the marked packet, its answers, errors about it, and everything else."""

import struct

import frames_of
import pytest
from frames_of import ACK, ISN, RST, SYN, TCP, TOKEN, UDP, flow, framed

from kproxy.kernel.inet import Family
from kproxy.trace import filters
from kproxy.trace.packet import Flow, Mark, Packet, Way, is_reset, parse, parse_ip

THERE = flow("10.0.0.1", 40000, "10.96.0.10", 80)
THERE6 = flow("fd00::1", 40000, "fd00:96::10", 80)
NAT = flow("192.0.2.1", 61000, "10.128.0.5", 8080)
WAYS = (THERE, THERE6)


def read(data: bytes) -> Packet:
    found = parse(framed(data))
    assert found is not None
    return found


@pytest.mark.parametrize("way", WAYS)
def test_a_marked_packet_is_known_whatever_its_addresses(way: Flow) -> None:
    assert UDP.way(read(frames_of.udp(way))) is Way.THERE
    assert TCP.way(read(frames_of.tcp(way))) is Way.THERE
    assert read(frames_of.udp(way)).flow == way
    assert UDP.way(read(frames_of.udp(way, b"something else"))) is None
    assert TCP.way(read(frames_of.tcp(way, seq=ISN + 5))) is None
    assert UDP.way(read(frames_of.tcp(way))) is None


@pytest.mark.parametrize("flags", [SYN | ACK, RST | ACK])
def test_an_answer_over_tcp_acknowledges_the_mark(flags: int) -> None:
    answer = read(frames_of.tcp(THERE.reverse, flags, seq=7, ack=ISN + 1))
    assert TCP.way(answer) is Way.BACK
    assert is_reset(answer) == bool(flags & RST)
    assert TCP.way(read(frames_of.tcp(THERE.reverse, ACK, seq=7, ack=ISN + 1))) is None
    assert TCP.way(read(frames_of.tcp(THERE.reverse, flags, seq=7, ack=ISN))) is None


def test_the_last_number_is_followed_by_zero() -> None:
    mark = Mark(protocol=TCP.protocol, token=TOKEN, isn=0xFFFFFFFF)
    assert mark.way(read(frames_of.tcp(THERE, SYN | ACK, seq=9, ack=0))) is Way.BACK


@pytest.mark.parametrize("way", WAYS)
def test_errors_are_about_the_packet_that_they_quote(way: Flow) -> None:
    six = way.source.version == 6
    for mark, data in ((UDP, frames_of.udp(way)), (TCP, frames_of.tcp(way))):
        ends = ("fd00::9", "fd00::1") if six else ("10.9.9.9", "10.0.0.1")
        # Routers quote the IP header and eight bytes at least.
        size = (40 if six else 20) + (8 if mark is TCP else 24)
        error = read(frames_of.unreachable(*ends, data[:size]))
        assert mark.way(error) is Way.BACK
        assert error.quoted is not None
        assert error.quoted.flow == way
        other = frames_of.tcp(way, seq=1) if mark is TCP else frames_of.udp(way, b"other")
        assert mark.way(read(frames_of.unreachable(*ends, other))) is None


def test_tags_and_extension_headers_are_passed_over() -> None:
    data = frames_of.udp(THERE)
    tagged = bytes(12) + b"\x81\x00\x00\x05\x08\x00" + data
    found = parse(tagged)
    assert found is not None
    assert found.flow == THERE
    plain = frames_of.udp(THERE6)
    hop_by_hop = bytes([17, 0]) + bytes(6)
    extended = plain[:6] + bytes([0]) + plain[7:40] + hop_by_hop + plain[40:]
    six = parse_ip(extended)
    assert six is not None
    assert six.flow == THERE6


@pytest.mark.parametrize("size", range(0, 62, 3))
def test_what_is_cut_is_no_packet_or_a_shorter_one(size: int) -> None:
    for data in (frames_of.udp(THERE), frames_of.tcp(THERE), frames_of.udp(THERE6)):
        parse(framed(data)[:size])


def run(program: bytes, packet: bytes) -> int:
    """Run a filter as the kernel does, as far as filters of ours go."""
    code = list(struct.iter_unpack("=HBBI", program))
    a, x, at = 0, 0, 0
    while True:
        op, jt, jf, k = code[at]
        at += 1
        offset = (k - 0xFFF00000) & 0xFFFFFFFF
        if op == 0x06:
            return int(k)
        if op == 0x15:
            at += jt if a == k else jf
            continue
        if op == 0x54:
            a &= k
            continue
        if op == 0x01:
            x = k
            continue
        size = {0x30: 1, 0xB1: 1, 0x40: 4, 0x48: 2}[op]
        place = offset + (x if op in (0x40, 0x48) else 0)
        if place + size > len(packet):
            return 0
        value = int.from_bytes(packet[place : place + size], "big")
        if op == 0xB1:
            x = (value & 15) * 4
        else:
            a = value


@pytest.mark.parametrize("way", WAYS)
def test_the_filter_lets_by_what_the_parser_knows_and_little_else(way: Flow) -> None:
    family = Family(way.source.version)
    udp = filters.socket_filter(family, UDP, 40000)
    tcp = filters.socket_filter(family, TCP, 40000)
    syn_ack = frames_of.tcp(way.reverse, SYN | ACK, seq=3, ack=ISN + 1)
    assert run(udp, frames_of.udp(way))
    assert run(udp, frames_of.udp(way.reverse, b"answer"))
    assert run(tcp, frames_of.tcp(way))
    assert run(tcp, syn_ack)
    ends = ("fd00::9", "fd00::1") if family == 6 else ("10.9.9.9", "10.0.0.1")
    assert run(udp, frames_of.unreachable(*ends, frames_of.udp(way)))
    assert run(tcp, frames_of.unreachable(*ends, frames_of.tcp(way)[: family.bits // 8 * 2 + 20]))
    stranger = flow(str(way.source), 1, str(way.destination), 2)
    assert not run(udp, frames_of.udp(stranger, b"0123456789abcdef"))
    assert not run(tcp, frames_of.tcp(stranger, seq=1, ack=2))
    assert not run(udp, frames_of.tcp(way))
    assert not run(udp, frames_of.unreachable(*ends, frames_of.udp(way, b"0123456789")))
    other = THERE6 if way is THERE else THERE
    assert not run(udp, frames_of.udp(other))
    assert not run(udp, b"")

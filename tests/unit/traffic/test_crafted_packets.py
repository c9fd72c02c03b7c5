"""Packets that users write: read, never run; whatever is wrong is told with its place."""

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from kproxy.errors import UsageError
from kproxy.traffic import crafted, frames, slots, wire

SENDER = frames.Sender(
    source_mac="02:00:00:00:00:01",
    gateway_mac="02:00:00:00:00:02",
    addresses=(ip_address("10.0.0.1"), ip_address("fd00::1")),
)


def test_what_is_written_is_the_packet() -> None:
    text = "IP(dst='10.96.0.10', ttl=9)/TCP(dport=80, flags='S', options=[('MSS', 1460)])/b'x'"
    packet = crafted.parse(text)
    assert packet.dst == "10.96.0.10"
    assert packet.ttl == 9
    assert packet[TCP].dport == 80
    assert packet[TCP].flags == "S"
    assert packet[TCP].options == [("MSS", 1460)]
    assert packet.load == b"x"
    assert crafted.parse("IP(dst='1.2.3.4')/UDP/'text'").load == b"text"


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("__import__('os').system('touch x')", 1, "no layer"),
        ("IP()/Foo()", 6, "'Foo' is no layer that can be used.*there are: Dot1Q"),
        ("IP()/os.system('x')", 6, "no layer"),
        ("IP(dst=open('x'))", 8, "no plain value"),
        ("IP(dst=f'{1}')", 8, "no plain value"),
        ("IP(bar=1)", 4, "IP has no field 'bar'.*it has: version"),
        ("IP(**{'dst': 1})", 4, r"\*\* is not a field"),
        ("IP(1)", 4, "without its field's name"),
        ("IP(", 3, "never closed"),
        ("IP()+UDP()", 5, "joined by /"),
        ("IP()/UDP(dport=99999)", 6, "UDP: "),
        ("IP()/UDP(dport=(1, 5))", 6, "several packets"),
        ("IP(ttl=[1, 2])", 1, "several packets"),
        ("IP(dst='10.0.0.0/8')", 8, "not an address"),
        ("IP(dst='example.com')", 8, "not an address"),
        ("IP(dst=5)", 8, "not an address"),
        ("IP(dst='fd00::1')", 8, "not an address .write a plain IPv4 address"),
        ("IPv6(dst='1.2.3.4')", 10, "not an address .write a plain IPv6 address"),
        ("IPv6(dst='fe80::1%lo')", 10, "not an address"),
        ("IP()/ICMP(type=5, gw='example.com')", 22, "not an address"),
        ("Ether(dst='gateway')/IP()", 11, "not an address .write a plain MAC address"),
        ("IP()/UDP(sport=[53])", 6, "one value"),
        ("IP()/(lambda: 1)()", 6, "no layer"),
        ("[x for x in ()]", 1, "no layer"),
        ("TCP(flags='QQ')", 1, "TCP: "),
        ("", 1, "syntax"),
        ("(" * 1900, 201, "nested"),
        ("IP()/" * 500, 2001, "longer than 2000"),
        ("IP()/" * 16 + "UDP()", 6, "more than 16 layers"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, column: int, words: str) -> None:
    with pytest.raises(UsageError, match=rf"--packet: column {column}: .*{words}") as caught:
        crafted.parse(text)
    assert "\n" not in str(caught.value)


@given(st.text(alphabet="IPUDTC()=/'\".,[]*1x ", max_size=30))
def test_any_text_is_a_packet_or_a_users_mistake(text: str) -> None:
    try:
        assert isinstance(crafted.parse(text), Packet)
    except UsageError as error:
        said = str(error)
        assert said.startswith("--packet: column ")


@pytest.mark.parametrize(
    ("text", "layer"),
    [
        ("IP(dst='10.96.0.10')/TCP(dport=80, flags='S', options=[('MSS', 1460)])", TCP),
        ("IP(dst='10.96.0.10')/UDP(dport=53)/'hello'", UDP),
        ("IPv6(dst='fd00::2')/UDP(dport=53)/'odd'", UDP),
        ("IPv6(dst='fd00::2')/TCP(dport=53)", TCP),
        ("IP(dst='1.1.1.1')/ICMP()", ICMP),
        ("IPv6(dst='fd00::2')/ICMPv6EchoRequest()", ICMPv6EchoRequest),
        ("Ether(dst='02:00:00:00:00:09')/Dot1Q(vlan=5)/IP(dst='1.1.1.1')/UDP()", UDP),
    ],
)
@pytest.mark.parametrize("fresh", [False, True])
def test_probes_in_crafted_packets_keep_checksums_right(
    text: str, layer: type[Packet], fresh: bool
) -> None:
    flows = frames.crafted(crafted.parse(text), SENDER, flows=3, first_flow=7)
    found = slots.Slots(memoryview(bytearray(8 * slots.slot_size(flows))), flows, 9)
    ports = struct.pack("!6H", *range(5000, 5006)) if fresh else b""
    found.fill(0, 10, 6, 987_654_321, ports)
    mark = "sport" if layer in (TCP, UDP) else "id"
    checksum = "cksum" if layer is ICMPv6EchoRequest else "chksum"
    for i in range(6):
        frame = found.frame(i)
        seq, which = divmod(10 + i, 3)
        header = wire.HEADER.unpack_from(frame, flows[which].header_at)
        assert header == (wire.MAGIC, 9, 7 + which, 0, seq, 987_654_321)
        packet = Ether(frame)
        assert packet.src == "02:00:00:00:00:01"
        assert getattr(packet[layer], mark) == (5000 + i if fresh else 40000 + which)
        said = getattr(packet[layer], checksum)
        again = packet.copy()
        delattr(again[layer], checksum)
        if said:  # not IPv4's "none"
            assert getattr(Ether(bytes(again))[layer], checksum) == said
        else:
            assert layer is UDP


@pytest.mark.parametrize(
    ("given", "ports"),
    [
        ("", [40000, 40001, 40002]),
        ("sport=53", [53, 54, 55]),
        ("sport=0", [0, 1, 2]),
        ("sport=None", [0, 1, 2]),
        ("sport=65534", [65534, 65535, 1024]),
    ],
)
def test_flows_have_source_ports_one_after_the_other(given: str, ports: list[int]) -> None:
    flows = frames.crafted(crafted.parse(f"IP(dst='1.1.1.1')/UDP({given})"), SENDER, flows=3)
    assert [Ether(flow.frame)[UDP].sport for flow in flows] == ports


def test_what_has_no_place_for_a_probe_is_sent_as_it_is() -> None:
    text = "IP(dst='1.1.1.1')/SCTP(dport=3)/SCTPChunkInit()"
    (flow,) = frames.crafted(crafted.parse(text), SENDER)
    assert not flow.stamped
    found = slots.Slots(memoryview(bytearray(8 * slots.slot_size((flow,)))), (flow,), 9)
    found.fill(2, 0, 3, 1)
    assert [found.frame(place) for place in (2, 3, 4)] == [flow.frame] * 3


def test_a_packet_needs_a_destination_and_a_source() -> None:
    with pytest.raises(UsageError, match=r"IP has no destination.*IP\(dst="):
        frames.crafted(crafted.parse("IP()/UDP()"), SENDER)
    nowhere = frames.Sender(source_mac="02::", gateway_mac="02::", addresses=())
    with pytest.raises(UsageError, match=r"no IPv6 address.*IPv6\(src="):
        frames.crafted(crafted.parse("IPv6(dst='::1')/UDP()"), nowhere)

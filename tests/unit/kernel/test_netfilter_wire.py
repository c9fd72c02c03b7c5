"""Messages to ipset and ctnetlink: what must be in them, and what must never be left out."""

import ipaddress
import struct

from kproxy.kernel.attributes import find, walk
from kproxy.kernel.conntrack import client as conntrack
from kproxy.kernel.conntrack.types import Flow
from kproxy.kernel.inet import Family, Protocol
from kproxy.kernel.ipset import wire
from kproxy.kernel.ipset.types import AddEntry, CreateSet, DestroySet, Entry, SetSpec, SetType

ip = ipaddress.ip_address
NLM_F_REQUEST, NLM_F_EXCL = 0x1, 0x200
FLOW = Flow(
    *(Protocol.UDP, ip("10.0.0.1"), 1000, ip("10.96.0.10"), 53),
    *(ip("10.0.0.7"), 5353, ip("10.0.0.1"), 1000),
    zone=0,
    id=0x01020304,
)


def test_a_deletion_always_names_the_flow() -> None:
    """Without the original tuple the kernel would empty the whole table."""
    message = conntrack._delete(FLOW, 7)
    _length, kind, flags, sequence, _port = struct.unpack_from("=IHHII", message)
    assert (kind, flags, sequence) == (0x102, NLM_F_REQUEST, 7)
    places = find(message, 20, len(message))
    original, identity, zone = 1, 12, 18
    assert original in places
    assert zone not in places
    assert message[places[identity][0] : places[identity][1]] == b"\1\2\3\4"
    zoned = conntrack._delete(FLOW._replace(zone=5, id=0), 7)
    places = find(zoned, 20, len(zoned))
    assert zoned[places[zone][0] : places[zone][1]] == b"\0\5"
    assert identity not in places


def test_ipset_operations_are_strict_and_speak_version_6() -> None:
    packer = wire.Packer({(SetType.HASH_IP_PORT, Family.IPV4): 4})
    entry = Entry(ip("10.0.0.1"), Protocol.TCP, 80)
    for operation, command in (
        (CreateSet("A", SetSpec(SetType.HASH_IP_PORT)), 2),
        (AddEntry("A", entry), 9),
        (DestroySet("A"), 3),
    ):
        message = packer.pack(operation, 3)
        _length, kind, flags, _sequence, _port = struct.unpack_from("=IHHII", message)
        assert kind == 0x600 | command
        assert flags == NLM_F_REQUEST | NLM_F_EXCL
        places = find(message, 20, len(message))
        assert message[places[1][0]] == 6
        assert message[slice(*places[2])] == b"A\0"


def test_ipset_numbers_and_addresses_are_marked_as_in_network_order() -> None:
    """The kernel refuses them otherwise."""
    message = wire.Packer({}).pack(AddEntry("A", Entry(ip("10.0.0.1"), Protocol.TCP, 80)), 3)
    data = find(message, 20, len(message))[7]
    kinds = {}
    position = data[0]
    for kind, begin, end in walk(message, *data):
        kinds[kind] = struct.unpack_from("=H", message, begin - 2)[0]
        position = end
    assert position == data[1] or data[1] - position < 4
    address, port, protocol = 1, 4, 7
    assert kinds == {address: 0x8001, port: 0x4004, protocol: 7}


def test_flows_are_told_in_words() -> None:
    assert str(FLOW) == "udp 10.0.0.1 port 1000 → 10.96.0.10 port 53"

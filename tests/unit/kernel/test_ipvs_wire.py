"""IPVS messages byte by byte, and reading answers as kernels of several ages write them."""

import ipaddress
import struct

import pytest

from kproxy.kernel import attributes
from kproxy.kernel.attributes import attribute, be16, be32, find, nest, text, u16, u32
from kproxy.kernel.inet import Family, Protocol
from kproxy.kernel.ipvs import proc, wire
from kproxy.kernel.ipvs.types import (
    AddDestination,
    AddService,
    DelDestination,
    DelService,
    DestinationConfig,
    DestinationEntry,
    DestinationKey,
    DestinationStats,
    Forwarding,
    Operation,
    ServiceConfig,
    ServiceFlags,
    ServiceKey,
    SetDestination,
    SetService,
    Timeouts,
    Traffic,
    describe,
)

ip = ipaddress.ip_address
FAMILY_ID = 0x22
V4 = ServiceKey(Protocol.TCP, ip("10.96.0.1"), 443)
V6 = ServiceKey(Protocol.UDP, ip("fd00::1"), 53)
POD4 = DestinationKey(ip("10.0.0.7"), 8443)
POD6 = DestinationKey(ip("fd00::7"), 5353)

IDENTITY4 = u16(1, 2) + u16(2, 6) + attribute(3, bytes([10, 96, 0, 1]) + bytes(12)) + be16(4, 443)
IDENTITY6 = u16(1, 10) + u16(2, 17) + attribute(3, V6.address.packed) + be16(4, 53)


def destination(pod: DestinationKey, af: int) -> bytes:
    padded = pod.address.packed.ljust(16, b"\0")
    return attribute(1, padded) + be16(2, pod.port) + u16(11, af)


def configured(weight: int, method: int) -> bytes:
    return u32(3, method) + u32(4, weight) + u32(5, 0) + u32(6, 0)


@pytest.mark.parametrize(
    ("operation", "command", "body"),
    [
        (
            AddService(V4, ServiceConfig("rr")),
            1,
            nest(
                1,
                IDENTITY4,
                text(6, "rr"),
                attribute(7, struct.pack("=II", 0, 0xFFFFFFFF)),
                u32(8, 0),
                be32(9, 0xFFFFFFFF),
            ),
        ),
        (
            SetService(V6, ServiceConfig("sh", ServiceFlags.PERSISTENT, timeout=77, netmask=64)),
            2,
            nest(
                1,
                IDENTITY6,
                text(6, "sh"),
                attribute(7, struct.pack("=II", 1, 0xFFFFFFFF)),
                u32(8, 77),
                u32(9, 64),
            ),
        ),
        (DelService(V6), 3, nest(1, IDENTITY6)),
        (
            AddDestination(V4, POD4, DestinationConfig(5)),
            5,
            nest(1, IDENTITY4) + nest(2, destination(POD4, 2), configured(5, 0)),
        ),
        (
            SetDestination(V6, POD6, DestinationConfig(0, Forwarding.TUNNEL)),
            6,
            nest(1, IDENTITY6) + nest(2, destination(POD6, 10), configured(0, 2)),
        ),
        (DelDestination(V4, POD4), 7, nest(1, IDENTITY4) + nest(2, destination(POD4, 2))),
    ],
)
def test_messages(operation: Operation, command: int, body: bytes) -> None:
    packed = wire.Packer(FAMILY_ID).pack(operation, 9)
    request = 1
    head = struct.pack("=IHHIIBBH", 20 + len(body), FAMILY_ID, request, 9, 0, command, 1, 0)
    assert packed == head + body


@pytest.mark.parametrize(
    ("key", "pods"),
    [
        (V4, [POD4, DestinationKey(ip("10.0.0.8"), 1)]),
        (V6, [POD6, DestinationKey(ip("fd00::8"), 65535), DestinationKey(ip("::1"), 0)]),
    ],
)
@pytest.mark.parametrize("first", [5, 0xFFFFFFFE])
def test_a_service_with_its_servers_is_as_many_messages(
    key: ServiceKey, pods: list[DestinationKey], first: int
) -> None:
    use, config = DestinationConfig(7), ServiceConfig("wrr")
    apart = [AddService(key, config), *(AddDestination(key, pod, use) for pod in pods)]
    last = DelService(key)
    expected = [
        wire.Packer(FAMILY_ID).pack(operation, first + number & 0xFFFFFFFF)
        for number, operation in enumerate([*apart, last])
    ]
    together = AddService(key, config, b"".join(pods), use)
    assert list(wire.Packer(FAMILY_ID).messages([together, last], first)) == expected


def test_rows_of_destinations_do_not_mix_up_their_services() -> None:
    """The packer remembers the last service; equal is not the same, other is not the last."""
    packer = wire.Packer(FAMILY_ID)
    twin = ServiceKey(Protocol.TCP, ip("10.96.0.1"), 443)
    other = ServiceKey(Protocol.TCP, V4.address, 444)
    for key in (V4, twin, other, V4):
        operation = AddDestination(key, POD4, DestinationConfig())
        assert packer.pack(operation, 1) == wire.Packer(FAMILY_ID).pack(operation, 1)


@pytest.mark.parametrize(
    ("prefix", "family", "raw"),
    [
        (None, Family.IPV4, b"\xff\xff\xff\xff"),
        (24, Family.IPV4, b"\xff\xff\xff\0"),
        (0, Family.IPV4, bytes(4)),
        (None, Family.IPV6, struct.pack("=I", 128)),
        (64, Family.IPV6, struct.pack("=I", 64)),
    ],
)
def test_netmasks_go_and_come(prefix: int | None, family: Family, raw: bytes) -> None:
    assert wire._netmask(family, prefix) == raw
    assert wire._prefix(family, raw) == prefix


def answer(*attrs: bytes) -> bytes:
    return bytes(4) + b"".join(attrs)


def service_answer(identity: bytes, flags: int, mask: bytes, *more: bytes) -> bytes:
    flags_ = attribute(7, struct.pack("=II", flags, 0xFFFFFFFF))
    config = text(6, "wrr") + flags_ + u32(8, 300) + attribute(9, mask)
    return answer(nest(1, identity, config, *more))


def stats64(*values: int) -> bytes:
    padded = [attribute(0, b"")] if len(values) % 2 else []
    return nest(
        12, *padded, *(attribute(k + 1, struct.pack("=Q", v)) for k, v in enumerate(values))
    )


def test_reading_a_service() -> None:
    reader = wire.ServiceReader()
    hashed = 0x02
    data = service_answer(
        IDENTITY4, ServiceFlags.PERSISTENT | hashed, b"\xff\xff\xff\xff", stats64(1, 2, 3, 4, 5)
    )
    config = ServiceConfig("wrr", ServiceFlags.PERSISTENT, timeout=300)
    assert reader.read(data, 0, len(data)) == (V4, config)
    assert reader.read_traffic(data, 0, len(data)) == Traffic(1, 2, 3, 4, 5)
    data = service_answer(IDENTITY6, ServiceFlags.SH_PORT, struct.pack("=I", 64))
    config = ServiceConfig("wrr", ServiceFlags.SH_PORT, timeout=300, netmask=64)
    assert reader.read(data, 0, len(data)) == (V6, config)
    assert reader.read_traffic(data, 0, len(data)) == Traffic()


def test_services_of_other_kinds_are_left_out() -> None:
    by_mark = answer(nest(1, u16(1, 2), u32(5, 7), text(6, "rr")))
    assert wire.ServiceReader().read(by_mark, 0, len(by_mark)) is None
    icmp = IDENTITY4.replace(u16(2, 6), u16(2, 1))
    data = service_answer(icmp, 0, bytes(4))
    assert wire.ServiceReader().read(data, 0, len(data)) is None


def test_reading_destinations() -> None:
    reader = wire.DestinationReader(Family.IPV4)
    for weight, counts in ((1, (0, 0, 0)), (7, (4, 5, 6))):
        data = answer(
            nest(
                2,
                attribute(1, POD4.address.packed.ljust(16, b"\0")),
                be16(2, POD4.port),
                u32(3, 0x100),  # The kernel's own flags beside the method.
                u32(4, weight),
                attributes.u8(13, 0),
                *(u32(kind, number) for kind, number in zip((5, 6), (0, 0), strict=True)),
                *(u32(kind, number) for kind, number in zip((7, 8, 9), counts, strict=True)),
                u16(11, 2),
                stats64(1, 2, 3, 4, 5),
            )
        )
        key, config, counted = reader.read(data, 0, len(data))
        assert (key, config) == (POD4, DestinationConfig(weight, Forwarding.MASQUERADE))
        assert counted == (Traffic(1, 2, 3, 4, 5), DestinationStats(*counts[:2]), counts[2])


def test_old_kernels_do_not_tell_the_family_of_a_destination() -> None:
    for family, pod in ((Family.IPV4, POD4), (Family.IPV6, POD6)):
        data = answer(
            nest(
                2,
                attribute(1, pod.address.packed.ljust(16, b"\0")),
                be16(2, pod.port),
                *(u32(kind, 1) for kind in range(3, 10)),
            )
        )
        key, config, counted = wire.DestinationReader(family).read(data, 0, len(data))
        assert key == pod
        assert config == DestinationConfig(1, Forwarding.LOCAL)
        assert counted.traffic == Traffic()


def test_timeouts_and_info() -> None:
    packed = wire.Packer(FAMILY_ID).pack_timeouts(Timeouts(1, 2, 3), 5)
    assert find(packed, 20, len(packed)).keys() == {4, 5, 6}
    data = packed[16:]
    assert wire.read_timeouts(data, 0, len(data)) == Timeouts(1, 2, 3)
    data = answer(u32(1, 0x010201), u32(2, 4096))
    assert wire.read_info(data, 0, len(data)).version == (1, 2, 1)


@pytest.mark.parametrize(
    ("operation", "text"),
    [
        (AddService(V4, ServiceConfig()), "add virtual service tcp 10.96.0.1:443"),
        (SetService(V6, ServiceConfig()), "change virtual service udp [fd00::1]:53"),
        (DelService(V4), "delete virtual service tcp 10.96.0.1:443"),
        (
            AddDestination(V4, POD4, DestinationConfig()),
            "add real server 10.0.0.7:8443 to tcp 10.96.0.1:443",
        ),
        (
            SetDestination(V6, POD6, DestinationConfig()),
            "change real server [fd00::7]:5353 of udp [fd00::1]:53",
        ),
        (
            DelDestination(V4, POD4),
            "delete real server 10.0.0.7:8443 of tcp 10.96.0.1:443",
        ),
    ],
)
def test_operations_say_what_they_do(operation: Operation, text: str) -> None:
    assert describe(operation) == text


LISTING = b"""\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600001:01BB wrr persistent 10800 FFFFFFFF
  -> 0A000007:20FB      Masq    5      12         345       \x20
  -> 0A000008:20FB      Route   0      0          0         \x20
FWM  00000007 rr\x20
  -> 0A000009:0000      Masq    1      0          0         \x20
UDP  [fd00:0000:0000:0000:0000:0000:0000:0001]:0035 rr ops\x20
  -> [fd00:0000:0000:0000:0000:0000:0000:0007]:14E9      Tunnel  1      0          1         \x20
SCTP 0A600001:0007 rr\x20
"""


def test_the_listing_of_procfs() -> None:
    found = proc.parse([LISTING])
    assert found == {
        V4: {
            POD4: DestinationEntry(DestinationConfig(5), DestinationStats(12, 345)),
            DestinationKey(ip("10.0.0.8"), 8443): DestinationEntry(
                DestinationConfig(0, Forwarding.DIRECT), DestinationStats()
            ),
        },
        V6: {
            POD6: DestinationEntry(DestinationConfig(1, Forwarding.TUNNEL), DestinationStats(0, 1))
        },
        ServiceKey(Protocol.SCTP, ip("10.96.0.1"), 7): {},
    }


def test_an_unknown_form_of_the_listing_is_refused() -> None:
    """The client asks by netlink then, instead of believing half of it."""
    with pytest.raises(ValueError, match="unpack"):
        proc.parse([LISTING.replace(b"Masq    5", b"Masq    5 new")])
    assert proc.parse([]) == {}


@pytest.mark.parametrize("size", [1, 2, 7, 50, 64, 100, 1000])
def test_the_listing_may_be_cut_anywhere(size: int) -> None:
    pieces = [LISTING[at : at + size] for at in range(0, len(LISTING), size)]
    assert proc.parse(pieces) == proc.parse([LISTING])

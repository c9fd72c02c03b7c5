"""Real servers as ``/proc/net/ip_vs`` lists them. Pure.

Generic netlink tells the real servers of one service per request: three system calls each, at
10,000 services a second and more. The text of procfs has them all in a few hundred reads of 4 kB,
and all that a diff needs: forwarding method and weight, and the connections of the moment. What it
lacks (timeouts, masks and scheduler flags of services; counters) is asked by netlink.
"""

from binascii import unhexlify
from collections.abc import Iterable, Iterator

from kproxy.kernel import inet
from kproxy.kernel.ipvs.types import (
    DestinationConfig,
    DestinationEntry,
    DestinationKey,
    DestinationStats,
    Forwarding,
    ServiceKey,
)

PATH = "/proc/thread-self/net/ip_vs"
"""Of the calling thread's namespace; ``/proc/net`` is that of the process' first thread."""

_HEADER_LINES = 3
_ARROW = b"  -> "
_FORWARDINGS = {
    b"Masq": Forwarding.MASQUERADE,
    b"Local": Forwarding.LOCAL,
    b"Tunnel": Forwarding.TUNNEL,
    b"Route": Forwarding.DIRECT,
}
_PROTOCOL_NUMBERS = {one.upper().encode(): one.number for one in inet.Protocol}

Destinations = dict[DestinationKey, DestinationEntry]


def parse(chunks: Iterable[bytes]) -> dict[ServiceKey, Destinations]:
    """Return the real servers of every service known by address.

    The listing comes in pieces, as it is read: new memory is dear in an embedded kernel, and the
    whole text of 10,000 services is megabytes. ValueError if a line has another form than any
    known kernel writes.
    """
    found: dict[ServiceKey, Destinations] = {}
    entries: dict[bytes, DestinationEntry] = {}
    # DestinationKey.of without its call: there may be 100,000 lines.
    new, kind = bytes.__new__, DestinationKey
    into: Destinations = {}
    for line in _lines(chunks):
        if line.startswith(_ARROW):
            # "  -> 0A0A0001:1F90      Masq    1      0          0         "
            if line[5] == 0x5B:
                address, digits, rest = _ipv6_endpoint(line[5:])
            else:
                address, digits, rest = line[5:13], line[14:18], line[18:]
            entry = entries.get(rest)
            if entry is None:
                entry = entries[rest] = _entry(rest)
            into[new(kind, unhexlify(address + digits))] = entry
        else:
            into = {}
            service = _service(line)
            if service is not None:
                found[service] = into
    return found


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines after the three of the heading, whole, wherever the pieces end."""
    rest = b""
    skip = _HEADER_LINES
    for chunk in chunks:
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        yield from lines[skip:]
        skip = max(0, skip - len(lines))
    if rest:
        yield rest


def _entry(rest: bytes) -> DestinationEntry:
    forwarding, weight, active, inactive = rest.split()
    method = _FORWARDINGS.get(forwarding, Forwarding.MASQUERADE)
    return DestinationEntry(
        DestinationConfig(int(weight), method), DestinationStats(int(active), int(inactive))
    )


def _service(line: bytes) -> ServiceKey | None:
    """Read ``TCP  0A600001:0050 rr persistent 10800 FFFFFFFF``; None for a firewall mark."""
    number = _PROTOCOL_NUMBERS.get(line[:5].strip())
    if number is None:
        return None
    digits, port = line[5:13], line[14:18]
    if line[5] == 0x5B:
        digits, port, _rest = _ipv6_endpoint(line[5:])
    return ServiceKey.of(number, unhexlify(digits), unhexlify(port))


def _ipv6_endpoint(text: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the digits of address and port, and what follows: the kernel omits no zeros."""
    address, _, rest = text[1:].partition(b"]:")
    return address.replace(b":", b""), rest[:4], rest[4:]

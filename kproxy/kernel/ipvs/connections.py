"""Which real server IPVS has chosen for a connection, as ``/proc/net/ip_vs_conn`` lists it. Pure.

Connections have no netlink interface. The listing has a line for each of perhaps a million, so it
is for who asks rarely.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import NamedTuple

from kproxy.kernel.inet import IPAddress

PATH = "/proc/thread-self/net/ip_vs_conn"
"""Of the calling thread's namespace."""
_FIELDS = 9


class Connection(NamedTuple):
    """A connection that IPVS knows: a client, a virtual and a real server, seconds to its end."""

    protocol: str
    client: tuple[IPAddress, int]
    virtual: tuple[IPAddress, int]
    real: tuple[IPAddress, int]
    state: str
    expires_s: int


def parse(lines: Iterable[str]) -> Iterator[Connection]:
    """Yield the connections of a listing; lines of another form (its heading) are left out."""
    for line in lines:
        words = line.split()
        if len(words) < _FIELDS or words[0] not in ("TCP", "UDP", "SCTP"):
            continue
        yield Connection(
            words[0].lower(),
            _endpoint(words[1], words[2]),
            _endpoint(words[3], words[4]),
            _endpoint(words[5], words[6]),
            words[7],
            int(words[8]),
        )


def _endpoint(address: str, port: str) -> tuple[IPAddress, int]:
    digits = address.strip("[]")
    if ":" in digits:
        return IPv6Address(digits), int(port, 16)
    return IPv4Address(int(digits, 16)), int(port, 16)


def connections() -> list[Connection]:
    """Return the connections of this namespace; none where the kernel has no IPVS."""
    try:
        with Path(PATH).open(encoding="ascii") as listing:
            return list(parse(listing))
    except FileNotFoundError:
        return []

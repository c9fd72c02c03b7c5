"""What the kernel counts in ``/proc/net``: IP, ICMP, UDP, TCP, the queues of CPUs.

``/proc/thread-self/net`` is of the calling thread's namespace; ``/proc/net`` would be the main
thread's.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

DIRECTORY = Path("/proc/thread-self/net")
_IN_PAIRS = ("snmp", "netstat")
"""Files of two lines each: the names, then the numbers."""

_SOFTNET_DROPPED = 1


def protocols() -> Mapping[str, int]:
    """Return the counters of all protocols by name, such as ``Ip.InNoRoutes``.

    The names are the kernel's, with a dot between protocol and counter; those of IPv6 begin with
    ``Ip6``, ``Icmp6``, ``Udp6``, as the kernel writes them.
    """
    found: dict[str, int] = {}
    for name in _IN_PAIRS:
        found.update(_pairs(_lines(name)))
    found.update(_singles(_lines("snmp6")))
    return found


def backlog_drops() -> int:
    """Return how many packets found a CPU's queue full: of the whole kernel, not of a host."""
    return sum(int(line.split()[_SOFTNET_DROPPED], 16) for line in _lines("softnet_stat"))


def legacy_tables(version: int) -> tuple[str, ...]:
    """Return the tables of iptables' legacy variant that this namespace has. Makes none.

    To ask ip_tables itself for a table that is not there would make it, for every packet to pass.
    """
    return tuple(_lines("ip_tables_names" if version == 4 else "ip6_tables_names"))


def _lines(name: str) -> list[str]:
    """Return the lines of a file; none if the kernel lacks that part."""
    try:
        return (DIRECTORY / name).read_text().splitlines()
    except OSError:
        return []


def _pairs(lines: list[str]) -> Iterator[tuple[str, int]]:
    for names, numbers in zip(lines[::2], lines[1::2], strict=False):
        protocol, *fields = names.split()
        for name, number in zip(fields, numbers.split()[1:], strict=False):
            yield f"{protocol.removesuffix(':')}.{name}", int(number)


def _singles(lines: list[str]) -> Iterator[tuple[str, int]]:
    for line in lines:
        name, number = line.split()
        protocol, six, counter = name.partition("6")
        yield f"{protocol}{six}.{counter}", int(number)

"""Which ports a process listens on, from ``/proc``: a probe without packets.

A TCP connect would do for TCP only, and would be seen by the server; this sees UDP as well. And
it tells two servers apart that share a port, as two proxies of a node do while one hands over.
"""

import os
from pathlib import Path

_TCP_LISTEN = "0A"
_INODE = 9


def ports(pid: int) -> frozenset[tuple[str, int]]:
    """Return (protocol, port) of listening TCP and bound UDP sockets; empty for a dead process.

    Only those count that the process itself has, not others of its network namespace.
    """
    own = _sockets(pid)
    found = set()
    for name, protocol in (("tcp", "TCP"), ("tcp6", "TCP"), ("udp", "UDP"), ("udp6", "UDP")):
        try:
            text = Path(f"/proc/{pid}/net/{name}").read_text()
        except OSError:
            continue  # ended meanwhile, or a kernel without IPv6
        found.update(_parse(text, protocol, own))
    return frozenset(found)


def _sockets(pid: int) -> frozenset[str]:
    """Return the inode numbers of a process's sockets."""
    directory = Path(f"/proc/{pid}/fd")
    found = set()
    try:
        for entry in os.listdir(directory):  # noqa: PTH208  only names are needed
            target = os.readlink(directory / entry)  # noqa: PTH115  no path is needed
            if target.startswith("socket:["):
                found.add(target[len("socket:[") : -1])
    except OSError:
        pass  # It has ended, or has closed one meanwhile; what was found counts.
    return frozenset(found)


def _parse(text: str, protocol: str, own: frozenset[str]) -> set[tuple[str, int]]:
    """Parse a table as in the kernel's Documentation/networking/proc_net_tcp.rst."""
    found = set()
    for line in text.splitlines()[1:]:
        columns = line.split()
        if columns[_INODE] in own and (protocol == "UDP" or columns[3] == _TCP_LISTEN):
            found.add((protocol, int(columns[1].rpartition(":")[2], 16)))
    return found

"""Which ports a process's network namespace listens on, from ``/proc``: a probe without packets.

A TCP connect would do for TCP only, and would be seen by the server; this sees UDP as well.
"""

from pathlib import Path

_TCP_LISTEN = "0A"


def ports(pid: int) -> frozenset[tuple[str, int]]:
    """Return (protocol, port) of listening TCP and bound UDP sockets; empty for a dead process."""
    found = set()
    for name, protocol in (("tcp", "TCP"), ("tcp6", "TCP"), ("udp", "UDP"), ("udp6", "UDP")):
        try:
            text = Path(f"/proc/{pid}/net/{name}").read_text()
        except OSError:
            continue  # ended meanwhile, or a kernel without IPv6
        found.update(_parse(text, protocol))
    return frozenset(found)


def _parse(text: str, protocol: str) -> set[tuple[str, int]]:
    """Parse a table as in the kernel's Documentation/networking/proc_net_tcp.rst."""
    found = set()
    for line in text.splitlines()[1:]:
        columns = line.split()
        if protocol == "UDP" or columns[3] == _TCP_LISTEN:
            found.add((protocol, int(columns[1].rpartition(":")[2], 16)))
    return found

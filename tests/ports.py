"""Ports for programs that must be told one: nobody who takes any port takes them meanwhile."""

import random
import socket
from pathlib import Path

_FIRST = 10_000


def unused(address: str = "127.0.0.1", kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return a port that is free now, below those that the kernel gives away by itself."""
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    # Not the lots of `random`: those of a seeded test are the same in every process.
    lots = random.SystemRandom()
    while True:
        port = lots.randrange(_FIRST, max(ephemeral, _FIRST + 1000))
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, kind) as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return port

"""A container is ready when it listens itself, not when its neighbour does."""

import os
import socket
import subprocess
import sys

from kproxy.lab import listening


def test_the_ports_of_a_process_are_those_that_it_has_itself() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(type=socket.SOCK_DGRAM) as bound,
        socket.socket() as idle,
    ):
        bound.bind(("127.0.0.1", 0))
        idle.bind(("127.0.0.1", 0))
        own = listening.ports(os.getpid())
        assert ("TCP", server.getsockname()[1]) in own
        assert ("UDP", bound.getsockname()[1]) in own
        assert ("TCP", idle.getsockname()[1]) not in own, "bound, but not listening"
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        try:
            assert listening.ports(child.pid) == frozenset()
        finally:
            child.communicate(b"\n")
    assert listening.ports(child.pid) == frozenset(), "it has ended"

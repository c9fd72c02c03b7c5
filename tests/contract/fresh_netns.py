"""A network namespace of its own for whatever asks the kernel.

The calling thread moves into a fresh namespace and back; programs that it starts go with it. A
namespace without processes and sockets vanishes, so nothing is left behind, not even when the test
is killed.
"""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator

import pytest

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 1

libc = ctypes.CDLL(None, use_errno=True)


def bring_up_loopback() -> None:
    """IPVS refuses every destination in a namespace in which no device is up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))


@contextlib.contextmanager
def fresh_namespace() -> Iterator[None]:
    """Run the body in a new network namespace whose loopback is up."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(CLONE_NEWNET) != 0:
            pytest.skip(f"needs network namespaces: {os.strerror(ctypes.get_errno())}")
        try:
            bring_up_loopback()
            yield
        finally:
            assert libc.setns(before, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(before)


BOTH = ("fake", pytest.param("kernel", marks=pytest.mark.kernel))
"""Parameters of a fixture that gives the fake, and the client of the kernel."""

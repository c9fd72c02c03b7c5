"""What cannot even be sent to the kernel."""

import errno
import socket

import pytest

from kproxy.errors import KernelError
from kproxy.kernel.netlink import NetlinkSocket

HUGE = bytes(64 << 20)
RTM_GETLINK = 18


def nothing(*_: object) -> None:
    raise AssertionError("nothing was asked, so nothing can be answered")


@pytest.mark.parametrize("verb", ["ask", "dump"])
def test_a_request_that_cannot_be_sent_is_an_error_with_its_name(verb: str) -> None:
    sock = NetlinkSocket(socket.NETLINK_ROUTE)
    try:
        with pytest.raises(KernelError, match=r"list links: .*could not be sent") as caught:
            getattr(sock, verb)(RTM_GETLINK, HUGE, nothing, "list links")
        assert caught.value.errno in (errno.EMSGSIZE, errno.ENOBUFS)
    finally:
        sock.close()

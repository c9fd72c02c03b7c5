"""How clients of the kernel hold their netlink socket: opened when it is needed, given back."""

from typing import Self

from kproxy.kernel.netlink import NetlinkSocket


class NetlinkClient:
    """Opens its socket with the first call, so in the namespace in which that is made.

    A context manager. Not for two threads.
    """

    def __init__(self, protocol: int, *, torn_dumps: bool = False) -> None:
        self._protocol = protocol
        self._torn_dumps = torn_dumps
        self._opened: NetlinkSocket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the socket back. The next call opens another one."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _open(self) -> NetlinkSocket:
        if self._opened is None:
            self._opened = NetlinkSocket(self._protocol, torn_dumps=self._torn_dumps)
        return self._opened

"""Proxies that want the lock of a node, in one process."""

import contextlib
import io
import json
import socket
import threading
from collections.abc import Callable, Iterator

from kproxy.agent.nodelock import NodeLock
from kproxy.logs import Log

PATIENCE_S = 60.0


class Proxy:
    """What holds or wants the lock; its log is a list."""

    def __init__(self, name: str, *, asks: bool = True, pod: str = "") -> None:
        self.output = io.StringIO()
        self.lock = NodeLock(Log("t", stream=self.output), asks=asks, pod=pod, name=name)
        self.asked = threading.Event()
        self.ports: list[socket.socket] = []
        self.got: list[socket.socket] | None = None
        self.paused = 0
        self.resumed = 0

    def hold(self) -> None:
        assert self.lock.take()
        self.lock.receive(self.asked.set)

    def waits(self) -> threading.Thread:
        """Wait for the lock in a thread."""
        thread = threading.Thread(target=self._wait, daemon=True)
        thread.start()
        return thread

    def _wait(self) -> None:
        self.got = self.lock.wait()

    def hand_over(self, *, leaving: bool = False) -> bool:
        return self.lock.hand_over(self._pause, self._resume, leaving=leaving)

    def _pause(self) -> list[socket.socket]:
        self.paused += 1
        return self.ports

    def _resume(self) -> None:
        self.resumed += 1

    def said(self) -> list[str]:
        return [json.loads(line)["msg"] for line in self.output.getvalue().splitlines()]

    def close(self) -> None:
        self.lock.close()
        for one in (*self.ports, *(self.got or ())):
            one.close()


Make = Callable[..., Proxy]


def ended(thread: threading.Thread) -> None:
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


@contextlib.contextmanager
def connected(name: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(f"\0{name}")
        yield sock

"""Clients of health checks and metrics that send slowly, come in crowds, or find nothing left."""

import errno
import socket
import threading
from typing import Any

import pytest

from kproxy.agent import http, listeners
from kproxy.agent.http import Answer, serve
from kproxy.agent.listeners import Listeners

PATIENCE_S = 60.0


def find(_path: str) -> Any:
    return lambda: Answer(200, "ok")


def test_a_client_that_keeps_sending_a_little_does_not_keep_its_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "PATIENCE_S", 0.2)
    own, others = Listeners(), socket.socketpair()
    own._serving = 1
    done = threading.Event()

    def trickle() -> None:
        while not done.wait(0.05):
            try:
                others[1].send(b"x")
            except OSError:
                return

    sender = threading.Thread(target=trickle, daemon=True)
    sender.start()
    try:
        serve(others[0], find, own)
        own.drain(PATIENCE_S)
        assert own._serving == 0
    finally:
        done.set()
        sender.join()
        others[1].close()


def test_no_more_clients_at_once_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "CLIENTS_MOST", 1)
    own = Listeners()
    listener = own.listen(("127.0.0.1", 0))
    clients = [socket.create_connection(listener.getsockname()) for _ in range(2)]
    first = own.accept(listener)
    accepted: list[socket.socket] = []
    waiting = threading.Thread(target=lambda: accepted.append(own.accept(listener)), daemon=True)
    waiting.start()
    waiting.join(0.05)
    assert accepted == [], "it waits in the kernel"
    own.served()
    waiting.join(PATIENCE_S)
    assert len(accepted) == 1
    for one in (first, *accepted, *clients, listener):
        one.close()


class Exhausted:
    """A listener at whose first connection something has run out."""

    def __init__(self, listener: socket.socket, number: int) -> None:
        self._listener = listener
        self._errors = [number]

    def fileno(self) -> int:
        return self._listener.fileno()

    def accept(self) -> tuple[socket.socket, Any]:
        if self._errors:
            raise OSError(self._errors.pop(), "no")
        return self._listener.accept()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ECONNABORTED])
def test_a_connection_that_cannot_be_accepted_does_not_end_the_server(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "EXHAUSTED_S", 0.0)
    own = Listeners()
    listener = own.listen(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    stand_in: Any = Exhausted(listener, number)
    own.accept(stand_in).close()
    client.close()
    listener.close()


def test_without_another_thread_the_client_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    own, others = Listeners(), socket.socketpair()
    own._serving = 1
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none)
        serve(others[0], find, own)
    assert own._serving == 0
    assert others[1].recv(1) == b""
    others[1].close()

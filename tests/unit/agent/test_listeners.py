"""Listening sockets that change hands: who waits, who is served, what is closed."""

import socket
import threading

import pytest
from lock_proxies import PATIENCE_S, ended

from kproxy.agent.listeners import Listeners


def test_listeners_wait_while_they_change_hands() -> None:
    old, new = Listeners(), Listeners()
    listener = old.listen(("127.0.0.1", 0))
    address = listener.getsockname()
    accepted: list[socket.socket] = []
    thread = threading.Thread(target=lambda: accepted.append(old.accept(listener)), daemon=True)
    thread.start()
    sockets = old.pause()
    assert sockets == [listener]
    client = socket.create_connection(address)
    thread.join(0.05)
    assert accepted == [], "nobody accepts while paused, but nobody is refused"
    new.inherit([one.dup() for one in sockets])
    heir = new.listen(address)
    with new.accept(heir) as served:
        served.sendall(b"new")
    assert client.recv(3) == b"new"
    client.close()
    old.resume()
    client = socket.create_connection(address)
    ended(thread)
    old.drain(0.01)
    assert old._serving == 1, "it did not wait for ever"
    accepted[0].close()
    old.served()
    old.drain(PATIENCE_S)
    client.close()
    old.close(listener)
    heir.close()


def test_inherited_ports_that_nobody_wants_are_closed() -> None:
    listeners = Listeners()
    with socket.create_server(("127.0.0.1", 0)) as original:
        address = original.getsockname()
        listeners.inherit([original.dup()])
    listeners.close_unclaimed()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


def test_closing_a_listener_wakes_who_waits() -> None:
    listeners = Listeners()
    listener = listeners.listen(("127.0.0.1", 0))
    errors: list[OSError] = []

    def accept() -> None:
        try:
            listeners.accept(listener)
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    listeners.close(listener)
    ended(thread)
    assert errors

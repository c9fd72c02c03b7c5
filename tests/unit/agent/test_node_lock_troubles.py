"""The lock of a node among those who do not answer, talk nonsense, or cannot hear."""

import errno
import os
import select
import socket
import threading
import time
from typing import NoReturn

import pytest
from lock_proxies import PATIENCE_S, Make, connected, ended

from kproxy.agent import handover, listeners, nodelock, reception
from kproxy.agent.handover import Message, Word


@pytest.mark.parametrize("dies", [True, False])
def test_it_does_not_wait_for_ever(
    make: Make, name: str, dies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "LEAVING_S", 3600.0 if dies else 0.01)
    holder = make()
    holder.hold()
    with connected(name) as standby:
        leaving = threading.Thread(target=lambda: holder.hand_over(leaving=True))
        leaving.start()
        if dies:
            standby.close()
        ended(leaving)
    assert holder.paused == 0


def test_dead_standbys_are_forgotten(make: Make, name: str) -> None:
    holder = make()
    holder.hold()
    with connected(name) as standby:
        standby.send(handover.encode(Message(Word.READY)))
        assert holder.asked.wait(PATIENCE_S)
        assert holder.lock.wanted()
    assert not holder.lock.wanted()
    assert not holder.hand_over()
    assert holder.paused == 0


@pytest.mark.parametrize("reply", [None, Word.SYNCED, Word.READY])
def test_who_does_not_accept_gets_nothing(
    make: Make, name: str, reply: Word | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "OFFER_S", 0.01)
    holder = make()
    holder.hold()
    with connected(name) as standby:
        standby.send(handover.encode(Message(Word.READY)))
        assert holder.asked.wait(PATIENCE_S)
        if reply is not None:
            standby.send(handover.encode(Message(reply)))
            # What comes unasked looks like the end of the connection.
            assert not holder.hand_over()
            return
        assert not holder.hand_over()
        assert handover.decode(standby.recv(4096)).word is Word.OFFER
        assert standby.recv(4096) == b""
    assert holder.paused == 0
    assert holder.lock.holding


def test_a_lock_that_cannot_be_sent_is_kept(make: Make, name: str) -> None:
    old = make()
    old.hold()
    closed = socket.socket()
    closed.close()
    old.ports = [closed]
    with connected(name) as standby:
        standby.send(handover.encode(Message(Word.READY)))
        assert old.asked.wait(PATIENCE_S)
        result: list[bool] = []
        given = threading.Thread(target=lambda: result.append(old.hand_over()), daemon=True)
        given.start()
        assert handover.decode(standby.recv(4096)).word is Word.OFFER
        standby.send(handover.encode(Message(Word.ACCEPT)))
        ended(given)
        assert standby.recv(4096) == b""
    assert result == [False]
    assert (old.paused, old.resumed) == (1, 1)
    new = make()
    old.asked.clear()
    waiting = new.waits()
    assert old.asked.wait(PATIENCE_S), "it hears those who are ready, as before"
    old.lock.close()
    ended(waiting)


def test_a_name_that_nobody_listens_at_is_done_without_after_a_while(
    make: Make, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodelock, "NOBODY_S", 0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as squatter:
        squatter.bind(f"\0{name}")
        proxy = make()
        waiting = proxy.waits()
        ended(waiting)
        assert proxy.lock.holding
    assert proxy.said() == ["no lock on this node: writing without"]


@pytest.mark.parametrize(("number", "waits"), [(errno.EMFILE, 1), (errno.ECONNABORTED, 0)])
def test_who_cannot_be_heard_for_want_of_descriptors_is_not_tried_on_and_on(
    make: Make, monkeypatch: pytest.MonkeyPatch, number: int, waits: int
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)

    class Exhausted:
        def accept(self) -> NoReturn:
            raise OSError(number, "no")

    holder = make()
    holder.hold()
    assert holder.lock._reception is not None
    holder.lock._reception.stop()
    monkeypatch.setattr(holder.lock._reception, "_listener", Exhausted())
    holder.lock._reception._accept(select.poll(), {})
    assert slept == [listeners.EXHAUSTED_S] * waits


def test_who_talks_nonsense_is_hung_up_on(make: Make, name: str) -> None:
    holder = make()
    holder.hold()
    with connected(name) as stranger:
        stranger.send(b"hello")
        assert stranger.recv(4096) == b""
    assert not holder.asked.is_set()


def test_a_holder_that_talks_nonsense_is_asked_again(make: Make, name: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as holder:
        holder.bind(f"\0{name}")
        holder.listen()
        new = make()
        waiting = new.waits()
        for packet in (b"hello", handover.encode(Message(Word.YOURS)), b'{"word":"accept"}'):
            with holder.accept()[0] as connection:
                assert handover.decode(connection.recv(4096)).word is Word.READY
                connection.send(packet)
                assert connection.recv(4096) == b""
    ended(waiting)
    assert new.lock.holding


def test_a_stuck_holder_is_told_of_and_waited_for(
    make: Make, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "SILENCE_S", 0.01)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as holder:
        holder.bind(f"\0{name}")
        holder.listen()
        new = make()
        waiting = new.waits()
        with holder.accept()[0]:
            while new.said().count("the holder of the lock does not answer: waiting on") < 2:
                waiting.join(0.01)
            assert not new.lock.holding
            # The connection in the queue of a listener that closes ends with it.
            holder.close()
    ended(waiting)
    assert new.lock.holding


def test_a_name_that_somebody_else_sits_on_is_done_without(
    make: Make, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as squatter:
        squatter.bind(f"\0{name}")
        squatter.listen()
        monkeypatch.setattr(reception, "peer", lambda _: reception.Peer(1, os.geteuid() + 1))
        proxy = make()
        assert proxy.lock.wait() == []
        assert proxy.lock.holding
        proxy.lock.receive(proxy.asked.set)
        assert not proxy.lock.wanted(leaving=True)
    assert proxy.said() == ["no lock on this node: writing without"]

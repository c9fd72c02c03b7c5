"""The lock of a node between processes and threads: whoever dies, one holds it, and only one."""

import contextlib
import errno
import io
import itertools
import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from kproxy.agent import handover, listeners, nodelock, reception
from kproxy.agent.handover import Message, Word
from kproxy.agent.listeners import Listeners
from kproxy.agent.nodelock import NodeLock
from kproxy.logs import Log

PATIENCE_S = 30.0
_numbers = itertools.count()


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


@pytest.fixture
def name() -> str:
    return f"kproxy/test-{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def make(name: str) -> Iterator[Make]:
    with contextlib.ExitStack() as stack:

        def made(**options: object) -> Proxy:
            proxy = Proxy(name, **options)  # type: ignore[arg-type]
            stack.callback(proxy.close)
            return proxy

        yield made


def ended(thread: threading.Thread) -> None:
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_one_holds_the_lock(make: Make) -> None:
    first, second = make(), make()
    assert first.lock.take()
    assert first.lock.take()
    assert not second.lock.take()
    first.lock.close()
    assert second.lock.take()


def test_hand_over_gives_lock_and_ports_and_ends_when_the_other_has_synced(make: Make) -> None:
    old, new, third = make(pod="old"), make(), make()
    old.ports = [socket.create_server(("127.0.0.1", 0))]
    address = old.ports[0].getsockname()
    old.hold()
    waiting = new.waits()
    assert old.asked.wait(PATIENCE_S)
    given = threading.Thread(target=old.hand_over)
    given.start()
    ended(waiting)
    assert new.lock.holding
    assert new.got is not None
    assert [one.getsockname() for one in new.got] == [address]
    assert given.is_alive(), "the old one stands by until the new one has synced"
    old.ports.pop().close()
    socket.create_connection(address).close()
    new.lock.synced()
    ended(given)
    old.lock.close()
    assert not third.lock.take(), "the lock was never free"
    assert old.said() == ["holding", "released"]


def test_a_successor_that_dies_before_it_has_synced_gives_all_back(make: Make) -> None:
    old, new, third = make(), make(), make()
    old.hold()
    waiting = new.waits()
    assert old.asked.wait(PATIENCE_S)
    result: list[bool] = []
    given = threading.Thread(target=lambda: result.append(old.hand_over()))
    given.start()
    ended(waiting)
    new.lock.close()
    ended(given)
    assert result == [False]
    assert (old.paused, old.resumed) == (1, 1)
    assert old.said() == ["holding", "released", "holding", "hand-over failed"]
    assert not third.lock.take()
    old.asked.clear()
    again = third.waits()
    assert old.asked.wait(PATIENCE_S), "it hears those who are ready, as before"
    given = threading.Thread(target=old.hand_over)
    given.start()
    ended(again)
    third.lock.synced()
    ended(given)


def test_the_lock_of_a_dead_holder_is_taken_at_once(make: Make) -> None:
    old, new = make(), make(asks=False)
    old.hold()
    waiting = new.waits()
    assert old.asked.wait(PATIENCE_S)
    assert not old.lock.wanted(), "without the flag it only waits"
    old.lock.close()
    ended(waiting)
    assert new.said() == ["another proxy writes", "standby", "holding"]


def test_of_two_standbys_one_wins_and_the_other_waits(make: Make) -> None:
    old, *new = make(), make(), make()
    old.hold()
    threads = [one.waits() for one in new]
    while len(old.lock._waiting) < 2:
        assert old.asked.wait(PATIENCE_S)
        old.asked.clear()
    given = threading.Thread(target=old.hand_over)
    given.start()
    while all(thread.is_alive() for thread in threads):
        threads[0].join(0.01)
    winner, loser = new if new[0].lock.holding else reversed(new)
    winner.lock.receive(winner.asked.set)
    winner.lock.synced()
    ended(given)
    old.lock.close()
    assert winner.asked.wait(PATIENCE_S), "the other one has come to the winner"
    assert not winner.lock.wanted(), "but does not ask it to go"
    assert not loser.lock.holding
    assert winner.lock.wanted(leaving=True)
    winner.lock.close()
    for thread in threads:
        ended(thread)
    assert loser.lock.holding


def test_nobody_takes_over_from_one_whose_predecessor_still_stands_by(make: Make) -> None:
    old, new, third = make(), make(), make()
    old.hold()
    waiting = new.waits()
    assert old.asked.wait(PATIENCE_S)
    result: list[bool] = []
    given = threading.Thread(target=lambda: result.append(old.hand_over()))
    given.start()
    ended(waiting)
    new.lock.receive(new.asked.set)
    waiting = third.waits()
    assert new.asked.wait(PATIENCE_S)
    new.asked.clear()
    for leaving in (False, True):
        # If it gave the lock to the third, and ended, the first would take itself for the holder.
        assert not new.hand_over(leaving=leaving)
    new.lock.synced()
    ended(given)
    assert result == [True]
    assert new.asked.is_set(), "now it may"
    given = threading.Thread(target=lambda: result.append(new.hand_over(leaving=True)))
    given.start()
    ended(waiting)
    third.lock.close()
    ended(given)
    assert result == [True, True], "it was to end anyway"


def test_who_came_for_the_predecessor_is_told_that_it_was_too_late(make: Make, name: str) -> None:
    old, new = make(), make()
    old.hold()
    waiting = new.waits()
    assert old.asked.wait(PATIENCE_S)
    assert old.lock._reception is not None
    old.lock._reception.stop()
    with _connected(name) as late:
        given = threading.Thread(target=old.hand_over)
        given.start()
        ended(waiting)
        assert late.recv(4096) == b""
    new.lock.synced()
    ended(given)


def test_a_pod_that_has_handed_over_does_not_get_it_back_from_a_living_one(make: Make) -> None:
    old, new, restarted = make(pod="old"), make(pod="new"), make(pod="old")
    old.hold()
    waiting = new.waits()
    assert old.asked.wait(PATIENCE_S)
    given = threading.Thread(target=old.hand_over)
    given.start()
    ended(waiting)
    new.lock.synced()
    ended(given)
    old.lock.close()
    new.lock.receive(new.asked.set)
    waiting = restarted.waits()
    assert new.asked.wait(PATIENCE_S)
    assert not new.lock.wanted()
    assert new.lock.wanted(leaving=True)
    given = threading.Thread(target=lambda: new.hand_over(leaving=True))
    given.start()
    ended(waiting)
    assert restarted.lock.holding
    assert given.is_alive(), "it ends when the other one has synced"
    restarted.lock.synced()
    ended(given)


def test_who_is_told_to_stop_waits_for_one_that_has_come_but_is_not_ready(
    make: Make, name: str
) -> None:
    holder = make()
    holder.hold()
    with _connected(name) as standby:
        result: list[bool] = []
        leaving = threading.Thread(target=lambda: result.append(holder.hand_over(leaving=True)))
        leaving.start()
        leaving.join(0.05)
        assert leaving.is_alive()
        standby.send(handover.encode(Message(Word.READY)))
        assert handover.decode(standby.recv(4096)).word is Word.OFFER
        standby.send(handover.encode(Message(Word.ACCEPT)))
        standby.send(handover.encode(Message(Word.SYNCED)))
        ended(leaving)
        assert result == [True]


class _Signal(BaseException):
    pass


def test_a_signal_while_the_successor_begins_gives_the_lock_to_nobody_else(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, third = make(), make(), make(asks=False)
    old.hold()
    threads = [one.waits() for one in (third, new)]
    while len(old.lock._waiting) < 2:
        assert old.asked.wait(PATIENCE_S)
        old.asked.clear()
    with monkeypatch.context() as patch:
        patch.setattr(NodeLock, "_await_synced", _interrupted)
        with pytest.raises(_Signal):
            old.hand_over()
    ended(threads[1])
    result: list[bool] = []
    leaving = threading.Thread(target=lambda: result.append(old.hand_over(leaving=True)))
    leaving.start()
    leaving.join(0.05)
    assert leaving.is_alive()
    new.lock.synced()
    ended(leaving)
    assert result == [True]
    assert not third.lock.holding
    old.lock.close()
    new.lock.close()
    ended(threads[0])


def test_a_signal_before_the_lock_is_sent_lets_it_be_sent_nevertheless(make: Make) -> None:
    old, new = make(), make()
    old.hold()
    waiting = new.waits()
    assert old.asked.wait(PATIENCE_S)

    def interrupted() -> NoReturn:
        raise _Signal

    with pytest.raises(_Signal):
        old.lock.hand_over(interrupted, old._resume)
    result: list[bool] = []
    leaving = threading.Thread(target=lambda: result.append(old.hand_over(leaving=True)))
    leaving.start()
    ended(waiting)
    assert new.lock.holding
    new.lock.synced()
    ended(leaving)
    assert result == [True]
    assert old.paused == 1


def _interrupted(lock: NodeLock) -> bool:
    raise _Signal


@pytest.mark.parametrize("dies", [True, False])
def test_it_does_not_wait_for_ever(
    make: Make, name: str, dies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "LEAVING_S", 3600.0 if dies else 0.01)
    holder = make()
    holder.hold()
    with _connected(name) as standby:
        leaving = threading.Thread(target=lambda: holder.hand_over(leaving=True))
        leaving.start()
        if dies:
            standby.close()
        ended(leaving)
    assert holder.paused == 0


def test_dead_standbys_are_forgotten(make: Make, name: str) -> None:
    holder = make()
    holder.hold()
    with _connected(name) as standby:
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
    with _connected(name) as standby:
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
    with _connected(name) as standby:
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
    with _connected(name) as stranger:
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


@contextlib.contextmanager
def _connected(name: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(f"\0{name}")
        yield sock

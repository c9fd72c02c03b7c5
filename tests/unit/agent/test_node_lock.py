"""The lock of a node between processes and threads: whoever dies, one holds it, and only one."""

import socket
import threading
from typing import NoReturn

import pytest
from lock_proxies import PATIENCE_S, Make, connected, ended

from kproxy.agent import handover
from kproxy.agent.handover import Message, Word
from kproxy.agent.nodelock import NodeLock


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
    with connected(name) as late:
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
    with connected(name) as standby:
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

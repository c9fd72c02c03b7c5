"""Who may write next: the states of standby and holder, told the time."""

import pytest

from kproxy.agent import handover
from kproxy.agent.handover import Candidate, Message, Standby, Transfer, Word

NEVER = float("inf")


def test_a_standby_that_asks_accepts_an_offer_and_gets_the_lock() -> None:
    standby = Standby(asks=True, pod="new")
    standby.joined()
    assert standby.ready(0.0) == Message(Word.READY, pod="new")
    assert standby.answer(Message(Word.OFFER), 1.0) == Message(Word.ACCEPT)
    assert standby.answer(Message(Word.YOURS, retired=("old",)), 1.1) is None
    assert standby.retired == ("old",)


@pytest.mark.parametrize("word", [Word.READY, Word.ACCEPT, Word.YOURS, Word.SYNCED])
def test_nothing_is_taken_that_was_not_offered(word: Word) -> None:
    standby = Standby(asks=True, pod="")
    standby.joined()
    standby.ready(0.0)
    with pytest.raises(ValueError, match=word):
        standby.answer(Message(word), 1.0)


def test_who_loses_the_lock_to_another_asks_no_more() -> None:
    standby = Standby(asks=True, pod="")
    standby.joined()
    assert not standby.ready(0.0).reserve
    # The connection ended without an offer, and yet somebody holds the lock.
    standby.joined()
    assert standby.ready(1.0).reserve
    standby.joined()
    assert standby.ready(2.0).reserve


def test_who_has_come_before_another_takes_over_is_too_late_ready_or_not() -> None:
    standby = Standby(asks=True, pod="")
    standby.joined()
    standby.joined()
    assert standby.ready(0.0).reserve


def test_who_was_too_slow_to_accept_asks_again() -> None:
    standby = Standby(asks=True, pod="")
    standby.joined()
    standby.answer(Message(Word.OFFER), 1.0)
    standby.joined()
    assert not standby.ready(9.0).reserve


def test_without_the_flag_it_never_asks() -> None:
    standby = Standby(asks=False, pod="")
    standby.joined()
    assert standby.ready(0.0).reserve
    assert standby.warning_due() == NEVER


def test_a_silent_holder_is_told_of_again_and_again_but_less_and_less_often() -> None:
    standby = Standby(asks=True, pod="")
    standby.joined()
    standby.ready(100.0)
    assert standby.warning_due() == 100 + handover.SILENCE_S
    standby.warned()
    assert standby.warning_due() == 100 + 2 * handover.SILENCE_S
    standby.warned()
    assert standby.warning_due() == 100 + 4 * handover.SILENCE_S
    standby.answer(Message(Word.OFFER), 200.0)
    assert standby.warning_due() > 200


def test_an_offer_stands_only_for_a_moment() -> None:
    transfer = Transfer(50.0)
    assert transfer.deadline() == 50 + handover.OFFER_S
    assert not transfer.given
    assert not transfer.heard(Message(Word.ACCEPT))
    # What has been given cannot be taken back while the other lives.
    assert transfer.given
    assert transfer.deadline() == NEVER
    assert transfer.heard(Message(Word.SYNCED))


def test_who_is_to_end_waits_for_the_first_sync_but_not_for_ever() -> None:
    transfer = Transfer(50.0)
    transfer.heard(Message(Word.ACCEPT))
    transfer.leave(60.0)
    assert transfer.deadline() == 60 + handover.LEAVING_S


@pytest.mark.parametrize("word", [Word.SYNCED, Word.READY, Word.OFFER, Word.YOURS])
def test_an_offer_is_accepted_or_void(word: Word) -> None:
    transfer = Transfer(0.0)
    with pytest.raises(ValueError, match=word):
        transfer.heard(Message(word))
    assert not transfer.given


def test_an_offer_is_accepted_once() -> None:
    transfer = Transfer(0.0)
    transfer.heard(Message(Word.ACCEPT))
    with pytest.raises(ValueError, match=Word.ACCEPT):
        transfer.heard(Message(Word.ACCEPT))
    assert transfer.given


@pytest.mark.parametrize(
    ("pod", "reserve", "leaving", "expected"),
    [
        ("new", False, False, True),
        ("", False, False, True),
        ("new", True, False, False),
        ("old", False, False, False),
        ("new", True, True, True),
        ("old", False, True, True),
    ],
)
def test_who_may_take_over(pod: str, reserve: bool, leaving: bool, expected: bool) -> None:
    candidate = Candidate(pod=pod, reserve=reserve)
    assert handover.may_take_over(candidate, ("old", "older"), leaving=leaving) is expected


def test_pods_that_have_handed_over_are_remembered_but_not_all_for_ever() -> None:
    assert handover.retire((), "") == ()
    assert handover.retire(("a", "b"), "a") == ("b", "a")
    retired: tuple[str, ...] = ()
    for number in range(100):
        retired = handover.retire(retired, f"pod-{number}")
    assert len(retired) == handover.RETIRED_MOST
    assert retired[-1] == "pod-99"


def test_messages_keep_what_they_say() -> None:
    for message in (
        Message(Word.READY, pod="p", reserve=True),
        Message(Word.YOURS, retired=("a", "b")),
        Message(Word.SYNCED),
    ):
        assert handover.decode(handover.encode(message)) == message
    assert handover.decode(b'{"word":"offer","new":1}') == Message(Word.OFFER)


@pytest.mark.parametrize("packet", [b"", b"{}", b'{"word":"hello"}', b"\xff", b'{"word":1}'])
def test_nonsense_is_refused(packet: bytes) -> None:
    with pytest.raises(ValueError, match="no message of ours"):
        handover.decode(packet)

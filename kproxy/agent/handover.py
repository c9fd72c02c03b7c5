"""How the right to write changes hands between two proxies of one node: words and states. Pure.

Exactly one proxy of a node writes: the one that holds the lock (:mod:`kproxy.agent.nodelock`). One
that starts while another holds it is a *standby*: it lists, reads the kernel, computes, and then
speaks with the holder over one connection, a message each way in turn::

    standby                             holder
       │── ready ─────────────────────▶   │  ends its sync and writes no more
       │◀───────────────────────── offer ─│  the standby must still be there: within OFFER_S,
       │── accept ────────────────────▶   │  or the holder goes on as before
       │◀── yours, with lock and ports ───│  from here on it would write only if this connection
       │  reads anew, syncs               │  ended without "synced", which proves the other dead
       │── synced ────────────────────▶   │  ends, exit code 0

The lock is a listening socket and travels as a file descriptor, so it is never free in between,
and neither are the ports, which travel with it: connections wait in their queues.

Who dies, dies with its sockets, and the kernel tells the other at once: a standby whose connection
ends takes the lock, if it is free; a holder whose standby is gone goes on. Nobody takes over from
a standby before it has said "synced": its holder would go on when it ends.

A standby that finds the lock taken by somebody else meanwhile is a *reserve*: it takes over only
from a holder that dies or is told to stop. So is one without ``--make-before-break``, and one in a
pod that has handed over before (its supervisor has started it again): else two pods would replace
each other for ever.
"""

from enum import StrEnum

import msgspec

OFFER_S = 2.0
"""So long a standby may take to accept; the holder writes nothing meanwhile."""

SILENCE_S = 10.0
"""A holder that has not answered for so long is called stuck in the log, and again after so long
times two, and so on. It is waited for nevertheless: there are never two that write."""

LEAVING_S = 10.0
"""So long a holder that is told to stop waits for a standby that has come but is not ready yet,
and again so long for its first sync."""

RETIRED_MOST = 16
"""So many pods that have handed over are remembered, which goes from holder to holder."""


class Word(StrEnum):
    """What is said."""

    READY = "ready"
    OFFER = "offer"
    ACCEPT = "accept"
    YOURS = "yours"
    SYNCED = "synced"


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message: a JSON object in one packet. Fields that a reader does not know are ignored."""

    word: Word
    pod: str = ""
    """``ready``: the pod that the standby runs in, if it knows."""
    reserve: bool = False
    """``ready``: take over only from a holder that is told to stop."""
    retired: tuple[str, ...] = ()
    """``yours``: pods that have handed over, the last one last."""


class Standby:
    """One that waits for the right to write. ``now``: monotonic seconds.

    ``asks``: whether it asks a living holder to hand over.
    """

    def __init__(self, *, asks: bool, pod: str) -> None:
        self.retired: tuple[str, ...] = ()
        self._asks = asks
        self._pod = pod
        self.has_met_holder = False
        self._silent_since = 0.0
        self._warn_after = SILENCE_S
        self._accepted = False

    @property
    def reserve(self) -> bool:
        """Return whether it waits for the end of the holder instead of asking for it."""
        return not self._asks

    def joined(self) -> None:
        """Note that there is a connection to a holder."""
        if self.has_met_holder and not self._accepted:
            # It made no offer, so it has gone or handed over to somebody else, who was quicker.
            self._asks = False
        self.has_met_holder = True
        self._accepted = False

    def ready(self, now: float) -> Message:
        """Return what to tell the holder once all is ready for taking over."""
        self._silent_since, self._warn_after = now, SILENCE_S
        return Message(Word.READY, pod=self._pod, reserve=self.reserve)

    def answer(self, message: Message, now: float) -> Message | None:
        """Take what the holder says; return the answer, or None: the lock is ours.

        ValueError: it says what cannot be, so this connection is of no use.
        """
        self._silent_since = now
        if message.word is Word.OFFER and not self._accepted:
            self._accepted = True
            return Message(Word.ACCEPT)
        if message.word is Word.YOURS and self._accepted:
            self.retired = message.retired
            return None
        raise ValueError(f"unexpected {message.word!r}")

    def warning_due(self) -> float:
        """Return when a holder is to be called stuck that says nothing until then."""
        if self.reserve:
            return float("inf")
        return self._silent_since + self._warn_after

    def warned(self) -> None:
        """Note that this was done: the next time is later."""
        self._warn_after *= 2


class Transfer:
    """One attempt of a holder to hand over, from ``offer`` on."""

    def __init__(self, now: float) -> None:
        self._until = now + OFFER_S
        self._leaving = False
        self.given = False
        """Whether the other may write, so that we must not while it lives."""
        self.sent = False
        """Whether it has surely been sent the lock, too."""

    def deadline(self) -> float:
        """Return until when to wait for the standby; after that it is taken for stuck."""
        return float("inf") if self.given and not self._leaving else self._until

    def leave(self, now: float) -> None:
        """Note that we are told to stop: we wait for its first sync, but not for ever."""
        self._leaving = True
        self._until = now + LEAVING_S

    def heard(self, message: Message) -> bool:
        """Take what the standby says; return whether it has synced, so that all is done.

        After ``accept`` the holder gives ``yours``. ValueError: it says what cannot be.
        """
        if message.word is Word.ACCEPT and not self.given:
            self.given = True
            return False
        if message.word is Word.SYNCED and self.given:
            return True
        raise ValueError(f"unexpected {message.word!r}")


class Candidate(msgspec.Struct, frozen=True):
    """A standby as its holder knows it: what it said when it was ready."""

    pod: str
    reserve: bool


def may_take_over(candidate: Candidate, retired: tuple[str, ...], *, leaving: bool) -> bool:
    """Return whether a holder hands over to this one now; ``leaving``: it was told to stop."""
    return leaving or not (candidate.reserve or candidate.pod in retired)


def retire(retired: tuple[str, ...], pod: str) -> tuple[str, ...]:
    """Return the pods that have handed over when this one has; an unknown one is not listed."""
    if not pod:
        return retired
    return (*(one for one in retired if one != pod), pod)[-RETIRED_MOST:]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Message)


def encode(message: Message) -> bytes:
    """Return the message as one packet."""
    return _encoder.encode(message)


def decode(packet: bytes) -> Message:
    """Return the message in a packet. Raises ValueError."""
    try:
        return _decoder.decode(packet)
    except msgspec.DecodeError as error:
        raise ValueError(f"no message of ours: {error}") from None

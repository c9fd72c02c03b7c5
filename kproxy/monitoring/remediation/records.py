"""The records of the journal: all that happens, one struct each. Also what ``/audit`` shows.

``at`` is the receiver's time in seconds since the epoch (see :mod:`.clock`). An *instance* is one
episode of one alert, from its ``startsAt`` until it is resolved: ``FINGERPRINT@STARTS``.
"""

from enum import StrEnum

import msgspec


class Said(StrEnum):
    """What became of an alert of a notification."""

    TAKEN = "taken"
    REPEATED = "repeated"
    """Its instance is known: it is being dealt with, or has been."""
    LATE = "late"
    """It is about an instance that is known as resolved."""
    STALE = "stale"
    """It is older than what is known, or says itself that it has ended."""
    RESOLVED = "resolved"
    RESOLVED_UNSEEN = "resolved-unseen"
    """Resolved before it was seen firing, or known as resolved already."""
    UNCURED = "uncured"
    """It names no action: others tell humans of it."""
    UNKNOWN_ACTION = "unknown-action"
    UNFIT = "unfit"
    """It lacks a label that its action needs, or one is no name."""
    TOO_OLD = "too-old"
    FUTURE = "future"
    """It begins long after now: a clock is wrong, and what it says of times is not believed."""
    RELAPSED = "relapsed"
    """It fires still, long after its repair was verified."""
    QUEUE_FULL = "queue-full"

    @property
    def needs_human(self) -> bool:
        """Return whether a cure was asked for that will not come."""
        return self in _LEFT


_LEFT = (
    Said.UNKNOWN_ACTION,
    Said.UNFIT,
    Said.TOO_OLD,
    Said.FUTURE,
    Said.RELAPSED,
    Said.QUEUE_FULL,
)


class Result(StrEnum):
    """How an instance that was taken ended."""

    HELPED = "helped"
    """The action ran, and that the trouble is gone was verified."""
    INEFFECTIVE = "ineffective"
    FAILED = "failed"
    TIMED_OUT = "timed-out"
    INTERRUPTED = "interrupted"
    """The receiver died in the middle, and after its restart the trouble was still there."""
    DRY_RUN = "dry-run"
    RESOLVED = "resolved"
    """The alert ended before anything was done."""
    EXPIRED = "expired"
    """It could not be acted on for too long."""

    @property
    def needs_human(self) -> bool:
        """Return whether the trouble is left to a human."""
        return self not in (Result.HELPED, Result.DRY_RUN, Result.RESOLVED)


class Record(msgspec.Struct, frozen=True, kw_only=True, tag_field="what", omit_defaults=True):
    """Base of all."""

    at: float


class Seen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One alert of a notification, and what became of it."""

    fingerprint: str
    firing: bool
    starts: float
    ends: float = 0.0
    labels: dict[str, str] = {}
    said: Said = Said.UNCURED
    why: str = ""


class Started(Record, frozen=True, kw_only=True, tag="started"):
    """A receiver began to work with this journal."""

    pid: int
    dry_run: bool = False


class Notified(Record, frozen=True, kw_only=True, tag="notified"):
    """A notification was accepted."""

    peer: str
    group_key: str
    receiver: str
    truncated: int = 0
    alerts: list[Seen]


class Held(Record, frozen=True, kw_only=True, tag="held"):
    """An instance must wait until ``until``."""

    instance: str
    action: str
    target: str
    reason: str
    why: str
    until: float


class Began(Record, frozen=True, kw_only=True, tag="began"):
    """An action is about to run."""

    instance: str
    action: str
    target: str
    why: str


class Ran(Record, frozen=True, kw_only=True, tag="ran"):
    """An action has run; whether it helped is not known yet."""

    instance: str
    action: str
    target: str
    done: bool
    detail: str
    seconds: float
    timed_out: bool = False


class Ended(Record, frozen=True, kw_only=True, tag="ended"):
    """Nothing more will be done about an instance."""

    instance: str
    action: str
    target: str
    result: Result
    why: str
    seconds: float = 0.0
    """Since the action began; 0: none did."""
    escalated: bool = False


class Phase(StrEnum):
    """How far an instance has come."""

    WAITING = "waiting"
    RUNNING = "running"
    VERIFYING = "verifying"
    DONE = "done"


class Episode(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of one instance."""

    starts: float
    taken: float
    seen: float
    """When it was last told of."""
    action: str = ""
    target: str = ""
    labels: dict[str, str] = {}
    phase: Phase = Phase.WAITING
    due: float = 0.0
    """Not to be looked at before."""
    tries: int = 0
    """So many times it was held."""
    why: str = ""
    begun: float = 0.0
    ended: float = 0.0
    resolved: bool = False


class Known(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of one alert (one set of labels)."""

    ended: float = 0.0
    """What began until then is resolved; 0: nothing is."""
    episode: Episode | None = None


class Bucket(msgspec.Struct, frozen=True):
    """A token bucket: what it held at a time."""

    tokens: float
    at: float


class Rest(msgspec.Struct, frozen=True):
    """A target's cool-down, and how often in a row it was not helped."""

    until: float
    failures: int


class Breaker(msgspec.Struct, frozen=True):
    """An action's runs in a row that did not help; open until a time."""

    failures: int
    open_until: float


class GuardState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the guards remember."""

    buckets: dict[str, Bucket] = {}
    rests: dict[str, Rest] = {}
    breakers: dict[str, Breaker] = {}
    lease: str = ""
    """The instance whose action runs or is being verified."""


class Snapshot(Record, frozen=True, kw_only=True, tag="snapshot"):
    """Everything that is known: a journal's file begins with it, and needs no file before it."""

    known: dict[str, Known]
    guards: GuardState
    escalated: dict[str, float] = {}
    """Actions, and when they last left something to a human."""


AnyRecord = Started | Notified | Held | Began | Ran | Ended | Snapshot


def instance(fingerprint: str, starts: float) -> str:
    """Return the name of an instance."""
    return f"{fingerprint}@{starts:.6f}"


def fingerprint_of(instance_: str) -> str:
    """Return whose instance it is."""
    return instance_.rpartition("@")[0]

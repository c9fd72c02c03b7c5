"""What a client knows of its own writes, and whether the cluster has kept them. Pure.

A write whose answer was lost may have been done, also a little later. So an object must be as its
last acknowledged write left it, or as one of the unanswered attempts around it would have. Every
attempt has a value of its own, so it is known whose it is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from kproxy.lab.eventlog import Event

ATTEMPT = "attempt"
"""What the writer calls an attempt in its log lines."""
LINGERS_NS = 120 * 10**9
"""How much later an unanswered attempt may still be done: a request is given up long before."""
ABSENT = ""
"""The value of an object that is deleted."""


class Outcome(StrEnum):
    """What became of an attempt."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    """The answer was that it was not done."""
    UNKNOWN = "unknown"
    """There was no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An attempt to give an object (``Kind/name``) a value; ABSENT: to delete it."""

    label: str
    value: str
    begun_ns: int
    ended_ns: int
    outcome: Outcome


def attempts(events: Iterable[Event]) -> list[Attempt]:
    """Return what a writer's events tell, in order."""
    return [
        Attempt(
            label=str(event.fields["object"]),
            value=str(event.fields["value"]),
            begun_ns=int(event.fields["begun_ns"]),
            ended_ns=event.mono_ns,
            outcome=Outcome(event.fields["outcome"]),
        )
        for event in events
        if event.msg == ATTEMPT
    ]


def lost(done: Iterable[Attempt], found: Mapping[str, str]) -> list[str]:
    """Return, in words, the acknowledged writes that the cluster does not have.

    ``found``: the value of each object that exists in the end.
    """
    by_object: dict[str, list[Attempt]] = {}
    for one in done:
        by_object.setdefault(one.label, []).append(one)
    problems = []
    for label, its in sorted(by_object.items()):
        allowed = _allowed(its)
        value = found.get(label, ABSENT)
        if value not in allowed:
            last = next(reversed([o for o in its if o.outcome is Outcome.ACKNOWLEDGED]), None)
            wanted = f"write {last.value!r}" if last and last.value else "deletion"
            problems.append(f"{label}: is {value!r} in the end; its {wanted} was acknowledged")
    return problems


def _allowed(its: list[Attempt]) -> set[str]:
    acknowledged = [one for one in its if one.outcome is Outcome.ACKNOWLEDGED]
    last = acknowledged[-1] if acknowledged else None
    value = last.value if last else ABSENT
    since = last.ended_ns - LINGERS_NS if last else 0
    unknown = {
        one.value for one in its if one.outcome is Outcome.UNKNOWN and one.ended_ns >= since
    }
    return {value, *unknown}

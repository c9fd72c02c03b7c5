"""In what the kernel differs from what the API server says, and goes on to differ.

A change is in the kernel some milliseconds after the API server has it. So what differs is looked
at again a moment later, against what the API server says by then.
"""

import time
from collections.abc import Iterable

from kproxy.backends.base import Difference

from .seen import Ask, Differ, Wanted

PAUSE_S = 0.5


def lasting(
    ask: Ask, differ: Differ, wanted: Wanted, *, pause_s: float = PAUSE_S
) -> list[Difference]:
    """Return the differences that are there twice. Raises KproxyError."""
    first = _flat(differ, wanted)
    if not first:
        return []
    time.sleep(pause_s)
    known = set(texts(first))
    return [one for one in _flat(differ, ask()) if _text(one) in known]


def texts(found: Iterable[Difference]) -> tuple[str, ...]:
    """Return them in words."""
    return tuple(map(_text, found))


def _text(one: Difference) -> str:
    return f"{one.deviation} {one.kind} {one.name}"


def _flat(differ: Differ, wanted: Wanted) -> list[Difference]:
    return [one for _, some in sorted(differ(wanted).items()) for one in some]

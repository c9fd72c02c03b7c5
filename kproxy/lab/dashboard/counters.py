"""Packets that an interface of this network namespace has carried, as its kernel counts them."""

from dataclasses import dataclass
from pathlib import Path

_RECEIVED, _SENT = 1, 9  # of the numbers in a line of /proc/net/dev


@dataclass(frozen=True, slots=True)
class Carried:
    """Packets up to now, and when that was (seconds of the monotonic clock)."""

    at: float
    received: int
    sent: int


def read(interface: str, now: float) -> Carried | None:
    """Return what an interface has carried; None if there is none of this name."""
    return parse(Path("/proc/thread-self/net/dev").read_text(), interface, now)


def parse(text: str, interface: str, now: float) -> Carried | None:
    """Return what /proc/net/dev tells of an interface. Pure."""
    for line in text.splitlines():
        name, colon, rest = line.partition(":")
        if colon and name.strip() == interface:
            numbers = rest.split()
            return Carried(now, int(numbers[_RECEIVED]), int(numbers[_SENT]))
    return None


def rates(earlier: Carried | None, now: Carried | None) -> tuple[float | None, float | None]:
    """Return packets per second received and sent between two looks; None: not known."""
    if earlier is None or now is None or now.at <= earlier.at:
        return None, None
    received, sent = now.received - earlier.received, now.sent - earlier.sent
    if received < 0 or sent < 0:  # another interface of the same name
        return None, None
    passed = now.at - earlier.at
    return received / passed, sent / passed

"""Durations as Go programs write them: ``1m30s``, ``100ms``, ``1h15m``, ``0s``."""

import re

_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")


class Duration(float):
    """A number of seconds, written in Go's notation."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> "Duration":
        """Read Go's notation. Raises ValueError, with a message for the user."""
        sign, rest = (-1.0, text[1:]) if text[:1] == "-" else (1.0, text.removeprefix("+"))
        if rest == "0":
            return cls(0.0)
        seconds, at = 0.0, 0
        while part := _PART.match(rest, at):
            seconds += float(part[1]) * _UNITS[part[2]]
            at = part.end()
        if not rest or at != len(rest):
            raise ValueError(f"{text!r} is not a duration such as 100ms, 30s or 1h15m")
        return cls(sign * seconds)

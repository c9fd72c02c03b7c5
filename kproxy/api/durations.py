"""Durations as Go programs write them: ``1m30s``, ``100ms``, ``1h15m``, ``0s``."""

import re

_UNITS_NS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)")


class Duration(float):
    """A number of seconds, written in Go's notation."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> "Duration":
        """Read Go's notation. Raises ValueError, with a message for the user."""
        sign, rest = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
        if rest == "0":
            return cls(0.0)
        total_ns, at = 0, 0
        # Whole nanoseconds are counted, so that what was written is read as the same number.
        while (part := _PART.match(rest, at)) and (part[1] or part[2]):
            unit, fraction = _UNITS_NS[part[3]], part[2] or ""
            total_ns += int(part[1] or 0) * unit
            total_ns += int(fraction or 0) * unit // 10 ** len(fraction)
            at = part.end()
        if not rest or at != len(rest):
            raise ValueError(f"{text!r} is not a duration such as 100ms, 30s or 1h15m")
        return cls(sign * total_ns / 10**9)

    @property
    def text(self) -> str:
        """Return it in Go's notation, to the nanosecond: ``1h0m0s``, ``1m30s``, ``1.5s``."""
        left_ns = round(abs(self) * 10**9)
        if left_ns == 0:
            return "0s"
        sign = "-" if self < 0 else ""
        minutes, seconds_ns = divmod(left_ns, 60 * 10**9)
        if not minutes and seconds_ns < 10**9:
            name = "ms" if seconds_ns >= 10**6 else "us" if seconds_ns >= 10**3 else "ns"
            return f"{sign}{_decimal(seconds_ns, _UNITS_NS[name])}{name}"
        hours, minutes = divmod(minutes, 60)
        head = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
        return f"{sign}{head}{_decimal(seconds_ns, 10**9)}s"


def _decimal(count_ns: int, unit_ns: int) -> str:
    whole, rest = divmod(count_ns, unit_ns)
    digits = f"{rest:0{len(str(unit_ns)) - 1}d}".rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)

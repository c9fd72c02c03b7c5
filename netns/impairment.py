"""What a link does to packets besides carrying them: delay, loss, a limited rate. Pure.

An impairment belongs to the sending end of a link and acts on what leaves there (the kernel's
``netem`` queueing discipline, tc-netem(8)); for both directions give both ends one. What ``netem``
drops or duplicates by chance it draws from the kernel's generator.
"""

import dataclasses
import re
from typing import Self

from netns.errors import TopologyError

_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_RATES = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z%]*)\s*", re.IGNORECASE)
LONGEST_DELAY_S = 60.0
FASTEST_BPS = 34_000_000_000
"""The most that netem's 32 bits of bytes per second can say."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Impairment:
    """Seconds, parts of 1 (0.01 is one packet in a hundred), bits per second, packets.

    ``jitter_s``: the delay varies evenly by as much up and down (which reorders packets);
    ``reorder``: this part of the packets is not delayed and so overtakes; ``limit``: packets that
    may wait, more are dropped.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    rate_bps: int = 0
    limit: int = 1000

    @classmethod
    def parse(cls, texts: dict[str, object], where: str) -> Self:
        """Return what ``{"delay": "10ms", "loss": "0.1%", "rate": "100mbit"}`` says.

        Raises :class:`TopologyError` with ``where`` and the field.
        """
        found: dict[str, float] = {}
        for name, value in texts.items():
            field = _FIELDS.get(name)
            if field is None:
                remedy = f"use {', '.join(_FIELDS)}"
                raise TopologyError(where, name, "no such impairment", remedy=remedy)
            attribute, units, example = field
            found[attribute] = _quantity(where, name, value, units, example)
        whole = {name: _whole(name, value) for name, value in found.items()}
        made = cls(**whole)  # type: ignore[arg-type]  # ints where they are wanted: _whole
        made.check(where)
        return made

    def check(self, where: str) -> None:
        """Raise :class:`TopologyError` for what no link can do."""
        for name in ("loss", "duplicate", "reorder", "corrupt"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                problem = f"{value:.0%} is no part of all packets"
                raise TopologyError(where, name, problem, remedy="use 0% to 100%")
        for name in ("delay_s", "jitter_s"):
            if not 0 <= getattr(self, name) <= LONGEST_DELAY_S:
                problem = f"{getattr(self, name):g} s is out of range"
                remedy = f"use up to {LONGEST_DELAY_S:g} s"
                raise TopologyError(where, name.removesuffix("_s"), problem, remedy=remedy)
        if self.jitter_s > self.delay_s:
            problem = "is more than the delay"
            raise TopologyError(where, "jitter", problem, remedy="use at most the delay")
        if self.reorder and not self.delay_s:
            problem = "needs a delay: what is not delayed overtakes"
            raise TopologyError(where, "reorder", problem, remedy="give a delay, too")
        if not 0 <= self.rate_bps <= FASTEST_BPS or (0 < self.rate_bps < 8):
            problem = f"{self.rate_bps} bit/s is out of range"
            raise TopologyError(where, "rate", problem, remedy="use 1kbit to 34gbit")
        if self.limit < 1:
            raise TopologyError(where, "limit", f"{self.limit} packets", remedy="use 1 or more")

    def netem(self) -> dict[str, int | float]:
        """Return the parameters as pyroute2's ``sched_netem`` takes them.

        Delays are microseconds there, parts per cent, and the rate bytes per second.
        """
        wanted: dict[str, int | float] = {
            "delay": round(self.delay_s * 1e6),
            "jitter": round(self.jitter_s * 1e6),
            "loss": self.loss * 100,
            "duplicate": self.duplicate * 100,
            "prob_reorder": self.reorder * 100,
            "prob_corrupt": self.corrupt * 100,
            "limit": self.limit,
        }
        if self.rate_bps:
            wanted["rate"] = self.rate_bps // 8
        return {name: value for name, value in wanted.items() if value}


_FIELDS: dict[str, tuple[str, dict[str, float], str]] = {
    "delay": ("delay_s", _TIMES, "10ms"),
    "jitter": ("jitter_s", _TIMES, "1ms"),
    "loss": ("loss", {"%": 0.01}, "0.1%"),
    "duplicate": ("duplicate", {"%": 0.01}, "0.1%"),
    "reorder": ("reorder", {"%": 0.01}, "0.1%"),
    "corrupt": ("corrupt", {"%": 0.01}, "0.1%"),
    "rate": ("rate_bps", {**_RATES}, "100mbit"),
    "limit": ("limit", {"": 1}, "1000"),
}


def _quantity(
    where: str, name: str, value: object, units: dict[str, float], example: str
) -> float:
    match = _QUANTITY.fullmatch(str(value)) if isinstance(value, str | int | float) else None
    unit = match[2].lower() if match else ""
    if match is None or isinstance(value, bool) or (unit not in units and match[1] != "0"):
        problem = f"{value!r} is no quantity"
        raise TopologyError(where, name, problem, remedy=f"write it as {example}")
    return float(match[1]) * units.get(unit, 0)


def _whole(name: str, value: float) -> float | int:
    return round(value) if name in ("rate_bps", "limit") else value

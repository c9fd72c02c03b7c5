"""Whether somebody is well, by repeated checks: a state machine that knows no clock. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from kproxy.api.addresses import with_port


class Verdict(StrEnum):
    """What one check found."""

    WELL = "well"
    UNWELL = "unwell"
    """It answered, but not that it is well."""
    REFUSED = "refused"
    """Nobody listens: the machine is there, the program is not."""
    SILENT = "silent"
    """No answer came in time."""


class Probe(NamedTuple):
    """What is asked, and of whom: ``GET SCHEME://ADDRESS:PORT/PATH`` must be answered with 200."""

    scheme: str
    address: str
    port: int
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}://{with_port(self.address, self.port)}{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How often somebody is asked, and how sure to be before believing it. Seconds."""

    period: float
    timeout: float
    rise: int = 1
    """So many good answers in a row make somebody well."""
    fall: int = 3
    """So many bad ones make him unwell."""
    refusal_counts: bool = False
    """Whether a refused connection says enough by itself."""


API_TERMS = Terms(period=1.0, timeout=1.0, rise=1, fall=2, refusal_counts=True)
NODE_TERMS = Terms(period=8.0, timeout=1.0, rise=1, fall=3)
"""As Kubernetes' cloud provider for GCE asks nodes."""


@dataclass(slots=True)
class Health:
    """What is believed of one that is asked again and again.

    Before the first answer nobody is well, unless he was when an earlier process asked; the first
    answer decides alone.
    """

    terms: Terms
    well: bool = False
    dead: bool = False
    """Whether he is not even there: connections to him lead nowhere."""
    _known: bool = False
    _streak: int = 0

    @classmethod
    def remembered(cls, terms: Terms) -> "Health":
        """Return one who was well when somebody asked last."""
        return cls(terms, well=True, _known=True)

    def told(self, verdict: Verdict) -> bool:
        """Take the outcome of a check; return whether anything is believed otherwise now."""
        before = self.well, self.dead
        good = verdict is Verdict.WELL
        if self._known and good == self.well:
            self._streak = 0
        else:
            self._streak += 1
            if self._enough(verdict):
                self.well, self._streak = good, 0
        self._known = True
        gone = verdict in (Verdict.REFUSED, Verdict.SILENT)
        self.dead = not self.well and (gone or (self.dead and not good))
        return (self.well, self.dead) != before

    def _enough(self, verdict: Verdict) -> bool:
        if not self._known or (verdict is Verdict.REFUSED and self.terms.refusal_counts):
            return True
        return self._streak >= (self.terms.rise if verdict is Verdict.WELL else self.terms.fall)

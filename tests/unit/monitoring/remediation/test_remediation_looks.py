"""How often a repair is looked at that may have helped."""

import itertools
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from remediation_alerts import START, Mend

from kproxy.monitoring.remediation import repair
from kproxy.monitoring.remediation.records import Episode
from kproxy.monitoring.remediation.seams import Limits, Target, Verdict

NOBODY: Any = None
LIMITS = Limits(verify_within=120.0, verify_every=0.2)


class Patience(threading.Event):
    """Whoever waits for the end makes the time pass, which nobody else does."""

    now = 1000.0

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.now += timeout
        return False


class Looked(Mend):
    """Helps after so many seconds; remembers when it was asked."""

    def __init__(self, patience: Patience, after: float) -> None:
        super().__init__()
        self.looks: list[float] = []
        self._patience = patience
        self._after = after

    def verify(self, target: Target) -> Verdict:
        self.looks.append(self._patience.now - Patience.now)
        return Verdict(self.looks[-1] >= self._after, "")


def looks(monkeypatch: pytest.MonkeyPatch, after: float) -> tuple[list[float], Verdict]:
    patience = Patience()
    action = Looked(patience, after)
    monkeypatch.setattr(repair, "time", SimpleNamespace(monotonic=lambda: patience.now))
    episode = Episode(
        starts=START, taken=START, seen=START, labels={"alertname": "Broken", "node": "n1"}
    )
    verdict = repair.Repairs(NOBODY, NOBODY, patience).verify(episode, action, LIMITS)
    return action.looks, verdict


@pytest.mark.parametrize("after", [0.0, 0.3, 1.0, 17.0, 100.0])
def test_the_moment_is_known_to_a_tenth_of_what_it_took(
    monkeypatch: pytest.MonkeyPatch, after: float
) -> None:
    found, verdict = looks(monkeypatch, after)
    assert verdict.good
    assert after <= found[-1] <= after + max(LIMITS.verify_every, after / 10)


def test_what_does_not_help_is_looked_at_less_and_less_and_once_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, verdict = looks(monkeypatch, 1e9)
    pauses = [later - earlier for earlier, later in itertools.pairwise(found)]
    assert not verdict.good
    assert found[-1] == pytest.approx(LIMITS.verify_within)
    assert pauses[:-1] == sorted(pauses[:-1])
    assert len(found) < 70  # every 0.2 s these would be 600

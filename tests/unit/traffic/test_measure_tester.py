"""Before a run the sender finds out whether it holds the rate, and says which one it does."""

from typing import Any, Self

import pytest

from kproxy.errors import UsageError
from kproxy.traffic import profile
from kproxy.traffic.remote import tester

LIMIT = 50_000.0


class Generator:
    """Sends up to a limit; remembers what it was asked for."""

    asked: list[profile.UdpProfile]
    record = "nowhere"

    def __enter__(self) -> Self:
        type(self).asked = []
        return self

    def __exit__(self, *exc: object) -> None:
        return

    def start(self, wanted: profile.UdpProfile) -> int:
        self.asked.append(wanted)
        return 0

    def answer(self, event: str) -> dict[str, Any]:
        assert event == "stopped"
        planned = round(self.asked[-1].rate_pps * tester.SECONDS)
        sent = min(planned, round(LIMIT * tester.SECONDS))
        achieved = sent / tester.SECONDS
        return {"report": {"planned": planned, "sent": sent, "achieved_pps": achieved}}


@pytest.fixture(autouse=True)
def generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tester, "Generator", Generator)


FLOWS = [profile.UdpFlow(flow=0, frame=bytes(range(100)), header_at=42)]


def test_a_rate_that_is_held_is_tried_once() -> None:
    found = tester.calibrate(FLOWS, 20_000.0)
    found.require(20_000.0, "--rate")
    assert len(Generator.asked) == 1


def test_the_frames_are_those_of_the_run_and_reach_nobody() -> None:
    tester.calibrate(FLOWS, 20_000.0)
    (asked,) = Generator.asked
    (flow,) = asked.flows
    assert asked.interface == "lo"
    assert (len(flow.frame), flow.header_at) == (100, 42)
    assert flow.frame[6:] == FLOWS[0].frame[6:]
    assert flow.frame[0] & 2  # a MAC that no card has


def test_a_rate_beyond_what_is_held_is_refused_with_one_that_is() -> None:
    found = tester.calibrate(FLOWS, 1_000_000.0)
    assert 0 < found.pps <= LIMIT
    with pytest.raises(UsageError, match="--rate") as told:
        found.require(1_000_000.0, "--rate")
    assert "calibration found that this machine holds" in told.value.message
    assert "lower rate" in told.value.remedy

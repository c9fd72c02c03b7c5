"""When something was last left to a human: by which clock, and of which action."""

from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from remediation_alerts import Mend
from remediation_receiver import Receiver, receiver

from kproxy.logs import Log
from kproxy.monitoring.remediation import clock
from kproxy.monitoring.remediation.reporter import Reporter
from kproxy.monitoring.remediation.seams import Outcome, Verdict
from kproxy.monitoring.remediation.state import STRANGE

NOON = 1_800_000_000.0
DAY_S = 86_400.0


class Times:
    """The clocks of the machine. ``passes`` moves both, ``sets`` the time of day alone."""

    def __init__(self) -> None:
        self.day = NOON
        self.monotonic = 5.0

    def passes(self, seconds: float) -> None:
        self.day += seconds
        self.monotonic += seconds

    def sets(self, day: float) -> None:
        self.day = day


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    made = Times()
    source = SimpleNamespace(time=lambda: made.day, monotonic=lambda: made.monotonic)
    monkeypatch.setattr(clock, "time", source)
    return made


def last(one: Receiver) -> float:
    """Return when Prometheus hears that something was left to a human."""
    (told,) = one.counts("last_escalation_timestamp_seconds").values()
    return told


def leave_to_a_human(one: Receiver) -> None:
    one.hear(one.alert(remediation="strange"))


@pytest.mark.parametrize("wrong_by", [DAY_S, -DAY_S])
def test_the_time_of_day_is_set_while_it_runs(
    tmp_path: Path, times: Times, wrong_by: float
) -> None:
    times.sets(NOON + wrong_by)
    with receiver(tmp_path) as one:
        leave_to_a_human(one)
        assert last(one) == NOON + wrong_by  # Who could know?
        times.sets(NOON)
        assert last(one) == NOON
        times.passes(700.0)
        assert last(one) == NOON


def test_a_journal_of_a_time_to_come(tmp_path: Path, times: Times) -> None:
    times.sets(NOON + DAY_S)
    with receiver(tmp_path) as one:
        leave_to_a_human(one)
    times.sets(NOON)
    with receiver(tmp_path) as one:
        assert last(one) == NOON
        times.passes(700.0)
        assert last(one) == NOON
        leave_to_a_human(one)
        assert last(one) == NOON + 700.0


def test_what_clocks_are_apart_anyway_changes_no_time(tmp_path: Path, times: Times) -> None:
    with receiver(tmp_path) as one:
        leave_to_a_human(one)
        times.sets(NOON - 50.0)
        assert last(one) == NOON


def test_a_flood_of_names_is_remembered_as_one_and_makes_nothing_forgotten(
    tmp_path: Path,
) -> None:
    mend = Mend(verify_within=0.05, verify_every=0.01, run_within=60.0)
    mend.well = Verdict(False, "still broken")
    with receiver(tmp_path, mend) as one:
        one.hear()
        one.engine.run_until_idle()
        told = {mend.name: one.records()[-1].at}
        for number in range(105):
            strange = one.hear(one.alert(f"n{number + 2}", remediation=f"strange-{number}"))
        told[STRANGE] = strange.at
        assert one.ledger.state.escalated == told
    with receiver(tmp_path, mend) as one:
        assert one.ledger.state.escalated == told
        # What an older version remembered by any name.
        many = {f"strange-{number}": float(number) for number in range(100)}
        snapshot = one.ledger.state.snapshot(strange.at)
        one.ledger.write(msgspec.structs.replace(snapshot, escalated={**told, **many}))
        assert one.ledger.state.escalated == told


def test_the_log_names_an_alert_as_the_audit_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mend = Mend()
    mend.outcome, mend.well = Outcome(False, "no such pod"), Verdict(False, "still broken")
    with receiver(tmp_path, mend) as one:
        taken = one.alert("n2", fingerprint="f00d")
        strange = one.alert("n3", fingerprint="beef", remediation="strange")
        record = one.hear(taken, strange)
        Reporter(one.ledger, one.metrics, one.events, Log("test")).accepted(record)
        one.engine.run_until_idle()
    told = [msgspec.json.decode(line) for line in capsys.readouterr().err.splitlines()]
    about = [
        (line["msg"], line["alert"], line["node"], line["fingerprint"])
        for line in told
        if line["msg"] in ("alert taken", "left to a human")
    ]
    assert sorted(about) == [
        ("alert taken", "Broken", "n2", "f00d"),
        ("left to a human", "Broken", "n2", "f00d"),
        ("left to a human", "Broken", "n3", "beef"),
    ]

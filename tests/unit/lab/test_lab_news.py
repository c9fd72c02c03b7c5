"""What is told of a run while it lasts."""

import threading
from pathlib import Path

import pytest
import report_samples as samples

from kproxy.lab import news
from kproxy.traffic import recordfile
from netns.kernels import base


def test_how_a_trial_ended() -> None:
    trial = samples.trial("ipvs", "endpoint-crash", 2)
    assert news.ended("endpoint-crash", trial) == news.Ended(
        case="endpoint-crash",
        number=2,
        offered_pps=4000.0,
        sent=12000,
        lost=40,
        failed=1,
        failover_ms=176.0,
        unexplained=0,
        valid=True,
        events=trial.timeline,
    )


def test_events_on_one_line_without_the_fault_itself() -> None:
    trial = samples.trial("ipvs", "endpoint-crash", 2)
    said = "process gone 5 · process started 42 · synced 72 · first good packet 164"
    assert news.in_words(trial.timeline) == said


def test_records_are_counted_as_their_writers_count_them(tmp_path: Path) -> None:
    """So it fails, too, when a record file keeps its count elsewhere."""
    counts = news.Counts(tmp_path)
    assert counts.grown(".sent") == 0

    def writer() -> recordfile.RecordWriter:
        return recordfile.RecordWriter(tmp_path / "a.sent", recordfile.KIND_SENT, 8, 100, "a")

    first = writer()
    first.append(b"\1" * 8 * 30, 30)
    assert counts.grown(".sent") == 30
    first.append(b"\1" * 8 * 5, 5)
    assert counts.grown(".sent") == 5
    assert counts.grown(".received") == 0
    first.close()
    again = writer()
    again.append(b"\1" * 8 * 2, 2)
    assert counts.grown(".sent") == 2
    again.close()


def test_rates_are_told_in_real_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(news, "EVERY_S", 0.001)
    told = threading.Event()
    with news.watched(tmp_path, lambda rates: told.set()):
        assert told.wait(30)
    threads = threading.active_count()
    monkeypatch.setattr(base, "clock", lambda: base.Clock.VIRTUAL)
    with news.watched(tmp_path, lambda rates: None):
        assert threading.active_count() == threads

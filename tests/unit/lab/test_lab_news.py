"""What is told of a run while it lasts."""

import threading
from pathlib import Path

import pytest
import report_samples as samples

from kproxy.lab import news
from kproxy.traffic import recordfile, records
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


def sender(directory: Path) -> recordfile.RecordWriter:
    return recordfile.RecordWriter(
        directory / "a.sent", recordfile.KIND_SENT, records.SPAN.size, 100, "a"
    )


def span(first: int, number: int) -> bytes:
    return records.SPAN.pack(records.STATUS_SENT, number, first, 1)


def test_packets_sent_are_counted_as_they_are_recorded(tmp_path: Path) -> None:
    counts = news.Counts(tmp_path)
    assert counts.sent() == 0
    file = sender(tmp_path)
    assert counts.sent() == 0
    file.append(span(0, 10) + span(10, 20), 2)
    assert counts.sent() == 30
    file.append(span(30, 5), 1)
    assert counts.sent() == 5
    file.close()
    file = sender(tmp_path)
    file.append(span(0, 2), 1)
    assert counts.sent() == 2
    file.close()


def test_packets_received_are_counted_without_what_stands_between_them(tmp_path: Path) -> None:
    counts = news.Counts(tmp_path)
    packet = records.pack_received(records.Received(1, 1, 5_000_000_000, 5_000_000_001, "a"))
    for name in ("a", "b"):
        file = recordfile.RecordWriter(
            tmp_path / f"{name}.received",
            recordfile.KIND_RECEIVED,
            records.RECEIVED_SIZE,
            100,
            name,
        )
        file.append(records.section(1, 5, 1) + packet * 3, 4)
        assert counts.received() == 3
        file.append(records.section(1, 5, 1) + packet, 2)
        assert counts.received() == 1
        file.close()
    (tmp_path / "c.received").write_bytes(b"begun")
    assert counts.received() == 0


def test_rates_are_told_at_intervals_in_real_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news, "EVERY_S", 0.001)
    monkeypatch.setattr(news, "LEAST_S", 0)
    heard = threading.Event()
    with news.watched(tmp_path, lambda said: heard.set()):
        assert heard.wait(60)
    threads = threading.active_count()
    monkeypatch.setattr(base, "clock", lambda: base.Clock.VIRTUAL)
    told: list[news.News] = []
    file = sender(tmp_path)
    with news.watched(tmp_path, told.append) as happened:
        assert threading.active_count() == threads
        file.append(span(0, 7), 1)
        assert told == []
        happened("fault")
    file.close()
    assert told[0] == news.Happened(name="fault")
    assert isinstance(told[1], news.Rates)
    assert told[1].sent > 0
    assert told[1].received == 0

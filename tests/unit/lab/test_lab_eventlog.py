"""The time line is read as it grows, in the order of the clock."""

from pathlib import Path

import pytest

from kproxy import errors, logs
from kproxy.lab.eventlog import EventLog


def write(path: Path, who: str, *messages: str) -> None:
    with path.open("a") as file:
        log = logs.Log(who, stream=file)
        for message in messages:
            log.info(message, number=7)


def test_lines_of_several_files_are_in_the_order_of_the_clock(tmp_path: Path) -> None:
    events = EventLog(tmp_path)
    write(tmp_path / "b.log", "second", "one")
    write(tmp_path / "a.log", "first", "two")
    write(tmp_path / "b.log", "second", "three")
    assert [(e.source, e.msg) for e in events.refresh()] == [
        ("b", "one"),
        ("a", "two"),
        ("b", "three"),
    ]
    assert events.events[0].fields == {"number": 7}
    assert events.events[0].who == "second"


def test_only_new_lines_are_returned_and_half_a_line_waits(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    events = EventLog(tmp_path)
    write(path, "x", "one")
    events.refresh()
    with path.open("a") as file:
        file.write('{"mono_ns": 5, "who": "x", "level": "info", "ms')
    assert events.refresh() == []
    with path.open("a") as file:
        file.write('g": "two"}\n')
    assert [e.msg for e in events.refresh()] == ["two"]


def test_waiting_finds_events_since_a_time_only(tmp_path: Path) -> None:
    events = EventLog(tmp_path)
    write(tmp_path / "a.log", "x", "synced", "synced")
    events.refresh()
    first, second = events.events
    found = events.wait(
        lambda e: e.msg == "synced", why="a sync", timeout=0, since_ns=first.mono_ns + 1
    )
    assert found is second


def test_waiting_in_vain_names_what_for_and_the_last_trouble(tmp_path: Path) -> None:
    events = EventLog(tmp_path)
    (tmp_path / "node1.log").write_text("Traceback: something broke\n")
    with pytest.raises(errors.MeasurementError, match=r"a sync.*node1.*something broke"):
        events.wait(lambda e: False, why="a sync", timeout=0)

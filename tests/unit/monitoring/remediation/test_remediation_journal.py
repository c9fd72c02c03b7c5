import os
from pathlib import Path
from typing import Any

import pytest
from remediation_alerts import START, alert, notification

from kproxy.errors import UsageError
from kproxy.monitoring.remediation import journal as journals
from kproxy.monitoring.remediation import webhook
from kproxy.monitoring.remediation.book import Policy
from kproxy.monitoring.remediation.journal import Journal, JournalFailed, Line
from kproxy.monitoring.remediation.ledger import Ledger
from kproxy.monitoring.remediation.records import Began, Ended, Notified, Result, Snapshot, Started
from kproxy.monitoring.remediation.seams import Limits
from kproxy.monitoring.remediation.settings import Guards
from kproxy.monitoring.remediation.state import State

RECORDS = [Started(at=float(number), pid=number) for number in range(1, 4)]


def opened(directory: Path, **sizes: int) -> Journal:
    return Journal(directory, **{"file_bytes": 1 << 20, "files": 3, **sizes})


def state() -> State:
    return State(Guards(), lambda _: Limits())


def fill(directory: Path) -> Path:
    with opened(directory) as one:
        for record in RECORDS:
            one.append(record)
    return journals.files(directory)[0]


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    fill(tmp_path)
    with opened(tmp_path) as one:
        assert list(one.replay()) == RECORDS
    assert list(journals.read(tmp_path)) == RECORDS


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_torn_last_line_is_dropped_and_the_next_is_whole(tmp_path: Path, cut: int) -> None:
    path = fill(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    with opened(tmp_path) as one:
        assert list(one.replay()) == RECORDS[:2]
        assert one.skipped == 1
        one.append(RECORDS[0])
    assert list(journals.read(tmp_path)) == [*RECORDS[:2], RECORDS[0]]


def test_a_changed_line_is_left_out(tmp_path: Path) -> None:
    path = fill(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"pid":2', b'"pid":9'))
    with opened(tmp_path) as one:
        assert list(one.replay()) == [RECORDS[0], RECORDS[2]]
        assert one.skipped == 1


def test_a_line_of_another_release_is_left_out() -> None:
    line = Line.write(RECORDS[0]).replace(b"started", b"unknown")
    assert Line.read(line) is None


def test_two_receivers_do_not_use_one_journal(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(UsageError, match="another receiver"):
        opened(tmp_path)
    with opened(tmp_path):
        pass


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot use the journal"):
        opened(tmp_path / "file")


def test_files_are_rotated_and_bounded_and_each_begins_with_everything(tmp_path: Path) -> None:
    policy = Policy({"mend": frozenset()}, 1e9, 100, 900.0)
    with opened(tmp_path, file_bytes=2000, files=3) as one:
        ledger = Ledger(state(), one)
        for number in range(40):
            body = notification(alert(f"n{number % 4}", starts=START + number))
            ledger.accept(webhook.decode(body), "peer", policy)
        known = ledger.state.snapshot(0.0).known
    files = journals.files(tmp_path)
    assert files[0].name > "journal-000001.jsonl"
    assert len(files) == 3
    assert all(
        isinstance(Line.read(path.read_bytes().split(b"\n")[0]), Snapshot) for path in files
    )
    with opened(tmp_path) as one:
        assert Ledger(state(), one).state.snapshot(0.0).known == known


def test_what_cannot_be_written_is_not_known_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as one:
        ledger = Ledger(state(), one)
        ledger.write(RECORDS[0])

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", full)
            with pytest.raises(JournalFailed, match="No space left"):
                ledger.accept(webhook.decode(notification(alert())), "", _policy())
        assert ledger.state.waiting() == []
        assert ledger.failures == 1
        ledger.accept(webhook.decode(notification(alert())), "", _policy())
        assert len(ledger.state.waiting()) == 1
    written = list(journals.read(tmp_path))
    assert [type(record) for record in written] == [Started, Notified]


def test_what_has_happened_is_known_also_if_it_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as one:
        ledger = Ledger(state(), one)
        ledger.accept(webhook.decode(notification(alert())), "", _policy())
        name, _ = ledger.state.waiting()[0]

        def full(*_: Any) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "fsync", full)
        record = Ended(
            at=1.0, instance=name, action="mend", target="", result=Result.FAILED, why=""
        )
        assert not ledger.note(record)
        assert ledger.state.waiting() == []


def test_what_could_not_be_written_when_it_happened_is_written_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as one:
        ledger = Ledger(state(), one)
        ledger.accept(webhook.decode(notification(alert())), "", _policy())
        name, _ = ledger.state.waiting()[0]
        ledger.write(Began(at=START, instance=name, action="mend", target="Node/n1", why=""))
        ended = Ended(
            at=START + 1,
            instance=name,
            action="mend",
            target="Node/n1",
            result=Result.HELPED,
            why="",
        )
        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", _fail)
            assert not ledger.note(ended)
        ledger.write(RECORDS[0])
        known = ledger.state.snapshot(0.0)
    assert list(journals.read(tmp_path))[-2:] == [ended, RECORDS[0]]
    with opened(tmp_path) as one:
        assert Ledger(state(), one).state.snapshot(0.0) == known
    assert known.guards.lease == ""


def _fail(*_: object) -> None:
    raise OSError(5, "Input/output error")


def test_what_is_torn_and_could_not_be_cut_off_spoils_no_later_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as one:
        one.append(RECORDS[0])
        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", _fail)
            broken.setattr(os, "ftruncate", _fail)
            for _ in range(2):
                with pytest.raises(JournalFailed):
                    one.append(RECORDS[1])
        one.append(RECORDS[2])
    assert list(journals.read(tmp_path)) == [RECORDS[0], RECORDS[2]]


def test_a_file_that_could_not_be_begun_is_not_read_instead_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as one:
        one.append(RECORDS[0])
        with monkeypatch.context() as broken:
            broken.setattr(journals, "_sync_directory", _fail)
            with pytest.raises(JournalFailed, match="Input/output"):
                one.rotate(state().snapshot(1.0))
        one.append(RECORDS[1])
    with opened(tmp_path) as one:
        assert list(one.replay()) == RECORDS[:2]


def test_where_a_snapshot_was_changed_the_file_before_it_is_read_too(tmp_path: Path) -> None:
    with opened(tmp_path) as one:
        ledger = Ledger(state(), one)
        ledger.accept(webhook.decode(notification(alert())), "", _policy())
        one.rotate(ledger.state.snapshot(START))
        ledger.accept(webhook.decode(notification(alert("n2"))), "", _policy())
        known = ledger.state.snapshot(START)
    newest = journals.files(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes().replace(b"snapshot", b"snapshoT", 1))
    with opened(tmp_path) as one:
        assert Ledger(state(), one).state.snapshot(START) == known
        assert one.skipped == 1


def test_much_that_is_known_does_not_make_every_record_a_file(tmp_path: Path) -> None:
    with opened(tmp_path, file_bytes=2000) as one:
        ledger = Ledger(state(), one)
        many = (alert(f"n{number}", starts=START) for number in range(50))
        ledger.accept(webhook.decode(notification(*many)), "", _policy())
        assert one.size > 2000
        newest = journals.files(tmp_path)
        for record in RECORDS:
            ledger.write(record)
        assert journals.files(tmp_path) == newest
    with opened(tmp_path, file_bytes=2000) as one:
        assert not one.is_full
        one.append(RECORDS[0])
        assert not one.is_full


def test_only_its_owner_reads_it_and_a_copy_beside_it_is_no_part_of_it(tmp_path: Path) -> None:
    path = fill(tmp_path)
    (tmp_path / "journal-copy.jsonl").write_bytes(path.read_bytes())
    with opened(tmp_path) as one:
        one.rotate(state().snapshot(1.0))
        one.append(RECORDS[0])
    found = journals.files(tmp_path)
    assert [file.name for file in found] == ["journal-000001.jsonl", "journal-000002.jsonl"]
    assert [file.stat().st_mode & 0o777 for file in found] == [0o600, 0o600]


def test_time_does_not_go_back_over_a_restart(tmp_path: Path) -> None:
    future = 4e9
    with opened(tmp_path) as one:
        one.append(Started(at=future, pid=1))
    with opened(tmp_path) as one:
        assert Ledger(state(), one).clock.now() >= future


def test_no_journal_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no journal"):
        list(journals.read(tmp_path))


def _policy() -> Policy:
    return Policy({"mend": frozenset()}, 1e9, 100, 900.0)

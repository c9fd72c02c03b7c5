"""Containers' output to files: times, pieces, long lines, and a successor that reads on."""

import os
import subprocess

import pytest

from kproxy.lab import podlogs
from kproxy.lab.podlogs import PodLogs
from netns.wait import wait_readable


@pytest.fixture
def logs(tmp_path):
    return PodLogs(tmp_path, wall_ns=lambda: 1_500_000_000)


def place(logs: PodLogs, start: int = 0):
    return logs.place("ns", "pod", "uid", "c", start)


def write(logs: PodLogs, *data: bytes, start: int = 0) -> str:
    """Write to a container's stdout, and read it as the kubelet does."""
    with logs.open(place(logs, start)) as (taps, (stdout, _)):
        for one in data:
            os.write(stdout, one)
            assert taps[0].read()
    assert not taps[0].read()
    for tap in taps:
        tap.close(ended=True)
    return place(logs, start).current.read_text()


def test_every_line_has_time_stream_and_tag(logs):
    assert write(logs, b"a\nb", b"c\n") == (
        "1970-01-01T00:00:01.500000000Z stdout F a\n1970-01-01T00:00:01.500000000Z stdout F bc\n"
    )


def test_last_words_without_a_newline_are_kept(logs):
    assert write(logs, b"a\n", b"oh").endswith("Z stdout F oh\n")


def test_long_lines_are_cut_into_parts(logs):
    parts = [line.split(" ", 3)[2:] for line in write(logs, b"x" * 40_000, b"\n").splitlines()]
    assert [(tag, len(text)) for tag, text in parts] == [("P", 16384), ("P", 16384), ("F", 7232)]


def test_full_files_are_put_aside_and_the_oldest_go(logs, monkeypatch):
    monkeypatch.setattr(podlogs, "PIECE_BYTES", 100)
    write(logs, *[b"line %d %s\n" % (number, b"x" * 60) for number in range(20)])
    pieces = place(logs).pieces()
    assert len(pieces) == podlogs.PIECES - 1
    kept = "".join(path.read_text() for path in [*pieces, place(logs).current] if path.exists())
    assert "line 19" in kept
    assert "line 0 " not in kept
    found = logs.find("uid", "c", 0)
    assert found is not None
    assert found.paths == (*pieces, place(logs).current)


def test_a_successor_reads_what_was_written_meanwhile(logs, tmp_path):
    script = "echo before; read x; echo meanwhile; read x; echo after"
    with logs.open(place(logs)) as (taps, (stdout, stderr)):
        child = subprocess.Popen(
            ["sh", "-c", script], stdin=subprocess.PIPE, stdout=stdout, stderr=stderr
        )
    assert child.stdin
    for tap in taps:  # the kubelet is killed
        os.close(tap.fileno())
    child.stdin.write(b"\n")
    child.stdin.flush()
    successor = PodLogs(tmp_path)
    out, _ = successor.left()
    child.stdin.write(b"\n")
    child.stdin.close()
    assert child.wait(60) == 0
    while out.read():
        wait_readable(out.fileno(), 10, "the end of what was written")
    text = place(logs).current.read_text()
    assert [line.rpartition(" ")[2] for line in text.splitlines()] == [
        "before",
        "meanwhile",
        "after",
    ]
    out.close(ended=True)
    assert not place(logs).pipe("stdout").exists()


def test_where_starts_of_a_program_begin_in_its_own_log(logs, tmp_path):
    own = tmp_path / "own.log"
    logs.note_own(place(logs, 0), own)
    own.write_text("first\n")
    logs.note_own(place(logs, 1), own)
    found = [logs.find("uid", "c", start) for start in (0, 1, 2)]
    assert found[0] is not None
    assert (found[0].begin, found[0].end, found[0].plain) == (0, 6, True)
    assert found[1] is not None
    assert (found[1].begin, found[1].end) == (6, None)
    assert found[2] is None


def test_forgotten_logs_are_gone(logs):
    write(logs, b"a\n")
    logs.forget("uid")
    logs.forget("uid")
    assert logs.find("uid", "c", 0) is None


def test_who_writes_without_end_does_not_hold_up_the_reader(logs, monkeypatch):
    with logs.open(place(logs)) as (taps, _):
        got: list[int] = []

        def flood(fd: int, most: int) -> bytes:
            got.append(most)
            assert sum(got) <= podlogs.PIPE_BYTES, "it would read for ever"
            return b"y\n" * (most // 2)

        monkeypatch.setattr(podlogs.os, "read", flood)
        assert taps[0].read()
        monkeypatch.undo()
    assert sum(got) == podlogs.PIPE_BYTES
    for tap in taps:
        tap.close(ended=True)


def test_a_log_that_cannot_be_written_costs_lines_only(logs):
    with logs.open(place(logs)) as (taps, (stdout, _)):
        logs.forget("uid")
        os.write(stdout, b"oh\n")
        assert taps[0].read()
    assert not taps[0].read()
    for tap in taps:
        tap.close(ended=True)


def test_of_the_starts_before_only_the_last_is_kept(logs):
    for start in range(4):
        write(logs, b"start %d\n" % start, start=start)
    kept = [logs.find("uid", "c", start) is not None for start in range(4)]
    assert kept == [False, False, True, True]

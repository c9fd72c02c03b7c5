"""Reading logs: both formats, the end, since when, limits, following, rotation."""

from datetime import UTC, datetime

import pytest

from kproxy import errors
from kproxy.controlplane.containerlogs import LogOptions, Reader, read
from kproxy.controlplane.runtime import LogFiles

NOW = datetime(2026, 11, 26, 10, 0, 10, tzinfo=UTC)


def cri(second: int, text: str, tag: str = "F", stream: str = "stdout") -> str:
    return f"2026-11-26T10:00:{second:02d}.123456789Z {stream} {tag} {text}\n"


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "0.log"
    path.write_text(cri(1, "one") + cri(2, "two", stream="stderr") + cri(3, "three"))
    return LogFiles(paths=(path,))


def options(**query: str) -> LogOptions:
    return LogOptions.parse(query, NOW)


def text(files: LogFiles, **query: str) -> str:
    return b"".join(read(files, options(**query), over=lambda: True)).decode()


def test_all_of_it_in_the_order_of_writing(log):
    assert text(log) == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("query", "lines"),
    [
        ({"tailLines": "2"}, "two\nthree\n"),
        ({"tailLines": "0"}, ""),
        ({"tailLines": "9"}, "one\ntwo\nthree\n"),
        ({"sinceSeconds": "8"}, "two\nthree\n"),
        ({"sinceTime": "2026-11-26T10:00:03Z"}, "three\n"),
        ({"limitBytes": "6"}, "one\ntw"),
        ({"sinceSeconds": "8", "tailLines": "1"}, "three\n"),
    ],
)
def test_parts_of_it(log, query, lines):
    assert text(log, **query) == lines


def test_timestamps_stand_before_lines(log):
    assert text(log, timestamps="true", tailLines="1") == (
        "2026-11-26T10:00:03.123456789Z three\n"
    )


def test_parts_of_a_long_line_are_put_together(tmp_path):
    path = tmp_path / "0.log"
    path.write_text(cri(1, "a", "P") + cri(1, "b", "P") + cri(1, "c") + cri(2, "d"))
    assert text(LogFiles(paths=(path,))) == "abc\nd\n"
    assert text(LogFiles(paths=(path,)), timestamps="1").count("2026") == 2


def test_pieces_are_read_in_order(tmp_path):
    for name, line in (("0.log.1", "one"), ("0.log.2", "two"), ("0.log", "three")):
        (tmp_path / name).write_text(cri(1, line))
    paths = tuple(tmp_path / name for name in ("0.log.1", "0.log.2", "0.log"))
    assert text(LogFiles(paths=paths)) == "one\ntwo\nthree\n"


def test_lines_that_carry_their_own_time(tmp_path):
    path = tmp_path / "own.log"
    lines = [
        '{"time": "2026-11-26T10:00:01.5Z", "msg": "old"}\n',
        '{"time": "2026-11-26T10:00:05.5Z", "msg": "new"}\n',
        "Traceback of some kind\n",
    ]
    path.write_text("".join(lines))
    first = len(lines[0])
    assert text(LogFiles(paths=(path,), plain=True, end=first)) == lines[0]
    assert text(LogFiles(paths=(path,), plain=True, begin=first)) == lines[1] + lines[2]
    since = text(LogFiles(paths=(path,), plain=True), sinceSeconds="6", timestamps="true")
    assert since == "".join(f"2026-11-26T10:00:05.5Z {line}" for line in lines[1:])


def test_following_until_the_container_has_ended(log):
    path = log.paths[0]
    over = False
    pieces = read(log, options(follow="true", tailLines="1"), over=lambda: over)
    assert next(pieces) == b"three\n"
    assert next(pieces) == b""
    with path.open("a") as file:
        file.write(cri(4, "four") + "2026-11-26T10:00:05")
    assert next(pieces) == b"four\n"
    assert next(pieces) == b""
    with path.open("a") as file:
        file.write(".1Z stdout F five\n")
    over = True
    assert list(pieces) == [b"five\n"]


def test_following_over_a_rotation_loses_nothing(log):
    path = log.paths[0]
    over = False
    pieces = read(log, options(follow="true", tailLines="0"), over=lambda: over)
    assert next(pieces) == b""
    with path.open("a") as file:
        file.write(cri(4, "four"))
    path.rename(path.with_suffix(".log.1"))
    path.write_text(cri(5, "five"))
    assert next(pieces) == b"four\n"
    assert next(pieces) == b"five\n"
    over = True
    assert list(pieces) == []


def test_what_is_written_last_before_a_rotation_is_read(log, monkeypatch):
    """Between the reader's last look at the file and the moment at which it is put aside."""
    path = log.paths[0]
    original = Reader._rotated

    def rotated(reader, file) -> bool:
        monkeypatch.setattr(Reader, "_rotated", original)
        with path.open("a") as last:
            last.write(cri(4, "last words"))
        path.rename(path.with_suffix(".log.1"))
        path.write_text(cri(5, "five"))
        return original(reader, file)

    monkeypatch.setattr(Reader, "_rotated", rotated)
    assert text(log, tailLines="2") == "last words\nfive\n"


def test_a_file_that_comes_later_is_followed(tmp_path):
    path = tmp_path / "0.log"
    pieces = read(LogFiles(paths=(path,)), options(follow="true"), over=lambda: False)
    assert next(pieces) == b""
    path.write_text(cri(1, "one"))
    assert next(pieces) == b"one\n"


@pytest.mark.parametrize(
    "query",
    [
        {"tailLines": "x"},
        {"tailLines": "-1"},
        {"sinceSeconds": "0"},
        {"sinceTime": "yesterday"},
        {"limitBytes": "0"},
    ],
)
def test_wrong_parameters_are_named(query):
    with pytest.raises(errors.ApiError, match=next(iter(query))) as caught:
        options(**query)
    assert caught.value.code == 422

"""The logs of a cluster's parts, for people: by name, together in order, and as they grow."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from kproxy import errors
from kproxy.lab.filewatch import FileWatch

_SUFFIXES = (".log", ".txt")
_FOREVER = 3600.0
_HIDDEN = ("time", "mono_ns", "level", "msg", "who")


def names(directory: Path) -> list[str]:
    """Return the names of all logs."""
    return sorted(path.stem for path in directory.iterdir() if path.suffix in _SUFFIXES)


def select(directory: Path, wanted: Sequence[str]) -> list[Path]:
    """Return the logs that names mean.

    ``control1-apiserver``, ``control1/apiserver``, a host, or a part of every host
    (``apiserver``). Raises UsageError, which tells the names there are.
    """
    found: dict[Path, None] = {}
    for name in wanted:
        text = name.replace("/", "-")
        those = [
            path
            for path in sorted(directory.iterdir())
            if path.suffix in _SUFFIXES
            and (
                path.stem == text
                or path.stem.startswith((f"{text}-", f"{name.replace('/', '_')}_"))
                or path.stem.endswith((f"-{text}", f"_{text}"))
            )
        ]
        if not those:
            known = ", ".join(names(directory))
            raise errors.UsageError(f"there is no log {name!r}", remedy=f"there are: {known}")
        found |= dict.fromkeys(those)
    return list(found)


def show(directory: Path, wanted: Sequence[str], *, follow: bool, tail: int, raw: bool) -> None:
    """Print logs, in the order of their times; without names, the names that there are.

    ``tail``: only so many of the last lines, -1: all. ``follow``: and what comes, for ever.
    """
    if not wanted:
        print("\n".join(names(directory)))
        return
    paths = select(directory, wanted)
    offsets = dict.fromkeys(paths, 0)
    watch = FileWatch(directory)
    try:
        lines = _fresh(offsets)
        _print(lines[-tail:] if tail > 0 else lines if tail else [], len(paths) > 1, raw)
        while follow:
            watch.wait(_FOREVER)
            watch.changed()
            _print(_fresh(offsets), len(paths) > 1, raw)
    finally:
        watch.close()


def text_of(line: bytes) -> str:
    """Return a log line for people; what is no line of ours stays as it is."""
    fields = _fields(line)
    if "msg" not in fields or "time" not in fields:
        return line.decode(errors="replace")
    level = fields.get("level", "info")
    mark = "" if level == "info" else f"{level}: "
    rest = " ".join(f"{key}={_value(one)}" for key, one in fields.items() if key not in _HIDDEN)
    return f"{fields['time'][11:23]} {mark}{fields['msg']} {rest}".rstrip()


def _fresh(offsets: dict[Path, int]) -> list[tuple[int, str, bytes]]:
    """Return the new whole lines of all files, by their times: (time, name, line)."""
    found: list[tuple[int, str, bytes]] = []
    for path, offset in offsets.items():
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        offsets[path] = offset + whole
        found += _timed(path.stem, data[:whole])
    found.sort(key=lambda line: line[0])
    return found


def _timed(name: str, data: bytes) -> Iterator[tuple[int, str, bytes]]:
    """Yield the lines of a file. One without a time belongs to the one before."""
    last = 0
    for line in data.splitlines():
        value = _fields(line).get("mono_ns", last)
        last = value if isinstance(value, int) else last
        yield last, name, line


def _fields(line: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}


def _value(value: Any) -> str:
    if isinstance(value, str) and value and " " not in value:
        return value
    return msgspec.json.encode(value).decode()


def _print(lines: Sequence[tuple[int, str, bytes]], named: bool, raw: bool) -> None:
    for _, name, line in lines:
        text = line.decode(errors="replace") if raw else text_of(line)
        sys.stdout.write(f"{name:<24} {text}\n" if named else f"{text}\n")
    sys.stdout.flush()

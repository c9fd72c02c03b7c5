"""How result files of every kind are written and read: JSON, whole or not at all.

A reader knows the versions of a format up to its own. What an older version said in other words
is put into today's (:func:`upgraded`), so whoever converts a decoded file goes through that.
"""

import os
import re
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from kproxy.errors import UsageError

T = TypeVar("T")

_FIRST = ("format", "kernel", "host", "parameters", "summary")
_NUMBERS = re.compile(rb"\[\n\s+((?:-?[0-9.eE+-]+,\s+)*-?[0-9.eE+-]+)\n\s*\]")


def write(results: Any, path: Path) -> None:
    """Write a result (a dataclass), what matters first; the directory is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(_ordered(results)), indent=2)
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(_NUMBERS.sub(_on_one_line, text) + b"\n")
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _on_one_line(numbers: re.Match[bytes]) -> bytes:
    """Return a list of numbers as one line: a series of thousands is not read down a page."""
    return b"[" + b", ".join(re.split(rb",\s+", numbers[1])) + b"]"


def _ordered(results: Any) -> dict[str, Any]:
    names = [one.name for one in fields(results)]
    ordered = sorted(names, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    return {name: getattr(results, name) for name in ordered}


def read(path: Path, wanted: type[T], form: str) -> T:
    """Read a file; ``form`` is the newest FAMILY/VERSION that is understood.

    Raises :class:`~kproxy.errors.UsageError` for a file that is missing, cut, of another format
    or of a newer version, or whose fields have wrong types; it names the field.
    """
    try:
        data = path.read_bytes()
    except OSError as err:
        raise UsageError(f"{path}: {err.strerror}") from None
    try:
        top = msgspec.json.decode(data)
    except (ValueError, RecursionError) as err:  # not UTF-8, nested without end, a DecodeError
        raise UsageError(f"{path}: cut, or not JSON: {err}", remedy="run again") from None
    found = top.get("format") if isinstance(top, dict) else None
    _check_format(path, found, form)
    try:
        return msgspec.convert({**upgraded(top), "format": form}, wanted)
    except msgspec.ValidationError as err:
        raise UsageError(f"{path}: {err}") from None


def _check_format(path: Path, found: object, form: str) -> None:
    family, _, version = found.partition("/") if isinstance(found, str) else ("", "", "")
    wanted_family, _, newest = form.partition("/")
    if family != wanted_family:
        raise UsageError(
            f"{path}: format: is {found!r}, not {form!r}", remedy="name a result.json of kproxy"
        )
    if version not in map(str, range(1, int(newest) + 1)):
        raise UsageError(
            f"{path}: format: {found!r} is not what this kproxy reads ({form!r})",
            remedy="read it with the kproxy that wrote it",
        )


def upgraded(top: dict[str, Any]) -> dict[str, Any]:
    """Return a decoded file of any kind in the words of today's version.

    In version 1 a measurement's ``unexplained`` was what is ``outside_fault`` now. What is not as
    it should be is left as it is.
    """
    form = top.get("format")
    if not isinstance(form, str) or not form.endswith("/1"):
        return top
    found = {**top}
    if isinstance(trials := top.get("trials"), list):
        found["trials"] = [_renamed(one) for one in trials]
    whole: dict[str, Any] = _renamed(found)
    return whole


def _renamed(holder: Any) -> Any:
    measurements = holder.get("measurements") if isinstance(holder, dict) else None
    if not isinstance(measurements, list):
        return holder
    return {**holder, "measurements": [_measurement(one) for one in measurements]}


def _measurement(one: Any) -> Any:
    if not isinstance(one, dict) or "unexplained" not in one:
        return one
    renamed = {name: value for name, value in one.items() if name != "unexplained"}
    return {**renamed, "outside_fault": one["unexplained"]}

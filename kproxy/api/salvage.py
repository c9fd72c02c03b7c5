"""What can be saved of JSON that cannot be decoded: its parts, cut out as text.

An API server hands out many objects in one text. One of them that is nested too deeply, or holds
letters or numbers that JSON does not have, makes a decoder refuse all of it. So parts are found by
brackets, commas and quotes alone, however deep they lie, and each is decoded by itself. This is
slow, and only done where decoding has failed.
"""

import contextlib
import re
from typing import Any

import msgspec

from .codec import UNREADABLE

_TEXT = rb'"(?:[^"\\]|\\.)*+"'
_MARK = re.compile(_TEXT + rb'|[\[\]{},"]', re.DOTALL)
_MEMBER = re.compile(rb"\s*(" + _TEXT + rb")\s*:(.*)", re.DOTALL)
_CLOSED_BY = {b"[": b"]", b"{": b"}"}


class Broken(ValueError):
    """Not even brackets and quotes tell what its parts are."""


def elements(raw: bytes) -> list[bytes]:
    """Return the elements of a JSON list as text. Raises :class:`Broken`."""
    return _parts(raw, b"[")


def members(raw: bytes) -> dict[str, bytes]:
    """Return the members of a JSON object as text, but for those without a readable name.

    Raises :class:`Broken`.
    """
    found = {}
    for part in _parts(raw, b"{"):
        if member := _MEMBER.fullmatch(part):
            with contextlib.suppress(*UNREADABLE):
                found[msgspec.json.decode(member[1], type=str)] = member[2].strip()
    return found


def identity(raw: bytes) -> tuple[str, str, str]:
    """Return namespace, name and resourceVersion of an object, as far as it tells them."""
    try:
        meta = members(members(raw).get("metadata", b""))
    except Broken:
        return "", "", ""
    namespace, name, version = (
        _text(meta.get(key)) for key in ("namespace", "name", "resourceVersion")
    )
    return namespace, name, version


def _text(raw: bytes | None) -> str:
    if raw is None:
        return ""
    try:
        found: Any = msgspec.json.decode(raw.decode(errors="replace"))
    except UNREADABLE:
        return ""
    return found if isinstance(found, str) else ""


def _parts(raw: bytes, bracket: bytes) -> list[bytes]:
    """Return what the commas in the outermost brackets separate."""
    found: list[bytes] = []
    still_open: list[bytes] = []
    start = 0
    for mark in _MARK.finditer(raw):
        sign = mark[0]
        if not still_open and (sign != bracket or raw[: mark.start()].strip()):
            break
        if sign in _CLOSED_BY:
            still_open.append(sign)
            start = mark.end() if len(still_open) == 1 else start
        elif sign in b"]}":
            if _CLOSED_BY[still_open.pop()] != sign:
                break
            if not still_open:
                if raw[mark.end() :].strip():
                    break
                last = raw[start : mark.start()].strip()
                return [*found, last] if found or last else []
        elif sign == b"," and len(still_open) == 1:
            found.append(raw[start : mark.start()].strip())
            start = mark.end()
        elif sign == b'"':
            break
    raise Broken("brackets or quotes do not match")

"""What a request asks for besides its target: the options in its query and headers. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from kproxy import errors

Query = Mapping[str, str]
Guard = Callable[[str, dict[str, Any] | None, dict[str, Any]], None]
"""Raise ApiError 403 if an object of this resource may not become another (None: be created)."""

JSON = "application/json"


class Validation(StrEnum):
    """What is done about fields that Kubernetes does not know, or that are there twice."""

    STRICT = "Strict"
    WARN = "Warn"
    IGNORE = "Ignore"


class Propagation(StrEnum):
    """What becomes of the objects that a deleted one owns."""

    BACKGROUND = "Background"
    FOREGROUND = "Foreground"
    ORPHAN = "Orphan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of a request; the defaults are those of a client that sets none."""

    accept: str = JSON
    content_type: str = JSON
    include: str = ""
    """``includeObject``: which part of an object comes with its row of a table."""
    dry_run: bool = False
    validation: Validation = Validation.IGNORE
    manager: str = ""
    force: bool = False
    guard: Guard | None = None
    """Judges what is about to be written, for a client that may not write everything."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status, a body, and what goes into the headers."""

    code: int
    body: bytes
    content_type: str = JSON
    warnings: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


DEFAULT = Options()


def options(query: Query, accept: str, content_type: str) -> Options:
    """Return the options of a request. Raises ApiError 400 for values that mean nothing."""
    dry_run = query.get("dryRun", "")
    if dry_run not in ("", "All"):
        raise errors.ApiError(400, "BadRequest", f"dryRun: {dry_run!r}: known is All")
    validation = query.get("fieldValidation") or Validation.IGNORE
    if validation not in Validation.__members__.values():
        message = f"fieldValidation: {validation!r}: known are Strict, Warn and Ignore"
        raise errors.ApiError(400, "BadRequest", message)
    return Options(
        accept=accept or JSON,
        content_type=content_type.partition(";")[0].strip().lower() or JSON,
        include=query.get("includeObject", ""),
        dry_run=bool(dry_run),
        validation=Validation(validation),
        manager=query.get("fieldManager", ""),
        force=truth(query, "force"),
    )


def truth(query: Query, name: str) -> bool:
    """Return a parameter that is true or false; absent is false."""
    return query.get(name) in ("true", "1", "True")


def number(query: Query, name: str, default: int) -> int:
    """Return a parameter that is a whole number. Raises ApiError 400."""
    text = query.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise errors.ApiError(400, "BadRequest", f"{name}: {text!r} is not a number")
    return int(text)

"""The file of a cost model: its types, how it is read and written, and what it says of a size.

One JSON object. Each entry holds the cost of one place of one process: a constant and terms per
service and per endpoint, and where these numbers come from: kernel, machine, date, and
the measured points. :mod:`kproxy.costs` has the names of processes and places. All times are
seconds.
"""

from pathlib import Path
from typing import Any

import msgspec

from kproxy.errors import UsageError

FORMAT = "kproxy.costs/1"


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A misspelt field must not silently be a cost of 0."""


class Terms(_Strict, frozen=True, kw_only=True):
    """A cost as a function of size: none of the terms is negative."""

    constant: float = 0.0
    per_service: float = 0.0
    per_endpoint: float = 0.0

    def at(self, services: int, endpoints: int) -> float:
        """Return the cost at a size; ``endpoints`` are those of all services together."""
        return self.constant + self.per_service * services + self.per_endpoint * endpoints


class Point(_Strict, frozen=True, kw_only=True):
    """What was measured at one size, over ``n`` runs."""

    services: int
    endpoints: int
    n: int
    median: float
    min: float
    max: float


class Entry(_Strict, frozen=True, kw_only=True):
    """The cost of one place. ``mode`` is empty where the mode makes no difference.

    ``busy``: other work had the CPUs, too, when this was measured, so it is too large.
    """

    process: str
    place: str
    mode: str = ""
    seconds: Terms
    kernel: str
    machine: str
    date: str
    busy: bool = False
    points: tuple[Point, ...] = ()


class Model(_Strict, frozen=True, kw_only=True):
    """A whole cost model. A place without an entry costs nothing."""

    format: str = FORMAT
    name: str
    entries: tuple[Entry, ...]

    def entry(self, process: str, place: str, mode: str = "") -> Entry | None:
        """Return the entry of this mode, else the one for any mode, else None."""
        found = {
            one.mode: one
            for one in self.entries
            if (one.process, one.place) == (process, place) and one.mode in (mode, "")
        }
        return found.get(mode) or found.get("")

    def seconds(
        self, process: str, place: str, mode: str = "", *, services: int = 0, endpoints: int = 0
    ) -> float:
        """Return what a place costs at a size, to the microsecond; 0 if nothing is said of it."""
        entry = self.entry(process, place, mode)
        return round(entry.seconds.at(services, endpoints), 6) if entry else 0.0


def read(path: Path) -> Model:
    """Read a model. Raises UsageError naming file, field and remedy."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cost model {path}: {error.strerror}",
            remedy="make one: kproxy bench costs --out FILE",
        ) from None
    return parse(data, f"cost model {path}")


def parse(data: bytes, name: str) -> Model:
    """Return the model in a JSON text; ``name`` is what errors call it. Raises UsageError."""
    try:
        top = msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise UsageError(f"{name}: no JSON object: {error}") from None
    if top.get("format") != FORMAT:
        raise UsageError(
            f"{name}: format: is {top.get('format')!r}, not {FORMAT!r}",
            remedy="make one: kproxy bench costs --out FILE",
        )
    try:
        model = msgspec.convert(top, Model)
    except msgspec.ValidationError as error:
        raise UsageError(f"{name}: {error}") from None
    _check(model, name)
    return model


def _check(model: Model, name: str) -> None:
    """Raise UsageError for what types do not say."""
    seen: set[tuple[str, str, str]] = set()
    for number, entry in enumerate(model.entries):
        where = f"{name}: entries[{number}] ({entry.process} {entry.place} {entry.mode})"
        terms = entry.seconds
        for field in ("constant", "per_service", "per_endpoint"):
            if getattr(terms, field) < 0:
                raise UsageError(
                    f"{where}: seconds.{field}: {getattr(terms, field):g} is less than nothing",
                    remedy="costs are seconds, 0 or more",
                )
        key = (entry.process, entry.place, entry.mode)
        if key in seen:
            raise UsageError(f"{where}: is there twice", remedy="keep one of the two")
        seen.add(key)


def encode(model: Model) -> bytes:
    """Return the text of a model."""
    return msgspec.json.format(msgspec.json.encode(model), indent=2) + b"\n"


def merged(first: Model, second: Model) -> Model:
    """Return both models as one; where both have an entry, the second one's counts."""
    entries = {(e.process, e.place, e.mode): e for e in (*first.entries, *second.entries)}
    return Model(name=first.name, entries=tuple(entries[key] for key in sorted(entries)))

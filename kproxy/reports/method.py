"""How it was measured, on what, how well, and which trials do not count. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kproxy.reports import chaintable, tables
from kproxy.reports.document import Block, Cell, Grid, Part, Section, Tone, Words, plain
from kproxy.reports.reading import Loaded
from kproxy.reports.view import View
from kproxy.traffic.resultset import ResultSet, SenderQuality

LEFT_OUT = {"manifests", "notes", "incomplete", "costs", "lossless", "left_out"}
"""Parameters that are said elsewhere, or are too long for a table."""
METHOD = (
    "Packets are sent at a constant rate in flows; each carries its flow, number and time of "
    "sending. Lost: not received within Tmax (RFC 7680).",
    "Failover time: between the sending of the last good packet before the loss and of the first "
    "good one after it, slowest flow (RFC 6414, timestamp-based method).",
    "hit: the node that something was done to; other: another one; outside: beyond the load "
    "balancer.",
    "A trial is not valid if the tester itself may have caused what was seen. Where a row of a "
    "comparison has such a trial, it says so and no more. Sums (what it came to, where packets "
    "died) are over all trials.",
)


def section(loaded: Sequence[Loaded], view: View) -> Section:
    """Return the section."""
    blocks: list[Block] = [Part("Method", (Words(METHOD),))]
    for one in loaded:
        about = f": {one.label}" if len(loaded) > 1 else ""
        blocks.append(Part(f"Notes{about}", (Words(tuple(_notes(one))),)))
    blocks.append(Part("Invalid trials", tuple(_invalid(view))))
    quality = _quality(view)
    if quality is not None:
        blocks.append(Part("Tester", (quality,)))
    blocks.append(Part("Machine, kernel, parameters", (_facts(loaded),)))
    return Section(
        anchor="method",
        title="Method, machine, tester",
        intro="What must be known to believe the numbers, or not to.",
        blocks=tuple(blocks),
    )


def _notes(one: Loaded) -> Iterable[str]:
    found = one.results
    said = tables.notes(found) if isinstance(found, ResultSet) else chaintable.notes(found)
    yield from (line for line in said if not line.startswith("NOT VALID"))
    yield from (str(note) for note in found.parameters.get("notes") or ())
    for how in found.parameters.get("incomplete") or ():
        yield f"The run is incomplete: {how}."


def _invalid(view: View) -> Iterable[Block]:
    bad = [shot for shot in view.shots if shot.problems]
    if not bad:
        yield Words((f"All {len(view.shots)} trials are valid.",), Tone.GOOD)
        return
    yield Grid(
        title=f"{len(bad)} of {len(view.shots)} trials are not valid",
        head=("", "case", "trial", "why"),
        rows=tuple(
            (
                Cell(shot.column),
                Cell(shot.case),
                Cell(str(shot.number)),
                Cell("\n".join(shot.problems), Tone.BAD),
            )
            for shot in bad
        ),
    )


Taken = Callable[[SenderQuality], float | None]
_QUALITY: tuple[tuple[str, Taken, bool], ...] = (
    ("sends later than the threshold", lambda q: q.late, False),
    ("lateness, p99 (ms)", lambda q: q.lateness_p99_ms, False),
    ("lateness, greatest (ms)", lambda q: q.lateness_max_ms, False),
    ("sends that failed", lambda q: q.failed, True),
    ("not sent", lambda q: q.not_sent, True),
    ("largest gap within a flow (ms)", lambda q: q.largest_gap_ms, False),
    ("woken too late, greatest (ms)", lambda q: q.timer_error_max_ms, False),
    ("dropped by the kernel's backlog", lambda q: q.backlog_drops, True),
    ("dropped by receivers", lambda q: q.receiver_drops, True),
    ("error of the receivers' clock (ms)", lambda q: q.clock_error_ms, False),
)


def _quality(view: View) -> Grid | None:
    """Return the worst of all trials of each column; None if nobody says."""
    by_column = {
        column: [
            m.sender
            for shot in view.shots
            if shot.column == column
            for m in shot.measurements
            if m.sender is not None
        ]
        for column in view.columns
    }
    there = {column: found for column, found in by_column.items() if found}
    if not there:
        return None
    rows = []
    for name, taken, none_allowed in _QUALITY:
        cells = [_worst(map(taken, found), none_allowed) for found in there.values()]
        rows.append((Cell(name), *cells))
    return Grid(
        title="The tester's own errors, in the worst trial",
        head=("", *there),
        rows=tuple(rows),
        note="Outages are judged by the real times of sending, so a late packet costs accuracy, "
        "not truth.",
    )


def _worst(values: Iterable[float | None], none_allowed: bool) -> Cell:
    """Return the greatest of the values; a dash where no sender has told any."""
    known = [value for value in values if value is not None]
    if not known:
        return Cell("–")
    worst = round(max(known), 3)
    return Cell(f"{worst:,g}", Tone.BAD if none_allowed and worst else Tone.PLAIN)


def _facts(loaded: Sequence[Loaded]) -> Grid:
    """Return what the results say of kernel, machine and parameters; a column for each."""
    told: list[dict[str, str]] = []
    for one in loaded:
        results = one.results
        found = {"file format": results.format}
        for name, part in (("kernel", results.kernel), ("host", results.host)):
            found.update(_flat(name, part))
        wanted = {k: v for k, v in results.parameters.items() if k not in LEFT_OUT}
        found.update(_flat("", wanted))
        costs = results.parameters.get("costs")
        if isinstance(costs, Mapping):
            found["cost model"] = str(costs.get("name", "unnamed"))
        told.append(found)
    names = dict.fromkeys(name for found in told for name in found)
    rows = tuple(plain(name, *(found.get(name, "–") for found in told)) for name in names)
    return Grid(title="", head=("", *(one.label for one in loaded)), rows=rows)


def _flat(prefix: str, values: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix} {key}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            found.update(_flat(name, value))
        elif isinstance(value, (list, tuple)):
            found[name] = ", ".join(_word(one) for one in value) or "–"
        elif value is not None:
            found[name] = _word(value)
    return found


def _word(value: Any) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)

"""The comparison as tables for a terminal: a row per scenario and node, a column per mode.

Two tables: packets (UDP probes: lost, and failover time), and TCP (requests on open connections,
new connections). A cell shows the median over the trials and, where the trials differ, the range;
with enough trials also the 95 % interval of confidence of the median, and the modes than which a
figure is less or greater: only where the test says so (:mod:`kproxy.traffic.statistics`).
Zero loss is written "no loss" (RFC 6201, section 4); "–" means that a figure does not apply. A
figure with ``*`` is modelled: the share beside it (the median over the trials) is declared delays
of a cost model.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from kproxy.traffic import statistics
from kproxy.traffic.resultset import ResultSet, Row, Spread, Verdict

NODES = ("hit", "other")
MODELLED = "*"


def spread_text(spread: Spread | None, unit: str = "") -> str:
    """Return ``median (min–max) unit``, or without the range where all trials agree."""
    if spread is None or spread.median is None:
        return "–"
    known = [value for value in (spread.median, spread.min, spread.max) if value is not None]
    # All of them alike: "50 (45.0–50)" would tell of a difference in accuracy.
    digits = 0 if spread.median >= 100 or all(round(v, 1) == round(v) for v in known) else 1
    text = f"{spread.median:.{digits}f}"
    least, most = (
        f"{value:.{digits}f}" if value is not None else "?" for value in (spread.min, spread.max)
    )
    if least != most:
        text += f" ({least}–{most})"
    return f"{text} {unit}".rstrip()


def confidence_text(spread: Spread | None) -> str:
    """Return ``[low–high]``, the interval of the median; empty with too few trials for one."""
    if spread is None or spread.confidence is None or spread.median is None:
        return ""
    bounds = (spread.confidence.low, spread.confidence.high)
    digits = 0 if spread.median >= 100 else 1
    low, high = (f"{one:.{digits}f}" if one is not None else "?" for one in bounds)
    return f"[{low}–{high}]"


def differences_text(row: Row, figure: str) -> str:
    """Return ``< MODE, …`` and ``> MODE, …`` for the modes that a figure differs from."""
    found = []
    for verdict, sign in ((Verdict.LESS, "<"), (Verdict.GREATER, ">")):
        modes = [
            one.mode for one in row.differences if (one.figure, one.verdict) == (figure, verdict)
        ]
        if modes:
            found.append(f"{sign} {', '.join(modes)}")
    return " ".join(found)


def packets_table(results: ResultSet) -> Table:
    """Return the table of packets lost and failover times."""
    table = _table(results, "Packets lost and failover time, median (min–max)")
    for scenario, node in itertools.product(_scenarios(results.summary), NODES):
        rows = [_find(results.summary, mode, scenario, node, "udp") for mode in _modes_of(results)]
        _add_row(table, scenario, node, [_packets_cell(results, row) for row in rows])
    return table


def tcp_table(results: ResultSet) -> Table:
    """Return the table of TCP requests and connections that failed, of all trials together."""
    title = "TCP over all trials: failed of attempted"
    table = _table(results, title if _virtual(results) else f"{title}; connect p50 / p99")
    for scenario, node in itertools.product(_scenarios(results.summary), NODES):
        cells = []
        for mode in _modes_of(results):
            established = _find(results.summary, mode, scenario, node, "tcp-established")
            connect = _find(results.summary, mode, scenario, node, "tcp-connect")
            cells.append(_tcp_cell(established, connect))
        _add_row(table, scenario, node, cells)
    return table


def restart_table(results: ResultSet) -> Table | None:
    """Return the table of restart times, or None if no scenario restarts a proxy."""
    modes = _modes(results.summary)
    table = Table(title="Proxy gone → successor synced, median (min–max)", title_justify="left")
    table.add_column("scenario")
    for mode in modes:
        table.add_column(mode, justify="right")
    for scenario in _scenarios(results.summary):
        rows = [_find(results.summary, mode, scenario, "hit", "udp") for mode in modes]
        if any(row and row.restart_to_synced_ms for row in rows):
            table.add_row(scenario, *(_restart_cell(row) for row in rows))
    return table if table.row_count else None


def notes(results: ResultSet) -> list[str]:
    """Return what must be known to read the tables: accuracy, and whatever is not valid."""
    lines = []
    packets = [row for row in results.summary if row.traffic == "udp"]
    accuracies = sorted({row.accuracy_ms for row in packets if row.accuracy_ms})
    if accuracies:
        rates = sorted({row.offered_pps for row in packets if row.offered_pps})
        offered = "–".join(f"{rate:,.0f}" for rate in dict.fromkeys((rates[0], rates[-1])))
        lines.append(
            f"Failover times of packets are within ± {accuracies[0]:.1f} ms in the most certain "
            f"row and ± {accuracies[-1]:.1f} ms in the least ({offered} packets/s from each node)."
        )
    clock, seed = results.kernel.get("clock"), results.parameters.get("seed")
    chance = "left to chance" if seed is None else f"seed {seed}"
    lines.append(f"Clock: {clock}; {chance}; Linux {results.kernel.get('release')}.")
    lines += [f"Not on this kernel: {why}." for why in results.parameters.get("left_out", ())]
    lines += _difference_notes(results)
    lines += _promise_notes(results)
    lines += _clock_notes(results)
    for trial in results.trials:
        for problem in trial.problems:
            lines.append(
                f"NOT VALID: {trial.mode} {trial.scenario} trial {trial.number}: {problem}"
            )
    return lines


def _difference_notes(results: ResultSet) -> list[str]:
    """Return what the marks of differences mean, or why there are none."""
    told = [one for row in results.summary for one in row.differences]
    least = min((row.trials for row in results.summary), default=0)
    if not told:
        return []
    if all(one.verdict is Verdict.TOO_FEW for one in told):
        return [
            f"Too few trials ({least}) to tell differences between modes from chance: "
            f"at least {statistics.LEAST_TRIALS}, better 20 (--trials)."
        ]
    tests = sum(one.p is not None for one in told) // 2
    return [
        "In brackets: 95 % confidence of the median (bootstrap). < and > name the modes than "
        "which a figure is less or greater; where none is named, no difference is shown (exact "
        f"permutation test, p < {statistics.SIGNIFICANCE}, corrected for their number: {tests})."
    ]


def _promise_notes(results: ResultSet) -> list[str]:
    """Return what speaks against the run as a whole, and where a promise was broken."""
    lines = []
    baseline = [trial for trial in results.trials if trial.scenario == "baseline"]
    if results.trials and not baseline:
        lines.append("No baseline was run: whether the tester itself loses packets is not known.")
    elif not all(trial.valid for trial in baseline):
        lines.append("The baseline is not valid, so nothing of this run is.")
    for row in results.summary:
        promised = row.mode not in results.parameters.get("unpromised", ())
        if not promised or row.scenario not in results.parameters.get("lossless", ()):
            continue
        what = "packets" if row.tcp is None else "TCP requests"
        count = row.lost if row.tcp is None else row.tcp.failed
        if count:
            lines.append(
                f"LOST: {row.mode} {row.scenario}, {row.node} node: {count} {what} "
                f"({row.traffic}), where nothing should be lost."
            )
    return lines


def _clock_notes(results: ResultSet) -> list[str]:
    """Return what the virtual clock leaves out and what the cost model puts in."""
    if not _virtual(results):
        return []
    lines = ["Virtual clock: packets cost the data path no time, so connect times are not told."]
    costs = results.parameters.get("costs")
    if any(any(_shares(row)) or _modelled_somewhere(results, row) for row in results.summary):
        name = costs.get("name", "") if isinstance(costs, dict) else ""
        lines.append(
            f"{MODELLED} modelled: so much of this time (and of the loss in it) in the median "
            f"trial is what the cost model {name!r} says that computing takes; the rest is "
            "protocol."
        )
        for mode in _modes(results.summary):
            if _has_no_costs(costs, mode):
                lines.append(f"The cost model has nothing on mode {mode}: its syncs take no time.")
        if _measured_busy(costs):
            lines.append("The cost model was measured on a busy machine: its costs are too large.")
        measured = costs.get("measured", []) if isinstance(costs, dict) else []
        kernels = sorted({re.split("[,;]", text)[0] for text in measured})
        if len(kernels) > 1:
            lines.append(
                f"The model was measured on several kernels ({'; '.join(kernels)}), so do not "
                "compare modes by modelled times."
            )
    elif not costs:
        lines.append("No cost model: these are the times of the protocol, computing takes none.")
    return lines


def _entries(costs: Any) -> Sequence[dict[str, Any]]:
    found = costs.get("model", {}).get("entries", ()) if isinstance(costs, dict) else ()
    return list(found)


def _measured_busy(costs: Any) -> bool:
    return any(entry.get("busy") for entry in _entries(costs))


def _has_no_costs(costs: Any, mode: str) -> bool:
    places = {entry.get("mode") for entry in _entries(costs)}
    # A mode that is switched into, or that has a policy: see kproxy.lab.setups.
    return bool(places) and mode.rpartition(">")[2].partition("+")[0] not in places


def _virtual(results: ResultSet) -> bool:
    return results.kernel.get("clock") == "virtual"


def _shares(row: Row) -> tuple[float | None, ...]:
    share = row.modelled_share
    return (share.failover_time, share.restart_to_synced) if share else ()


def _marked(text: str, share: float | None) -> str:
    return f"{text} {MODELLED}{share:.0%}" if share else text


def _restart_cell(row: Row | None) -> Text:
    if row is None:
        return Text("–")
    if not row.valid:
        return Text("not valid", style="bold red")
    share = row.modelled_share
    spread = row.restart_to_synced_ms
    text = f"{spread_text(spread, 'ms')} {confidence_text(spread)}".rstrip()
    marked = _marked(text, share.restart_to_synced if share else None)
    return Text(_compared(marked, row, "restart_to_synced_ms"))


def _table(results: ResultSet, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("scenario", no_wrap=True)
    table.add_column("node")
    for mode in _modes_of(results):
        table.add_column(mode, justify="right")
    return table


def _add_row(table: Table, scenario: str, node: str, cells: Sequence[Text]) -> None:
    """Add the row of a node; those of a scenario stand together."""
    first, last = node == NODES[0], node == NODES[-1]
    table.add_row(scenario if first else "", node, *cells, end_section=last)


def _packets_cell(results: ResultSet, row: Row | None) -> Text:
    if row is None:
        return Text("–")
    if not row.valid:
        return Text(f"not valid\n({row.lost} of {row.sent} lost)", style="bold red")
    if not row.lost:
        return Text(_compared("no loss", row, "failover_packet_loss"), style="green")
    loss = row.failover_packet_loss
    if row.failover_time_ms is not None and row.failover_time_ms.median is None:
        time = "not recovered"
    else:
        time = spread_text(row.failover_time_ms, "ms")
    lost = f"{spread_text(loss)} lost"
    sure = confidence_text(row.failover_time_ms)
    share = row.modelled_share.failover_time if row.modelled_share else None
    # A median share of nothing still has trials with some in the range that is shown.
    if share or _modelled_somewhere(results, row):
        lost, time = f"{lost}{MODELLED}", f"{time} {MODELLED}{share or 0:.0%}"
    lost = _compared(lost, row, "failover_packet_loss")
    time = _compared(f"{time} {sure}".rstrip(), row, "failover_time_ms")
    return Text(f"{lost}\n{time}", style="yellow")


def _compared(text: str, row: Row, figure: str) -> str:
    """Return a line of a cell with the modes that it differs from in a line below."""
    differs = differences_text(row, figure)
    return f"{text}\n{differs}" if differs else text


def _modelled_somewhere(results: ResultSet, row: Row) -> bool:
    """Return whether the cost model contributes to a failover time of any trial of a row."""
    return any(
        one.modelled_ms
        for trial in results.trials
        if (trial.mode, trial.scenario) == (row.mode, row.scenario)
        for one in trial.measurements
        if (one.node, one.traffic) == (row.node, row.traffic)
    )


def _tcp_cell(established: Row | None, connect: Row | None) -> Text:
    lines = []
    bad = invalid = False
    for name, row in (("open", established), ("new", connect)):
        if row is None or row.tcp is None:
            continue
        failed = f"{row.tcp.failed} of {row.tcp.attempted}"
        if not row.valid:
            invalid = True
            lines.append(f"{name}: not valid ({failed})")
            continue
        bad = bad or row.tcp.failed > 0
        failed = f"{name}: {failed}"
        if row.tcp.stalled:
            failed += f", {row.tcp.stalled} stalled"
        lines.append(_compared(failed, row, "failed"))
        times = row.tcp.connect_ms
        if name == "new" and times.p50 is not None and times.p99 is not None:
            lines.append(f"{times.p50:.1f} / {times.p99:.1f} ms")
    style = "bold red" if invalid else "yellow" if bad else "green" if lines else ""
    return Text("\n".join(lines) or "–", style=style)


def _modes_of(results: ResultSet) -> Sequence[str]:
    return _modes(results.summary)


def _modes(rows: Iterable[Row]) -> Sequence[str]:
    return list(dict.fromkeys(row.mode for row in rows))


def _scenarios(rows: Iterable[Row]) -> Sequence[str]:
    return list(dict.fromkeys(row.scenario for row in rows))


def _find(rows: Iterable[Row], mode: str, scenario: str, node: str, traffic: str) -> Row | None:
    wanted = (mode, scenario, node, traffic)
    return next(
        (row for row in rows if (row.mode, row.scenario, row.node, row.traffic) == wanted), None
    )

"""From the trials to the rows of the summary. Pure; needs nothing but what the file holds."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from kproxy.traffic import resultset, statistics
from kproxy.traffic.figures import Figure
from kproxy.traffic.resultset import (
    DelayRow,
    Difference,
    Measurement,
    Methods,
    Row,
    Spread,
    Trial,
    Verdict,
)

Key = tuple[str, str, str, str]
Members = Sequence[tuple[Trial, Measurement]]
Values = Sequence[float | None]

BASELINE = "baseline"
"""The scenario in which nothing is done: what is lost in it the tester itself has lost."""


def summarise(trials: Iterable[Trial]) -> tuple[Row, ...]:
    """Return one row per mode, scenario, node and kind of traffic, in order of appearance.

    Counters are sums over the trials; spreads are over the trials' values. A row is valid if
    every trial of its mode and scenario is, also one that has nothing for this row. Where there
    are several modes each valid row tells what differs: others say nothing, so nothing is said
    about their difference either.
    """
    trials = tuple(trials)
    spoiled = {(trial.mode, trial.scenario) for trial in trials if not trial.valid}
    groups: dict[Key, list[tuple[Trial, Measurement]]] = {}
    for trial in trials:
        for found in trial.measurements:
            key = (trial.mode, trial.scenario, found.node, found.traffic)
            groups.setdefault(key, []).append((trial, found))
    valid = {key: members for key, members in groups.items() if key[:2] not in spoiled}
    differences = _differences(valid)
    return tuple(
        _row(key, members, valid=key in valid, differences=tuple(differences.get(key, ())))
        for key, members in groups.items()
    )


def judged(trials: Sequence[Trial]) -> tuple[Row, ...]:
    """Return the summary. A baseline that is not valid makes the whole run not valid.

    What the tester loses by itself it may lose in every other trial, too.
    """
    rows = summarise(trials)
    if all(trial.valid for trial in trials if trial.scenario == BASELINE):
        return rows
    return tuple(dataclasses.replace(row, valid=False) for row in rows)


def _row(key: Key, members: Members, *, valid: bool, differences: tuple[Difference, ...]) -> Row:
    found = [measurement for _, measurement in members]
    accuracies = [m.accuracy_ms for m in found if m.accuracy_ms is not None]
    mode, scenario, node, traffic = key
    return Row(
        mode=mode,
        scenario=scenario,
        node=node,
        traffic=traffic,
        trials=len(members),
        offered_pps=found[0].offered_pps,
        sent=_sum(m.sent for m in found),
        received=_sum(m.received for m in found),
        lost=_sum(m.lost for m in found),
        duplicated=_sum(m.duplicated for m in found),
        reordered=_sum(m.reordered for m in found),
        failover_packet_loss=spread(_failover_losses(members)),
        failover_time_ms=spread(_failover_times(members)),
        restart_to_synced_ms=spread(_restarts(members)),
        tcp=_tcp([m.tcp for m in found if m.tcp is not None]),
        accuracy_ms=max(accuracies, default=None),
        valid=valid,
        modelled_share=_modelled(members),
        unexplained=_sum(m.unexplained for m in found),
        methods=_methods(found) if traffic == "udp" else None,
        delay_ms=_delay(found),
        differences=differences,
    )


def _failover_losses(members: Members) -> Values:
    found = [m.failover_packet_loss for _, m in members]
    return [value for value in found if value is not None]


def _failover_times(members: Members) -> Values:
    return [
        m.failover_time_ms for _, m in members if m.failover_time_ms is not None or not m.recovered
    ]


def _restarts(members: Members) -> Values:
    """Return the restart times: it is the hit node's proxy that is timed."""
    return [
        t.restart_to_synced_ms
        for t, m in members
        if t.restart_to_synced_ms is not None and m.node == "hit"
    ]


def _failures(members: Members) -> Values:
    return [m.tcp.failed for _, m in members if m.tcp is not None]


def _methods(found: Sequence[Measurement]) -> Methods | None:
    """Return the times by the other methods; None if no trial had a fault."""
    faulty = [m for m in found if m.convergence is not None]
    if not faulty:
        return None
    failovers = [m.failover for m in faulty]
    known = [m.convergence for m in faulty if m.convergence is not None and m.lost]
    recoveries = [m.recovery for m in faulty if m.recovery is not None]
    programmed = [one.programmed_ms for one in recoveries if one.programmed_ms is not None]
    return Methods(
        plbm_ms=spread([one.plbm_ms.ms if one else None for one in failovers]),
        tblm_ms=spread([one.tblm_ms.ms if one else None for one in failovers]),
        reset_ms=spread([m.reset_time_ms for m in faulty]),
        first_route_ms=spread([_ms(one.first_route_ms) for one in known]),
        full_ms=spread([_ms(one.full_ms) for one in known]),
        programmed_ms=spread(programmed),
        recovered_ms=spread([m.first_good_ms for m in faulty if m.lost]),
    )


def _ms(figure: Figure | None) -> float | None:
    return None if figure is None else figure.ms


def _delay(found: Sequence[Measurement]) -> DelayRow | None:
    delays = [m.delay for m in found if m.delay is not None]
    if not delays:
        return None
    return DelayRow(
        median_ms=spread([one.median_ms for one in delays]),
        p99_ms=spread([one.p99_ms for one in delays]),
        pdv_ms=spread([one.pdv_ms for one in delays]),
    )


_COMPARED: Mapping[str, Mapping[str, Callable[[Members], Values]]] = {
    "udp": {
        "failover_packet_loss": _failover_losses,
        "failover_time_ms": _failover_times,
        "restart_to_synced_ms": _restarts,
    },
    "tcp-established": {"failed": _failures, "failover_time_ms": _failover_times},
    "tcp-connect": {"failed": _failures, "failover_time_ms": _failover_times},
}
"""The figures that modes are compared by. A restart has nothing to do with the kind of traffic,
so it is compared once."""


def _differences(groups: Mapping[Key, Members]) -> dict[Key, list[Difference]]:
    """Compare every figure of a row with the same one of the other modes.

    All tests of a summary are one family: their p-values are corrected for their number. Values
    that are all the same are no test, because no way of dealing them out could show a difference.
    """
    found: dict[Key, list[Difference]] = {key: [] for key in groups}
    tested = []
    for one, other, figure, mine, others in _pairs(groups):
        if min(len(mine), len(others)) < statistics.LEAST_TRIALS:
            _tell(found, one, other, figure, (Verdict.TOO_FEW, Verdict.TOO_FEW))
        elif len({*mine, *others}) == 1:
            _tell(found, one, other, figure, (Verdict.NOT_SHOWN, Verdict.NOT_SHOWN))
        else:
            p = statistics.permutation_test(mine, others)
            tested.append((one, other, figure, statistics.shift(mine, others), p))
    corrected = statistics.corrected([p for *_, p in tested])
    for (one, other, figure, shift, p), certain in zip(tested, corrected, strict=True):
        verdicts = (Verdict.LESS, Verdict.GREATER)
        if certain >= statistics.SIGNIFICANCE:
            verdicts = (Verdict.NOT_SHOWN, Verdict.NOT_SHOWN)
        elif shift > 0:
            verdicts = (Verdict.GREATER, Verdict.LESS)
        _tell(found, one, other, figure, verdicts, (p, certain))
    return found


def _pairs(groups: Mapping[Key, Members]) -> Iterator[tuple[Key, Key, str, Values, Values]]:
    """Yield every figure that two modes both have, with its values; each pair of rows once."""
    keys = list(groups)
    for number, one in enumerate(keys):
        for other in keys[number + 1 :]:
            if one[1:] != other[1:]:
                continue
            for figure, values in _COMPARED.get(one[3], {}).items():
                mine, others = values(groups[one]), values(groups[other])
                if mine and others:
                    yield one, other, figure, mine, others


def _tell(
    found: Mapping[Key, list[Difference]],
    one: Key,
    other: Key,
    figure: str,
    verdicts: tuple[Verdict, Verdict],
    p_values: tuple[float | None, float | None] = (None, None),
) -> None:
    p, corrected = (None if value is None else round(value, 6) for value in p_values)
    for mine, others, verdict in ((one, other, verdicts[0]), (other, one, verdicts[1])):
        found[mine].append(
            Difference(figure=figure, mode=others[0], verdict=verdict, p=p, corrected_p=corrected)
        )


def _modelled(members: Members) -> resultset.ModelledShare | None:
    """Return the shares of the cost model; None if there was none."""
    failovers = [
        _share(m.modelled_ms, m.failover_time_ms)
        for _, m in members
        if m.modelled_ms is not None and m.failover_time_ms is not None
    ]
    restarts = [
        _share(t.modelled_ms, t.restart_to_synced_ms)
        for t, m in members
        if t.modelled_ms is not None and t.restart_to_synced_ms is not None and m.node == "hit"
    ]
    if not failovers and not restarts:
        return None
    return resultset.ModelledShare(
        failover_time=_median(failovers), restart_to_synced=_median(restarts)
    )


def _share(part: float, whole: float) -> float:
    return min(1.0, part / whole) if whole > 0 else 0.0


def _median(values: Sequence[float]) -> float | None:
    found = spread(values)
    return None if found is None else found.median


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def spread(values: Values) -> Spread | None:
    """Return median, least and greatest; None without values.

    A value of None ("did not recover while it was watched") is greater than every number; a
    median or an extreme that is one is None again.
    """
    if not values:
        return None
    ordered = sorted(math.inf if value is None else float(value) for value in values)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return Spread(
        median=_finite(median),
        min=_finite(ordered[0]),
        max=_finite(ordered[-1]),
        confidence=statistics.confidence(values),
    )


def _finite(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None


def _tcp(found: Sequence[resultset.TcpResult]) -> resultset.TcpRow | None:
    if not found:
        return None
    samples = sorted(sample for result in found for sample in result.connect_samples_ms)
    return resultset.TcpRow(
        attempted=sum(result.attempted for result in found),
        failed=sum(result.failed for result in found),
        reset=sum(result.reset for result in found),
        connect_ms=resultset.ConnectMs(p50=percentile(samples, 50), p99=percentile(samples, 99)),
        stalled=_sum(result.stalled for result in found),
        failed_per_trial=spread([result.failed for result in found]),
    )


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """Return the nearest-rank percentile of sorted values; None without values."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]

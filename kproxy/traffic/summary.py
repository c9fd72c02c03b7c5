"""From the trials to the rows of the summary. Pure; needs nothing but what the file holds."""

import math
from collections.abc import Iterable, Sequence

from kproxy.traffic import resultset


def summarise(trials: Iterable[resultset.Trial]) -> tuple[resultset.Row, ...]:
    """Return one row per mode, scenario, node and kind of traffic, in order of appearance.

    Counters are sums over the trials; spreads are over the trials' values. A row is valid if
    every one of its trials is.
    """
    groups: dict[
        tuple[str, str, str, str], list[tuple[resultset.Trial, resultset.Measurement]]
    ] = {}
    for trial in trials:
        for found in trial.measurements:
            key = (trial.mode, trial.scenario, found.node, found.traffic)
            groups.setdefault(key, []).append((trial, found))
    return tuple(_row(key, members) for key, members in groups.items())


def _row(
    key: tuple[str, str, str, str],
    members: Sequence[tuple[resultset.Trial, resultset.Measurement]],
) -> resultset.Row:
    found = [measurement for _, measurement in members]
    faulty = [m for m in found if m.failover_packet_loss is not None]
    timed = [m for m in found if m.failover_time_ms is not None or not m.recovered]
    # It is the hit node's proxy whose restart is timed.
    restarts = [
        t.restart_to_synced_ms
        for t, m in members
        if t.restart_to_synced_ms is not None and m.node == "hit"
    ]
    accuracies = [m.accuracy_ms for m in found if m.accuracy_ms is not None]
    mode, scenario, node, traffic = key
    return resultset.Row(
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
        failover_packet_loss=spread([m.failover_packet_loss for m in faulty]),
        failover_time_ms=spread([m.failover_time_ms for m in timed]),
        restart_to_synced_ms=spread(restarts),
        tcp=_tcp([m.tcp for m in found if m.tcp is not None]),
        accuracy_ms=max(accuracies, default=None),
        valid=all(trial.valid for trial, _ in members),
        modelled_share=_modelled(members),
    )


def _modelled(
    members: Sequence[tuple[resultset.Trial, resultset.Measurement]],
) -> resultset.ModelledShare | None:
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


def spread(values: Sequence[float | None]) -> resultset.Spread | None:
    """Return median, least and greatest; None without values.

    A value of None ("did not recover while it was watched") is greater than every number; a
    median or an extreme that is one is None again.
    """
    if not values:
        return None
    ordered = sorted(math.inf if value is None else float(value) for value in values)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return resultset.Spread(
        median=_finite(median), min=_finite(ordered[0]), max=_finite(ordered[-1])
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
    )


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """Return the nearest-rank percentile of sorted values; None without values."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]

"""A measurement between hosts as lines for people, a figure a line. Pure."""

from kproxy.traffic.remote.outcome import Outcome
from kproxy.traffic.resultset import Measurement


def lines(found: Outcome) -> list[str]:
    """Return the account in words, a figure a line."""
    measured = found.measurement
    rows = [("sent", f"{measured.sent or 0:,}")]
    if measured.received is not None:
        rows += [
            ("received", f"{measured.received:,}"),
            ("lost", _share(found.lost, measured.sent or 0)),
            ("duplicated", f"{measured.duplicated or 0:,}"),
            ("reordered", f"{measured.reordered or 0:,}"),
        ]
    if measured.discarded:
        rows.append(("set aside", f"{measured.discarded:,} (sent within Tmax of the end)"))
    rows += [(f"answered: {what}", f"{number:,}") for what, number in found.outcomes.items()]
    if (delay := measured.delay) is not None:
        way = "there and back" if found.round_trip else "one way"
        numbers = f"min {delay.min_ms:.3f}, p50 {delay.median_ms:.3f}, p99 {delay.p99_ms:.3f}, "
        numbers += f"max {delay.max_ms:.3f} ms, each ± {delay.accuracy_ms:.3f}"
        rows.append((f"time {way}", numbers))
    if not found.round_trip:
        rows.append(("receiver's clock", _clock(found)))
    if found.arrivals is not None:
        by = f"{found.arrivals.timestamps} ± {found.arrivals.error_ms:.3f} ms"
        rows.append(("receiver's stamps", by))
    rows += _sender(measured)
    rows += [(event.name, f"at {event.ms:.3f} ms") for event in found.timeline[1:]]
    if found.cut:
        rows.append(("cut short", found.cut))
    rows += [("NOT VALID", problem) for problem in found.problems]
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {text}" for name, text in rows]


def _share(part: int, whole: int) -> str:
    return f"{part:,}" + (f" ({100 * part / whole:.3g} %)" if part and whole else "")


def _clock(found: Outcome) -> str:
    clocks = found.clocks
    if clocks.same:
        return "the same as ours"
    text = f"{clocks.offset_ms:+.3f} ± {clocks.error_ms:.3f} ms ({clocks.exchanges} exchanges)"
    if clocks.drift_ppm is not None:
        text += f", drift {clocks.drift_ppm:+.1f} ± {clocks.drift_error_ppm:.1f} ppm"
    return text


def _sender(measured: Measurement) -> list[tuple[str, str]]:
    """Return what is said of the sender itself, and of the flows that lost packets."""
    rows = []
    quality = measured.sender
    if quality is not None:
        rows.append(
            (
                "sender late",
                f"p50 {quality.lateness_p50_ms:.3f}, p99 {quality.lateness_p99_ms:.3f}, "
                f"max {quality.lateness_max_ms:.3f} ms",
            )
        )
    for flow in measured.flows:
        if flow.failover_time_ms:
            rows.append(
                (
                    f"outage of flow {flow.flow}",
                    f"{flow.failover_time_ms:.3f} ms, up to {flow.accuracy_ms:.3f} less, "
                    f"{flow.lost} packets",
                )
            )
    return rows

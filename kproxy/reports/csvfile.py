"""The trials as CSV, for a spreadsheet or pandas: a line for each kind of traffic in each trial.

Unlike the other forms of a report it sums up nothing: it is for those who do that themselves.
"""

import csv
import io
from collections.abc import Sequence

from kproxy.reports import losses
from kproxy.reports.reading import Loaded
from kproxy.reports.view import look
from kproxy.traffic.resultset import Measurement

FIGURES = (
    "offered_pps",
    "sent",
    "received",
    "lost",
    "unexplained",
    "outside_fault",
    "late",
    "duplicated",
    "reordered",
    "affected_flows",
    "recovered",
    "failover_packet_loss",
    "failover_time_ms",
    "loss_derived_ms",
    "reset_time_ms",
    "first_good_ms",
    "accuracy_ms",
)
"""Fields of a measurement, as they are."""
HEAD = (
    "result",
    "mode",
    "case",
    "trial",
    "valid",
    "node",
    "traffic",
    *FIGURES,
    "tcp_attempted",
    "tcp_failed",
    "tcp_reset",
    "restart_to_synced_ms",
    "losses",
    "problems",
)


def table(loaded: Sequence[Loaded]) -> str:
    """Return the file's text. What does not apply is an empty field."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEAD)
    for one in loaded:
        for shot in look([one]).shots:
            for found in shot.measurements:
                writer.writerow(
                    [
                        one.label,
                        shot.column,
                        shot.case,
                        shot.number,
                        not shot.problems,
                        found.node,
                        found.traffic,
                        *(getattr(found, name) for name in FIGURES),
                        *_tcp(found),
                        shot.restart_ms if found.node == "hit" else None,
                        _losses(found),
                        "; ".join(shot.problems),
                    ]
                )
    return out.getvalue()


def _tcp(found: Measurement) -> tuple[int | None, ...]:
    if found.tcp is None:
        return (None,) * 3
    return (found.tcp.attempted, found.tcp.failed, found.tcp.reset)


def _losses(found: Measurement) -> str:
    return "; ".join(f"{one.packets} {losses.where(one)}: {one.cause}" for one in found.losses)

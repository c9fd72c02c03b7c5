"""What the page asks Prometheus. Pure.

The probers' own counters are asked for, not recorded rules: the page is to work in a lab whose
rules are being changed.
"""

from collections.abc import Iterable
from dataclasses import dataclass

POINTS = 150
"""Of a chart, at most: more than that is not seen."""
WINDOW = "30s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A chart and how to ask for it."""

    id: str
    title: str
    unit: str
    query: str
    empty: str = "The probers have not told anything yet."


def _loss(by: str) -> str:
    lost = f"sum by ({by}) (rate(kproxy_probe_lost_total[{WINDOW}]))"
    return f"{lost} / (sum by ({by}) (rate(kproxy_probe_sent_total[{WINDOW}])) > 0)"


LOSS_OF_SERVICES = _loss("namespace, service")
LATENCY_OF_SERVICES = (
    "1000 * histogram_quantile(0.99, sum by (namespace, service, le) "
    f"(rate(kproxy_probe_duration_seconds_bucket[{WINDOW}])))"
)
CHARTS = (
    Query(
        id="loss",
        title="Probes lost, by Service",
        unit="%",
        query=f"100 * ({LOSS_OF_SERVICES})",
    ),
    Query(
        id="loss-by-node", title="Probes lost, by node", unit="%", query=f"100 * {_loss('node')}"
    ),
    Query(
        id="latency",
        title="Latency of probes, 99th percentile",
        unit="ms",
        query=LATENCY_OF_SERVICES,
    ),
)


def by_service(values: Iterable[tuple[dict[str, str], float]]) -> dict[tuple[str, str], float]:
    """Return values by namespace and name of their Service."""
    return {
        (labels["namespace"], labels["service"]): value
        for labels, value in values
        if "namespace" in labels and "service" in labels
    }

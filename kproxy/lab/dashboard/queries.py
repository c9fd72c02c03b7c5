"""What the page asks Prometheus. Pure.

The probers' own counters are asked for, not recorded rules: the page is to work in a lab whose
rules are being changed.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from kproxy.lab.clusterfile import Profile

POINTS = 150
"""Of a chart, at most: more than that is not seen."""
_WINDOWS = {Profile.LAB: "15s", Profile.PRODUCTION: "2m"}
"""Of rates: several scrapes long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A chart and how to ask for it."""

    id: str
    title: str
    unit: str
    query: str
    empty: str = "The probers have not told anything yet."


class Queries:
    """What is asked in a lab of a profile."""

    def __init__(self, profile: Profile) -> None:
        self._window = _WINDOWS[profile]
        services = "namespace, service"
        self.loss_of_services = self._loss(services)
        buckets = f"rate(kproxy_probe_duration_seconds_bucket[{self._window}])"
        quantile = f"histogram_quantile(0.99, sum by ({services}, le) ({buckets}))"
        self.latency_of_services = f"1000 * {quantile}"
        self.charts = (
            Query(
                id="loss",
                title="Probes lost, by Service",
                unit="%",
                query=f"100 * ({self.loss_of_services})",
            ),
            Query(
                id="loss-by-node",
                title="Probes lost, by node",
                unit="%",
                query=f"100 * ({self._loss('node')})",
            ),
            Query(
                id="latency",
                title="Latency of probes, 99th percentile",
                unit="ms",
                query=self.latency_of_services,
            ),
        )

    def _loss(self, by: str) -> str:
        lost, sent = (
            f"sum by ({by}) (rate(kproxy_probe_{which}_total[{self._window}]))"
            for which in ("lost", "sent")
        )
        return f"{lost} / ({sent} > 0)"


def by_service(values: Iterable[tuple[dict[str, str], float]]) -> dict[tuple[str, str], float]:
    """Return values by namespace and name of their Service."""
    return {
        (labels["namespace"], labels["service"]): value
        for labels, value in values
        if "namespace" in labels and "service" in labels
    }

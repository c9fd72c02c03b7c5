"""Asks a lab's Prometheus for what is shown, from the host ``admin``."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from kproxy import errors
from kproxy.lab.dashboard.messages import Alert, Point, Series
from kproxy.lab.site import ADMIN
from kproxy.monitoring import promclient
from kproxy.rfc3339 import seconds_of
from netns.lab import AttachedLab

_TIMEOUT = 3.0
_HIDDEN = ("alertname", "severity", "remediation", "job", "long", "short")
_ORDER = {"critical": 0, "warning": 1, "info": 2}

T = TypeVar("T")


class Prometheus:
    """Replicas of Prometheus: whichever answers. ``addresses`` may be empty: there is none."""

    def __init__(self, lab: AttachedLab, addresses: Sequence[str], port: int) -> None:
        self._lab = lab
        self._servers = [promclient.Prometheus(one, port, timeout=_TIMEOUT) for one in addresses]

    def __bool__(self) -> bool:
        return bool(self._servers)

    def alerts(self) -> list[Alert]:
        """Return the alerts that are pending or fire, the most severe first."""
        return self._ask(lambda one: alerts(one.get("/api/v1/alerts")))

    def over_time(self, query: str, now: float, back: float, step: float) -> list[Series]:
        """Return a query's values over the last ``back`` seconds, a line for each result."""
        return self._ask(lambda one: series(one.over_time(query, now - back, now, step)))

    def values(self, query: str) -> list[tuple[dict[str, str], float]]:
        """Return a query's values now, with their labels."""
        return self._ask(lambda one: one.values(query))

    def _ask(self, ask: Callable[[promclient.Prometheus], T]) -> T:
        """Return what one of them says. Raises KproxyError if nobody answers."""
        last = errors.KproxyError("there is no Prometheus")
        for one in list(self._servers):
            try:
                with self._lab.host(ADMIN).entered():
                    return ask(one)
            except errors.KproxyError as error:
                last = error
                # The next question goes to another one first.
                self._servers.remove(one)
                self._servers.append(one)
        raise last


def alerts(data: Any) -> list[Alert]:
    """Return what ``/api/v1/alerts`` told; the dead man's switch (severity none) is last."""
    found = []
    for one in data["alerts"]:
        labels, notes = one["labels"], one.get("annotations") or {}
        where = " ".join(
            f"{key}={value}" for key, value in sorted(labels.items()) if key not in _HIDDEN
        )
        found.append(
            Alert(
                name=labels.get("alertname", ""),
                state=one["state"],
                severity=labels.get("severity", ""),
                where=where,
                since=float(seconds_of(one["activeAt"]) or 0),
                text=notes.get("summary") or notes.get("description") or "",
            )
        )
    return sorted(
        found,
        key=lambda one: (one.state != "firing", _ORDER.get(one.severity, 3), one.name, one.where),
    )


def series(results: Any) -> list[Series]:
    """Return what ``/api/v1/query_range`` told, by name."""
    return sorted(
        (
            Series(
                name=label(one["metric"]),
                points=[Point(float(at), promclient.number(value)) for at, value in one["values"]],
            )
            for one in results
        ),
        key=lambda one: one.name,
    )


def label(metric: dict[str, str]) -> str:
    """Return a result's name: the values of its labels."""
    return " ".join(value for key, value in sorted(metric.items()) if key != "__name__") or "all"

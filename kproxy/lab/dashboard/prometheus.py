"""Asks a lab's Prometheus over its HTTP API, from the host ``admin``."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec

from kproxy import errors
from kproxy.client import http1
from kproxy.lab.dashboard.messages import Alert, Point, Series
from kproxy.lab.site import ADMIN
from kproxy.rfc3339 import seconds_of
from netns.lab import AttachedLab

PORT = 9090
_TIMEOUT = 3.0
_HIDDEN = ("alertname", "severity", "remediation", "job")


class Prometheus:
    """Replicas of Prometheus: whichever answers. ``addresses`` may be empty: there is none."""

    def __init__(self, lab: AttachedLab, addresses: Sequence[str]) -> None:
        self._lab = lab
        self._addresses = list(addresses)

    def __bool__(self) -> bool:
        return bool(self._addresses)

    def alerts(self) -> list[Alert]:
        """Return the alerts that are pending or fire, the most severe first."""
        return alerts(self._get("/api/v1/alerts", {}))

    def over_time(self, query: str, now: float, back: float, step: float) -> list[Series]:
        """Return a query's values over the last ``back`` seconds, a line for each result."""
        times = {"start": f"{now - back:.3f}", "end": f"{now:.3f}", "step": f"{step:g}"}
        return series(self._get("/api/v1/query_range", {"query": query, **times}))

    def values(self, query: str) -> list[tuple[dict[str, str], float]]:
        """Return a query's values now, with their labels."""
        return values(self._get("/api/v1/query", {"query": query}))

    def _get(self, path: str, query: dict[str, str]) -> Any:
        """Return ``data`` of an answer. Raises KproxyError if nobody gives a good one."""
        told = "there is no Prometheus"
        for address in list(self._addresses):
            try:
                answer = self._ask(address, f"{path}?{urlencode(query)}")
                if answer.get("status") == "success":
                    return answer["data"]
                raise errors.KproxyError(f"Prometheus: {answer.get('error')}")
            except (OSError, ValueError, KeyError, msgspec.DecodeError) as error:
                told = f"Prometheus at {address} does not answer: {error}"
                # The next question goes to another one first.
                self._addresses.remove(address)
                self._addresses.append(address)
        raise errors.KproxyError(told)

    def _ask(self, address: str, target: str) -> dict[str, Any]:
        with self._lab.host(ADMIN).entered():
            connection = http1.Connection(address, PORT, tls=None, name=address, timeout=_TIMEOUT)
            try:
                response = connection.request("GET", target, {"Connection": "close"})
                return msgspec.json.decode(response.read(), type=dict[str, Any])
            finally:
                connection.close()


_ORDER = {"critical": 0, "warning": 1, "info": 2}


def alerts(data: Any) -> list[Alert]:
    """Return what ``/api/v1/alerts`` told; the dead man's switch (severity none) is last."""
    found = []
    for one in data["alerts"]:
        labels, notes = one["labels"], one.get("annotations") or {}
        where = " ".join(
            f"{key}={value}" for key, value in sorted(labels.items()) if key not in _HIDDEN
        )
        at = seconds_of(one["activeAt"]) or 0
        found.append(
            Alert(
                name=labels.get("alertname", ""),
                state=one["state"],
                severity=labels.get("severity", ""),
                where=where,
                since=float(at),
                text=notes.get("summary") or notes.get("description") or "",
            )
        )
    return sorted(
        found,
        key=lambda one: (one.state != "firing", _ORDER.get(one.severity, 3), one.name, one.where),
    )


def series(data: Any) -> list[Series]:
    """Return what ``/api/v1/query_range`` told, by name."""
    return sorted(
        (
            Series(
                name=label(one["metric"]),
                points=[Point(float(at), _number(value)) for at, value in one["values"]],
            )
            for one in data["result"]
        ),
        key=lambda one: one.name,
    )


def values(data: Any) -> list[tuple[dict[str, str], float]]:
    """Return what ``/api/v1/query`` told; what is no number is left out."""
    found = []
    for one in data["result"]:
        value = _number(one["value"][1])
        if value is not None:
            found.append((dict(one["metric"]), value))
    return found


def label(metric: dict[str, str]) -> str:
    """Return a result's name: the values of its labels."""
    return " ".join(value for key, value in sorted(metric.items()) if key != "__name__") or "all"


def _number(text: str) -> float | None:
    value = float(text)
    return value if abs(value) < float("inf") else None  # NaN is not less either

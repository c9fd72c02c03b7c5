"""Asks a Prometheus over its HTTP API (v1)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec

from kproxy import errors
from kproxy.client import http1

TIMEOUT_S = 5.0

Pairs = Mapping[str, str] | Sequence[tuple[str, str]]


class Prometheus:
    """One server. A connection for each question, made in the network of whoever asks."""

    def __init__(self, host: str, port: int, *, timeout: float = TIMEOUT_S) -> None:
        self._host = host
        self._port = port
        self._timeout = timeout

    def get(self, path: str, query: Pairs = ()) -> Any:
        """Return ``data`` of the answer. Raises KproxyError: no answer, or the question is wrong.

        An OSError, when nobody is there, is one of them: its ``__cause__`` says so.
        """
        who = f"Prometheus at {self._host}:{self._port}"
        connection = http1.Connection(
            self._host, self._port, tls=None, name=self._host, timeout=self._timeout
        )
        try:
            target = f"{path}?{urlencode(query)}"
            response = connection.request("GET", target, {"Connection": "close"})
            answer = msgspec.json.decode(response.read(), type=dict[str, Any])
        except (OSError, msgspec.DecodeError) as error:
            raise errors.KproxyError(f"{who} does not answer: {error}") from error
        finally:
            connection.close()
        if answer.get("status") != "success":
            raise errors.KproxyError(f"{who}: {answer.get('error')}")
        return answer.get("data")

    def values(self, query: str, at: float | None = None) -> list[tuple[dict[str, str], float]]:
        """Return an expression's values with their labels, now or at a time; numbers only."""
        when = {} if at is None else {"time": f"{at:.3f}"}
        return list(numbers(self.get("/api/v1/query", {"query": query, **when})))

    def over_time(self, query: str, start: float, end: float, step: float) -> Any:
        """Return the series of an expression, as the API has them: ``metric`` and ``values``."""
        times = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}
        return self.get("/api/v1/query_range", {"query": query, **times})["result"]

    def label_values(self, label: str, selector: str, start: float, end: float) -> list[str]:
        """Return the values that a label of a metric has had."""
        between = {"match[]": selector, "start": f"{start:.3f}", "end": f"{end:.3f}"}
        return [str(one) for one in self.get(f"/api/v1/label/{label}/values", between)]


def numbers(data: Any) -> Iterator[tuple[dict[str, str], float]]:
    """Yield what ``/api/v1/query`` told of a vector; what is no number is left out."""
    for one in data["result"]:
        value = number(one["value"][1])
        if value is not None:
            yield dict(one["metric"]), value


def number(text: str) -> float | None:
    """Return a sample's value; None if it is none, or infinite."""
    value = float(text)
    return value if abs(value) < float("inf") else None  # NaN is not less either

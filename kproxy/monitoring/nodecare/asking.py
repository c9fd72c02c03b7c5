"""What a proxy says of itself: its health checks and its metrics, by HTTP.

A stopped process still has connections accepted for it, by the kernel, and answers none; so every
wait has an end.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kproxy.client.http1 import Connection

PATIENCE_S = 2.0
"""A proxy that answers at all does so in milliseconds."""

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  nothing listens here

NOT_SERVED = "not served"

LAST = "kubeproxy_sync_proxy_rules_last_timestamp_seconds"
FULL = "kubeproxy_sync_full_proxy_rules_duration_seconds_count"
FOLLOWED = "kproxy_watch_resource_version"
FAILURES = "kproxy_sync_failures_total"
PENDING = (
    "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
    "kubeproxy_sync_proxy_rules_service_changes_pending",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, or (``code`` 0) why there is none."""

    code: int
    text: str

    def __str__(self) -> str:
        """Return the status, or the reason."""
        return str(self.code) if self.code else self.text


def ask(place: tuple[str, int], path: str, patience_s: float = PATIENCE_S) -> Answer:
    """Ask a server of this node. Never raises for what the other side does."""
    host, port = place
    if not port:
        return Answer(0, NOT_SERVED)
    host = _ANY.get(host, host)
    connection = Connection(host, port, tls=None, name=host, timeout=patience_s)
    try:
        response = connection.request("GET", path, {"Connection": "close"})
        return Answer(response.status, response.read().decode(errors="replace"))
    except TimeoutError:
        return Answer(0, f"no answer within {patience_s:g} s")
    except OSError as error:
        return Answer(0, error.strerror or str(error))
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Metrics:
    """Samples by name, each with its labels as they are written."""

    samples: Mapping[str, Sequence[tuple[str, float]]] = field(default_factory=dict)

    def total(self, *names: str) -> float | None:
        """Return the sum of all samples of these names; None: there is none."""
        found = [value for name in names for _, value in self.samples.get(name, ())]
        return sum(found) if found else None

    def newest(self, name: str) -> float | None:
        """Return the greatest sample of a name; None: there is none."""
        return max((value for _, value in self.samples.get(name, ())), default=None)

    def of(self, name: str, label: str) -> float | None:
        """Return the sample of a name that has a label, ``resource="services"``; None: none."""
        return next((value for text, value in self.samples.get(name, ()) if label in text), None)


def parse(text: str) -> Metrics:
    """Read the text format of Prometheus, as far as it matters here."""
    found: dict[str, list[tuple[str, float]]] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        name = line.partition("{")[0].split(" ", 1)[0]
        labels, _, rest = line[len(name) :].rpartition("}")
        try:
            value = float(rest.split()[0])
        except (IndexError, ValueError):
            continue
        found.setdefault(name, []).append((labels, value))
    return Metrics(found)


def metrics(place: tuple[str, int], patience_s: float = PATIENCE_S) -> tuple[Metrics, str]:
    """Return a proxy's metrics, and why there are none (empty: there are)."""
    answer = ask(place, "/metrics", patience_s)
    if answer.code != 200:
        return Metrics(), f"metrics: {answer}"
    return parse(answer.text), ""


def sync_facts(read: Metrics, wall: float | None = None) -> dict[str, float | None]:
    """Return what a look tells of syncs; None: not known."""
    now = time.time() if wall is None else wall
    last = read.newest(LAST)
    return {
        "last_s": None if not last else round(max(0.0, now - last), 3),
        "pending": read.total(*PENDING),
        "failures": read.total(FAILURES),
        "full_syncs": read.total(FULL),
    }

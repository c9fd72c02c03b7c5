"""What the Prometheuses and Alertmanagers of a lab say, asked in their own hosts.

So it is known what each of them sees, also while its cable is out.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from kproxy import errors
from kproxy.client import http1
from kproxy.lab.whole.monitoringtargets import ALERTMANAGER_PORT, PROMETHEUS_PORT
from kproxy.monitoring.promclient import TIMEOUT_S, Prometheus
from netns.lab import AttachedLab

T = TypeVar("T")

UP, DOWN = "up", "down"
"""What is known of a target; before it has been asked: ``unknown``."""
FIRING = "firing"
_LOCAL = "127.0.0.1"


class Target(msgspec.Struct, kw_only=True, frozen=True, rename="camel"):
    """Whom a Prometheus asks. ``error``: why he did not answer."""

    job: str
    instance: str
    node: str = ""
    health: str = UP
    error: str = ""


class Alert(msgspec.Struct, kw_only=True, frozen=True, rename="camel"):
    """An alert of a Prometheus: pending or firing, since when (RFC 3339)."""

    name: str
    state: str
    labels: dict[str, str]
    since: str


class Sample(msgspec.Struct, kw_only=True, frozen=True):
    """One result of a query."""

    labels: dict[str, str]
    value: float


class Watch(msgspec.Struct, kw_only=True, rename="camel"):
    """What one of the hosts that watch sees. ``trouble``: who does not answer there."""

    host: str
    trouble: list[str] = []
    targets: int = 0
    down: list[Target] = []
    """Those that do not answer."""
    unknown: int = 0
    """So many have not been asked yet."""
    alerts: list[Alert] = []
    """Those that fire."""
    peers: int = 0
    """So many Alertmanagers see each other, this one included."""


class Monitors:
    """Asks the monitors of a lab. Every method raises KproxyError if one does not answer."""

    def __init__(self, lab: AttachedLab) -> None:
        self._lab = lab

    def targets(self, host: str) -> list[Target]:
        """Return whom the Prometheus of a host asks."""
        state = {"state": "active"}
        found = self._prometheus(host, lambda client: client.get("/api/v1/targets", state))
        return [
            Target(
                job=one["labels"]["job"],
                instance=one["labels"]["instance"],
                node=one["labels"].get("node", ""),
                health=one["health"],
                error=one["lastError"],
            )
            for one in found["activeTargets"]
        ]

    def alerts(self, host: str) -> list[Alert]:
        """Return the alerts of the Prometheus of a host."""
        found = self._prometheus(host, lambda client: client.get("/api/v1/alerts"))
        return [
            Alert(
                name=one["labels"]["alertname"],
                state=one["state"],
                labels={key: text for key, text in one["labels"].items() if key != "alertname"},
                since=one["activeAt"],
            )
            for one in found["alerts"]
        ]

    def query(self, host: str, expression: str, *, at: float | None = None) -> list[Sample]:
        """Return the value of an expression now, or at a time (seconds since 1970)."""
        found = self._prometheus(host, lambda client: client.values(expression, at))
        return [Sample(labels=labels, value=value) for labels, value in found]

    def peers(self, host: str) -> list[str]:
        """Return the addresses of the Alertmanagers that the one of a host knows, its own too."""
        status = self._alertmanager(host)
        return sorted(one["address"] for one in status["cluster"]["peers"])

    def watch(self, host: str) -> Watch:
        """Return what a host sees; never raises for one that does not answer."""
        found = Watch(host=host)
        try:
            targets = self.targets(host)
            found.targets = len(targets)
            found.down = [one for one in targets if one.health == DOWN]
            found.unknown = sum(one.health not in (UP, DOWN) for one in targets)
            found.alerts = [one for one in self.alerts(host) if one.state == FIRING]
        except errors.KproxyError as error:
            found.trouble.append(error.message)
        try:
            found.peers = len(self.peers(host))
        except errors.KproxyError as error:
            found.trouble.append(error.message)
        return found

    def missing(self, hosts: Sequence[str]) -> list[str]:
        """Return, in words, what these hosts do not see yet; empty: they see everything."""
        found = []
        for one in map(self.watch, hosts):
            if one.trouble:
                found.append(f"{one.host} to answer")
                continue
            found += [f"{each.job} at {each.instance} ({each.error})" for each in one.down]
            if not one.targets:
                found.append(f"{one.host} to find whom to ask")
            if one.unknown:
                found.append(f"{one.host} to have asked everybody")
            if one.peers != len(hosts):
                found.append(f"Alertmanager on {one.host} to see the others")
        return found

    def _prometheus(self, host: str, ask: Callable[[Prometheus], T]) -> T:
        try:
            with self._lab.host(host).entered():
                return ask(Prometheus(_LOCAL, PROMETHEUS_PORT))
        except errors.KproxyError as error:
            raise errors.KproxyError(f"{host}: {error.message}") from None

    def _alertmanager(self, host: str) -> Any:
        try:
            with self._lab.host(host).entered():
                connection = http1.Connection(
                    _LOCAL, ALERTMANAGER_PORT, tls=None, name=_LOCAL, timeout=TIMEOUT_S
                )
                try:
                    response = connection.request("GET", "/api/v2/status", {})
                    return msgspec.json.decode(response.read())
                finally:
                    connection.close()
        except (OSError, msgspec.DecodeError) as error:
            raise errors.KproxyError(f"{host}: Alertmanager does not answer: {error}") from None

"""What monitoring knew of a fault, and when: from its own records, on the lab's clock.

When an alert's rule was first found true is asked of Prometheus, which keeps a sample of every
evaluation. When somebody was told is when the notification arrived, by the records of who received
it: remediation's journal, or the log of the pager, which stands for people. Actions are those of
the journal. Its times are times of day; in a lab all clocks are one machine's, so the difference
to the monotonic clock is the same for everybody.
"""

import itertools
import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kproxy.lab import pager
from kproxy.lab.eventlog import Event
from kproxy.lab.site import ADMIN
from kproxy.lab.whole.cluster import WholeCluster
from kproxy.lab.whole.monitoringtargets import PROMETHEUS_PORT
from kproxy.monitoring import promclient
from kproxy.monitoring.remediation.journal import Line
from kproxy.monitoring.remediation.records import AnyRecord, Began, Ended, Notified, Result

WATCHDOG = "Watchdog"
_NAME = "alertname"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """An alert of which somebody was told, and when, on the monotonic clock."""

    ns: int
    alert: str
    labels: Mapping[str, str]
    instance: str = ""
    """What remediation's journal calls it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """An action that was begun, and the alert that was the reason."""

    ns: int
    action: str
    told: Notice | None
    ended_ns: int | None = None
    helped: bool = False


class Prometheus:
    """The Prometheus on a host of a cluster, asked from the host ``admin``."""

    def __init__(self, cluster: WholeCluster, host: str) -> None:
        self._admin = cluster.lab.host(ADMIN)
        self._client = promclient.Prometheus(str(cluster.site.lan_address(host)), PROMETHEUS_PORT)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of a query as of now. Raises KproxyError."""
        with self._admin.entered():
            found = self._client.get("/api/v1/query", {"query": expression})
        return list(found["result"])

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that are pending or firing now. Raises KproxyError."""
        with self._admin.entered():
            return list(self._client.get("/api/v1/alerts")["alerts"])


class Alarms:
    """What monitoring did since a time of the monotonic clock."""

    def __init__(self, cluster: WholeCluster, since_ns: int) -> None:
        self._cluster = cluster
        self._since = since_ns
        self._offset = time.time_ns() - time.monotonic_ns()

    def paged(self, alerts: Collection[str]) -> Notice | None:
        """Return the first of these alerts of which people were told."""
        events = self._cluster.events
        events.refresh()
        found = events.find(lambda event: _pages(event, alerts), since_ns=self._since)
        if found is None:
            return None
        labels = dict(found.fields["labels"])
        return Notice(ns=found.mono_ns, alert=str(found.fields["alert"]), labels=labels)

    def told(self) -> Notice | None:
        """Return the first alert that remediation took."""
        return next(self._notices(self._records()), None)

    def acts(self) -> list[Act]:
        """Return the actions that were begun, oldest first."""
        records = self._records()
        notices: dict[str, Notice] = {}
        for one in self._notices(records):
            notices.setdefault(one.instance, one)  # it is told again and again
        ends = [one for one in records if isinstance(one, Ended)]
        found = []
        for began in (one for one in records if isinstance(one, Began)):
            end = next(
                (e for e in ends if e.instance == began.instance and e.at >= began.at), None
            )
            found.append(
                Act(
                    ns=self._mono(began.at),
                    action=began.action,
                    told=notices.get(began.instance),
                    ended_ns=None if end is None else self._mono(end.at),
                    helped=end is not None and end.result is Result.HELPED,
                )
            )
        return found

    def cure(self, repaired_ns: int | None) -> Act | None:
        """Return the action that was begun last before the repair; the first one if none was."""
        acts = self.acts()
        before = [one for one in acts if repaired_ns is not None and one.ns <= repaired_ns]
        return before[-1] if before else next(iter(acts), None)

    def seen(self, notice: Notice) -> int | None:
        """Return when a Prometheus first found the rule of an alert true; None: none says so."""
        now = time.monotonic_ns()
        seconds = (now - self._since) // 10**9 + 1
        labels = ",".join(
            f"{name}={json.dumps(value)}"
            for name, value in notice.labels.items()
            if name in (_NAME, "node", "namespace", "service")
        )
        found = [
            self._mono(float(sample[0]))
            for host in self._cluster.site.monitors
            for series in Prometheus(self._cluster, host).query(f"ALERTS{{{labels}}}[{seconds}s]")
            for sample in series["values"]
        ]
        return min((ns for ns in found if ns >= self._since), default=None)

    def _notices(self, records: Sequence[AnyRecord]) -> Iterator[Notice]:
        for record in records:
            if not isinstance(record, Notified):
                continue
            for one in record.alerts:
                if one.firing and (alert := one.labels.get(_NAME, "")) != WATCHDOG:
                    yield Notice(
                        ns=self._mono(record.at),
                        alert=alert,
                        labels=one.labels,
                        instance=f"{one.fingerprint}@{one.starts:.6f}",
                    )

    def _records(self) -> list[AnyRecord]:
        """Return what the journal has since then, oldest first."""
        root = self._cluster.places.monitoring.root
        files = sorted(root.rglob("journal-*.jsonl"))
        records = itertools.chain.from_iterable(map(_read, files))
        return [one for one in records if self._mono(one.at) >= self._since]

    def _mono(self, wall: float) -> int:
        return round(wall * 1e9) - self._offset


def _read(path: Path) -> Iterator[AnyRecord]:
    for line in path.read_bytes().splitlines():
        record = Line.read(line)
        if record is not None:
            yield record


def _pages(event: Event, alerts: Collection[str]) -> bool:
    fires = event.msg == pager.TOLD and event.fields["status"] == "firing"
    return fires and event.fields["alert"] in alerts

"""Looks at a lab from beside it: the cluster, its processes, its hosts' counters, Prometheus.

A look changes nothing. What does not answer is told, and the rest is shown.
"""

import time
from collections import deque
from typing import Any

from kproxy import errors
from kproxy.api import catalog
from kproxy.lab.dashboard import counters, queries, view
from kproxy.lab.dashboard.counters import Carried
from kproxy.lab.dashboard.messages import Alert, Chart, Event, Point, Series, View
from kproxy.lab.dashboard.prometheus import Prometheus
from kproxy.lab.whole import picture
from kproxy.lab.whole.cluster import UPLINK, WholeCluster
from kproxy.lab.whole.picture import Picture
from kproxy.rfc3339 import seconds_of
from netns.errors import NetnsError
from netns.process import stat_fields

HISTORY_S = 600.0
_LOOKS_KEPT = 600
_STOPPED = ("T", "t")  # states of proc_pid_stat(5)

Object = dict[str, Any]


class Looker:
    """Keeps what a single look cannot know: earlier counters, and what happened here."""

    def __init__(self, cluster: WholeCluster, prometheus: Prometheus, *, faults: bool) -> None:
        self._cluster = cluster
        self._prometheus = prometheus
        self._queries = queries.Queries(cluster.site.file.profile)
        self._faults = faults
        self._carried: dict[str, Carried] = {}
        self._rates: dict[str, deque[Point]] = {}
        self._events: list[Event] = []
        self._own: deque[Event] = deque(maxlen=view.EVENTS_SHOWN)

    def note(self, event: Event) -> None:
        """Add what was done by a button."""
        self._own.append(event)

    def look(self) -> View:
        """Return the lab as it is now."""
        taken, now = picture.take(self._cluster), time.time()
        trouble: list[str] = []
        rates = self._count(taken, now)
        charts, alerts, probed = self._ask(now, trouble)
        if not taken.api:
            self._events = self._listed(trouble)
        found = view.Found(
            picture=taken,
            now=now,
            faults=self._faults,
            trouble=trouble,
            hung=hung(taken),
            rates=rates,
            charts=[self._packets(), *charts],
            probed=probed,
            alerts=alerts,
            events=[*self._events, *self._own],
            monitored=bool(self._prometheus),
        )
        return view.build(found)

    def _count(self, taken: Picture, now: float) -> dict[str, tuple[float | None, float | None]]:
        found = {}
        for one in taken.hosts:
            try:
                host = self._cluster.lab.host(one.name)
                carried = host.call(counters.read, UPLINK, time.monotonic())
            except (NetnsError, OSError):  # it has gone just now
                continue
            found[one.name] = counters.rates(self._carried.get(one.name), carried)
            if carried is not None:
                self._carried[one.name] = carried
            points = self._rates.setdefault(one.name, deque(maxlen=_LOOKS_KEPT))
            sent = found[one.name][1]
            points.append(Point(round(now, 1), None if sent is None else round(sent, 1)))
        return found

    def _packets(self) -> Chart:
        lines = [Series(name=name, points=list(points)) for name, points in self._rates.items()]
        return Chart(id="packets", title="Packets sent by each host", unit="/s", series=lines)

    def _ask(
        self, now: float, trouble: list[str]
    ) -> tuple[list[Chart], list[Alert], dict[tuple[str, str], tuple[float | None, float | None]]]:
        """Return what only Prometheus knows; nothing where there is none."""
        if not self._prometheus:
            return [], [], {}
        try:
            step = max(1.0, HISTORY_S / queries.POINTS)
            charts = [
                Chart(
                    id=one.id,
                    title=one.title,
                    unit=one.unit,
                    series=self._prometheus.over_time(one.query, now, HISTORY_S, step),
                    empty=one.empty,
                )
                for one in self._queries.charts
            ]
            losses = queries.by_service(self._prometheus.values(self._queries.loss_of_services))
            delays = queries.by_service(self._prometheus.values(self._queries.latency_of_services))
            probed = {
                key: (losses.get(key), delays.get(key)) for key in losses.keys() | delays.keys()
            }
            return charts, self._prometheus.alerts(), probed
        except errors.KproxyError as error:
            trouble.append(str(error))
            return [], [], {}

    def _listed(self, trouble: list[str]) -> list[Event]:
        try:
            return view.newest(map(event, self._cluster.api.objects(catalog.EVENT)))
        except errors.KproxyError as error:
            trouble.append(f"Events cannot be listed: {error}")
            return self._events


def hung(taken: Picture) -> frozenset[tuple[str, str]]:
    """Return the processes that were stopped by a signal: they live, and do nothing."""
    return frozenset(
        (one.host, one.role)
        for one in taken.control_plane
        if one.pid and stat_fields(one.pid)[:1] in ([state] for state in _STOPPED)
    )


def event(obj: Object) -> Event:
    """Return an Event object as it is shown."""
    meta, about = obj["metadata"], obj.get("involvedObject") or obj.get("regarding") or {}
    times = [obj.get("lastTimestamp"), obj.get("eventTime"), meta.get("creationTimestamp")]
    at = next((found for found in map(seconds_of, times) if found is not None), 0)
    name = "/".join(filter(None, (about.get("namespace"), about.get("name"))))
    return Event(
        at=float(at),
        kind=str(obj.get("type") or "Normal"),
        reason=str(obj.get("reason") or ""),
        about=f"{about.get('kind', '')} {name}".strip(),
        text=str(obj.get("message") or obj.get("note") or ""),
        count=int(obj.get("count") or 1),
    )

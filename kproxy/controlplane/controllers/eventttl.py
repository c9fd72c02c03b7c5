"""Events do not stay for ever: an hour after they happened last they are removed.

Looks at the moment at which the oldest is due, and else after an hour, because an event that
comes meanwhile is not due before.
"""

import time
from collections.abc import Callable
from typing import Any

from kproxy import logs
from kproxy.api import catalog
from kproxy.controlplane.cluster import Cluster

from . import owned
from .times import DEFAULT, Times

Object = dict[str, Any]

KEY = "events"
LEAST = 60.0
"""Not more often than this; an event may stay that much longer."""


class EventTtlController:
    """Looks at all events together. ``wall`` is the time of day in seconds."""

    def __init__(
        self,
        cluster: Cluster,
        log: logs.Log,
        *,
        times: Times = DEFAULT,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._log = log
        self._ttl = times.event_ttl
        self._wall = wall

    def reconcile(self, key: str) -> float | None:
        """Remove old events; return in how many seconds to look again."""
        now = self._wall()
        next_due, removed = now + self._ttl, 0
        for event in self._cluster.fresh_list(catalog.EVENT):
            due = last(event) + self._ttl
            if due > now:
                next_due = min(next_due, due)
                continue
            meta = event["metadata"]
            self._cluster.delete(catalog.EVENT, meta["namespace"], meta["name"], uid=meta["uid"])
            removed += 1
        if removed:
            self._log.info("events removed", count=removed)
        return max(next_due - now, LEAST)


def last(event: Object) -> float:
    """Return when an event happened last, by the time of day in seconds."""
    series = event.get("series") or {}
    stamps = (
        series.get("lastObservedTime"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        event["metadata"].get("creationTimestamp"),
    )
    return max(owned.seconds(one) for one in stamps if one)

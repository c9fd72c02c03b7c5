"""What the kubelet has to tell the API server: per pod only the newest, tried until it is through.

The kubelet must go on restarting containers while the API server is away or slow, so it never
waits for it: it leaves its reports here, and a thread of their own sends them. Events go the same
way, after the reports.
"""

import threading
from dataclasses import dataclass
from typing import Any

from kproxy import errors, logs
from kproxy.api import catalog

from .backoff import RetryBackoff
from .cluster import Cluster

Object = dict[str, Any]

MOST_SECONDS = 2.0
"""The longest wait after a failure: when the API server is back, it should soon know how things
are."""
MOST_EVENTS = 500
_EVENTS = "events"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The newest news of a pod: its status, or None: it is gone, delete it for good.

    ``mirror``: the pod is static, and this is its image in the API, made if it is not there.
    """

    namespace: str
    name: str
    uid: str
    status: Object | None
    mirror: Object | None = None


class Outbox:
    """Reports by pod uid. :meth:`put` never waits; :meth:`run` sends in a thread."""

    def __init__(self, cluster: Cluster, log: logs.Log) -> None:
        self._cluster = cluster
        self._log = log
        self._changed = threading.Condition()
        self._reports: dict[str, Report] = {}
        self._events: dict[str, Object] = {}
        self._backoff = RetryBackoff(MOST_SECONDS)
        self._fresh = False
        self._stopped = False

    def put(self, report: Report) -> None:
        """Leave a report; it takes the place of an older one of the same pod."""
        with self._changed:
            self._reports[report.uid] = report
            self._fresh = True
            self._changed.notify_all()

    def put_event(self, event: Object) -> None:
        """Leave an Event; it takes the place of one of the same name, and the oldest may go."""
        meta = event["metadata"]
        with self._changed:
            self._events[f"{meta['namespace']}/{meta['name']}"] = event
            if len(self._events) > MOST_EVENTS:
                self._events.pop(next(iter(self._events)))
            self._fresh = True
            self._changed.notify_all()

    def flush(self) -> float | None:
        """Send what is there, each once; return the seconds until a failed one is due again.

        A report that the API server refuses because the pod is gone or another is dropped.
        """
        with self._changed:
            reports = list(self._reports.values())
            self._fresh = False
        waits: list[float] = []
        for report in reports:
            try:
                self._send(report)
            except errors.KproxyError as error:
                waits.append(self._backoff.failed(report.uid))
                self._log.warning("report failed", pod=report.name, error=str(error))
                continue
            self._backoff.succeeded(report.uid)
            with self._changed:
                if self._reports.get(report.uid) is report:
                    del self._reports[report.uid]
        if not waits:
            waits.extend(self._flush_events())
        return min(waits, default=None)

    def run(self) -> None:
        """Send reports as they come, until :meth:`stop`."""
        wait: float | None = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._fresh, wait)
                if self._stopped:
                    return
            wait = self.flush()

    def stop(self) -> None:
        """Make :meth:`run` return; what is unsent is left (a new kubelet reports anew)."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _send(self, report: Report) -> None:
        if report.status is None:
            uid = report.uid
            if report.mirror is not None:
                uid, current = self._mirrored(report.mirror)
                if not current:
                    return
            self._cluster.delete(catalog.POD, report.namespace, report.name, grace=0, uid=uid)
            return
        meta: Object = {"namespace": report.namespace, "name": report.name, "uid": report.uid}
        if report.mirror is not None:
            meta["uid"] = self._mirror(report.mirror)
        try:
            self._cluster.update_status(catalog.POD, {"metadata": meta, "status": report.status})
        except errors.ApiError as error:
            if error.code not in (404, 409):
                raise

    def _mirror(self, wanted: Object) -> str:
        """Return the uid of a static pod's image in the API, which is made anew if need be."""
        uid, current = self._mirrored(wanted)
        if current:
            return uid
        meta = wanted["metadata"]
        if uid:
            self._cluster.delete(catalog.POD, meta["namespace"], meta["name"], grace=0, uid=uid)
        return str(self._cluster.create(catalog.POD, wanted)["metadata"]["uid"])

    def _mirrored(self, wanted: Object) -> tuple[str, bool]:
        """Return the uid of the pod of that name (empty: none), and whether it is this image."""
        meta = wanted["metadata"]
        found = self._cluster.get(catalog.POD, meta["namespace"], meta["name"])
        if found is None:
            return "", False
        have = found["metadata"]
        same = (have.get("annotations") or {}).items() >= meta["annotations"].items()
        return str(have["uid"]), same and not have.get("deletionTimestamp")

    def _flush_events(self) -> list[float]:
        """Send the Events; return the wait after a failure of the way, if there was one."""
        with self._changed:
            events, self._events = self._events, {}
        for place, (name, event) in enumerate(events.items()):
            try:
                self._send_event(event)
            except errors.ApiError as error:
                self._log.debug("event refused", name=name, error=str(error))
            except errors.KproxyError:
                with self._changed:
                    self._events = {**dict(list(events.items())[place:]), **self._events}
                return [self._backoff.failed(_EVENTS)]
        self._backoff.succeeded(_EVENTS)
        return []

    def _send_event(self, event: Object) -> None:
        try:
            self._cluster.create(catalog.EVENT, event)
        except errors.Conflict:
            self._cluster.update(catalog.EVENT, event)

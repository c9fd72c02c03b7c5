"""What the kubelet has to tell the API server: per pod only the newest, tried until it is through.

The kubelet must go on restarting containers while the API server is away or slow, so it never
waits for it: it leaves its reports here, and a thread of their own sends them.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The newest news of a pod: its status, or None: it is gone, delete it for good."""

    namespace: str
    name: str
    uid: str
    status: Object | None


class Outbox:
    """Reports by pod uid. :meth:`put` never waits; :meth:`run` sends in a thread."""

    def __init__(self, cluster: Cluster, log: logs.Log) -> None:
        self._cluster = cluster
        self._log = log
        self._changed = threading.Condition()
        self._reports: dict[str, Report] = {}
        self._backoff = RetryBackoff(MOST_SECONDS)
        self._fresh = False
        self._stopped = False

    def put(self, report: Report) -> None:
        """Leave a report; it takes the place of an older one of the same pod."""
        with self._changed:
            self._reports[report.uid] = report
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
            self._cluster.delete(
                catalog.POD, report.namespace, report.name, grace=0, uid=report.uid
            )
            return
        obj = {
            "metadata": {
                "namespace": report.namespace,
                "name": report.name,
                "uid": report.uid,
            },
            "status": report.status,
        }
        try:
            self._cluster.update_status(catalog.POD, obj)
        except errors.ApiError as error:
            if error.code not in (404, 409):
                raise

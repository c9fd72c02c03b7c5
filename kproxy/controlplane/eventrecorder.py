"""Events on objects: what ``kubectl describe`` shows of what was done to them, and why not.

They keep nobody waiting and never fail anything: one thread sends them; what cannot be sent is
lost (the log has it). As in ``client-go`` the same event again only raises a count, and each
object has a budget: 25 events, and one more every five minutes.
"""

import queue
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Protocol

from kproxy import errors, logs
from kproxy.api import catalog, kinds
from kproxy.rfc3339 import timestamp

Object = dict[str, Any]

BURST = 25
REFILL_S = 300.0
"""An object's budget of events, and how long it takes to earn another one."""
SAME_S = 600.0
"""An event like an earlier one is counted on that for so long."""
MOST = 4096
"""So many objects' budgets, and events, are remembered."""
WAITING_MOST = 1000
MESSAGE_MOST = 1024

NORMAL = "Normal"
WARNING = "Warning"


class Events(Protocol):
    """Where controllers tell what they did."""

    def event(
        self, kind: kinds.Kind, obj: Object, reason: str, message: str, *, warning: bool = False
    ) -> None:
        """Tell something about an object. Returns at once. ``reason``: one word for machines."""
        ...


class Sink(Protocol):
    """The part of a ``Cluster`` that events need."""

    def create(self, kind: kinds.Kind, obj: Object) -> Object:
        """Create an object."""
        ...

    def patch(
        self, kind: kinds.Kind, namespace: str, name: str, patch: Object, subresource: str = ""
    ) -> Object:
        """Change an object by a merge patch."""
        ...


@dataclass(slots=True)
class _Sent:
    """An event that was sent, and how often it happened."""

    name: str
    count: int
    at: float


class Budget:
    """Which events may be sent: told the time (seconds, monotonic)."""

    def __init__(self) -> None:
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admits(self, obj: str, now: float) -> bool:
        """Return whether an object may have one more event now, and count it if so."""
        left, at = self._left.pop(obj, (float(BURST), now))
        left = min(float(BURST), left + (now - at) / REFILL_S)
        admitted = left >= 1
        self._left[obj] = left - admitted, now
        if len(self._left) > MOST:
            self._left.popitem(last=False)
        return admitted


class Recorder:
    """Sends the events of one component, from a thread that starts with the first one."""

    def __init__(self, sink: Sink, component: str, log: logs.Log) -> None:
        self._sink = sink
        self._component = component
        self._log = log
        self._lock = threading.Lock()
        self._budget = Budget()
        self._sent: OrderedDict[tuple[str, ...], _Sent] = OrderedDict()
        self._waiting: queue.Queue[tuple[Object, float] | None] = queue.Queue(WAITING_MOST)
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._latest = 0
        """The number in the name of the event that was made last: nanoseconds."""

    def event(
        self, kind: kinds.Kind, obj: Object, reason: str, message: str, *, warning: bool = False
    ) -> None:
        """See :class:`Events`."""
        now, about = time.monotonic(), _about(kind, obj)
        with self._lock:
            if self._stopped or not self._budget.admits(about["uid"], now):
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="events", daemon=True)
                self._thread.start()
        body = {
            "involvedObject": about,
            "reason": reason,
            "message": message[:MESSAGE_MOST],
            "type": WARNING if warning else NORMAL,
        }
        try:
            self._waiting.put_nowait((body, now))
        except queue.Full:
            self._log.debug("event lost", reason=reason)

    def stop(self) -> None:
        """Send nothing more; return when nothing is under way."""
        with self._lock:
            self._stopped = True
            thread = self._thread
        if thread is None:
            return
        while thread.is_alive():
            try:
                self._waiting.put_nowait(None)
                break
            except queue.Full:
                self._waiting.get_nowait()
        thread.join()

    def _run(self) -> None:
        while (found := self._waiting.get()) is not None:
            if self._stopped:
                return
            body, now = found
            try:
                self._send(body, now)
            except errors.KproxyError as error:
                self._log.debug("event lost", reason=body["reason"], error=str(error))

    def _send(self, body: Object, now: float) -> None:
        about = body["involvedObject"]
        same = (about["uid"], body["type"], body["reason"], body["message"])
        wall = time.time()
        stamp = timestamp(wall)
        namespace = about["namespace"] or "default"
        sent = self._sent.pop(same, None)
        if sent is not None and now - sent.at < SAME_S:
            patch = {"count": sent.count + 1, "lastTimestamp": stamp}
            try:
                self._sink.patch(catalog.EVENT, namespace, sent.name, patch)
                self._sent[same] = _Sent(sent.name, sent.count + 1, now)
                return
            except errors.ApiError as error:
                if error.code != 404:
                    raise
        # Several within one tick of the clock (in virtual time there are) have names of their own.
        self._latest = max(self._latest + 1, int(wall * 1e9))
        name = f"{about['name']}.{self._latest:x}"
        self._sink.create(catalog.EVENT, self._event(body, name, namespace, stamp))
        self._sent[same] = _Sent(name, 1, now)
        if len(self._sent) > MOST:
            self._sent.popitem(last=False)

    def _event(self, body: Object, name: str, namespace: str, stamp: str) -> Object:
        return {
            "apiVersion": catalog.EVENT.api_version,
            "kind": catalog.EVENT.name,
            "metadata": {"name": name, "namespace": namespace},
            **body,
            "count": 1,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": "",
        }


def _about(kind: kinds.Kind, obj: Object) -> Object:
    meta = obj["metadata"]
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "namespace": meta.get("namespace", ""),
        "name": meta["name"],
        "uid": meta.get("uid", ""),
        "resourceVersion": meta.get("resourceVersion", ""),
    }

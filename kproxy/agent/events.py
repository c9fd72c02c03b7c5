"""Events on the Node object, so that who looks at the node learns what this proxy suffers from.

They never keep anybody waiting: one thread sends them, a few at most; the same one again only
after a while; and where the API server does not take them, they are lost (the log has them all).
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from kproxy import rfc3339
from kproxy.client.rest import Rest
from kproxy.errors import ApiError, KproxyError
from kproxy.logs import Log

PATH = "/apis/events.k8s.io/v1/namespaces/default/events"
CONTROLLER = "kube-proxy"
"""What events of a node's proxy are known by."""

WAITING_MOST = 16
SILENCE_S = 600.0
"""The same event again only after so long."""
INTERVAL_S = 10.0
BURST = 10
"""Events are sent one each interval, and so many at once after a quiet time."""
NOTE_MOST = 1024
"""Longest note that the API accepts, in bytes."""


class Limit:
    """Which events may be sent: told the time (seconds, monotonic)."""

    def __init__(self) -> None:
        self._sent: dict[tuple[str, str], float] = {}
        self._tokens = float(BURST)
        self._at = 0.0

    def admits(self, reason: str, note: str, now: float) -> bool:
        """Return whether to send an event now, and count it if so."""
        self._tokens = min(float(BURST), self._tokens + (now - self._at) / INTERVAL_S)
        self._at = now
        self._sent = {key: at for key, at in self._sent.items() if now - at < SILENCE_S}
        if (reason, note) in self._sent or self._tokens < 1:
            return False
        self._tokens -= 1
        self._sent[reason, note] = now
        return True


class Events:
    """Sends events of one node. :meth:`warn` may be called from any thread."""

    def __init__(self, rest: Rest, node: str, uid: Callable[[], str], log: Log) -> None:
        self._rest = rest.derive()
        self._node = node
        self._uid = uid
        self._log = log
        self._lock = threading.Lock()
        self._limit = Limit()
        self._waiting: queue.Queue[tuple[str, str]] = queue.Queue(WAITING_MOST)
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._refused = False

    def warn(self, reason: str, note: str) -> None:
        """Tell of something wrong. ``reason``: one word for machines. Returns at once."""
        with self._lock:
            if self._refused or not self._limit.admits(reason, note, time.monotonic()):
                return
            if not self._thread.is_alive():
                self._thread.start()
        try:
            self._waiting.put_nowait((reason, note))
        except queue.Full:
            self._log.debug("event lost", reason=reason, note=note)

    def _run(self) -> None:
        while not self._refused:
            reason, note = self._waiting.get()
            self._send(event(self._node, self._uid(), reason, note, time.time()))

    def _send(self, body: Mapping[str, Any]) -> None:
        try:
            self._rest.request("POST", PATH, body=msgspec.json.encode(body))
        except ApiError as error:
            # A server without events, or one that does not want ours, will not change its mind.
            self._refused = error.code in (403, 404, 405)
            self._log.debug("event refused", reason=body["reason"], error=str(error))
        except KproxyError as error:
            self._log.debug("event lost", reason=body["reason"], error=str(error))


def event(node: str, uid: str, reason: str, note: str, wall: float) -> Mapping[str, Any]:
    """Return an Event about a Node as the API wants it."""
    stamp = rfc3339.microtime(wall)
    unique = f"{node}.{int(wall * 1e9):x}{os.getpid():x}"
    short = note.encode()[:NOTE_MOST].decode(errors="ignore")
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": unique, "namespace": "default"},
        "eventTime": stamp,
        "reportingController": CONTROLLER,
        "reportingInstance": f"{CONTROLLER}-{node}",
        "action": "Sync",
        "reason": reason,
        "regarding": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid or node},
        "note": short,
        "type": "Warning",
    }

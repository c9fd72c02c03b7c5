"""Events on the object that is repaired, so that who looks at a node learns what was done to it.

They never keep anybody waiting: one thread sends them, and where the API server does not take
them they are lost; the journal has everything.
"""

import os
import queue
import threading
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from kproxy import rfc3339
from kproxy.api import catalog, kinds
from kproxy.client.objects import ObjectClient
from kproxy.client.rest import Rest
from kproxy.errors import KproxyError
from kproxy.logs import Log

CONTROLLER = "kproxy-remediation"
WAITING_MOST = 64
NOTE_MOST = 1024
"""Longest note that the API accepts, in bytes."""
_VERSIONS = {"Node": "v1", "Service": "v1", "Pod": "v1"}


class Events:
    """Sends events, if there is an API server. :meth:`tell` may be called from any thread."""

    def __init__(self, rest: Rest | None, log: Log) -> None:
        self._rest = rest.derive() if rest is not None else None
        self._log = log
        self._waiting: queue.Queue[Mapping[str, Any]] = queue.Queue(WAITING_MOST)
        if self._rest is not None:
            threading.Thread(target=self._run, name="events", daemon=True).start()

    def tell(self, target: str, reason: str, note: str, *, warning: bool = False) -> None:
        """Tell of a target (``Target.key``); ``reason`` is one word. Returns at once."""
        if self._rest is None or target.partition("/")[0] not in _KINDS:
            return
        try:
            self._waiting.put_nowait(event(target, reason, note, time.time(), warning=warning))
        except queue.Full:
            self._log.debug("event lost", reason=reason, note=note)

    def flush(self, within: float) -> None:
        """Wait until all is sent or lost, at most so many seconds: for who is about to end."""
        done = self._waiting.all_tasks_done
        with done:
            done.wait_for(lambda: not self._waiting.unfinished_tasks, within)

    def _run(self) -> None:
        while True:
            self._send(self._waiting.get())
            self._waiting.task_done()

    def _send(self, body: Mapping[str, Any]) -> None:
        assert self._rest is not None
        namespace = body["metadata"]["namespace"]
        path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
        try:
            body["regarding"]["uid"] = self._uid(body["regarding"])
            self._rest.request("POST", path, body=msgspec.json.encode(body))
        except (KproxyError, msgspec.MsgspecError, KeyError, TypeError, AttributeError) as error:
            # From the second on: a proxy before the API server answers what it likes.
            self._log.debug("event lost", reason=body["reason"], error=str(error))

    def _uid(self, regarding: Mapping[str, str]) -> str:
        """Return the uid by which ``kubectl describe`` finds the event."""
        assert self._rest is not None
        kind = _KINDS[regarding["kind"]]
        found = ObjectClient(self._rest).get(kind, regarding["namespace"], regarding["name"])
        return str(found["metadata"].get("uid", "")) if found else regarding["name"]


_KINDS: Mapping[str, kinds.Kind] = {
    "Node": kinds.NODE,
    "Service": kinds.SERVICE,
    "Pod": catalog.POD,
    "DaemonSet": catalog.DAEMON_SET,
    "Deployment": catalog.DEPLOYMENT,
}


def event(target: str, reason: str, note: str, wall: float, *, warning: bool) -> dict[str, Any]:
    """Return an Event about a target as the API wants it."""
    kind, _, rest = target.partition("/")
    namespace, _, name = rest.rpartition("/")
    stamp = rfc3339.microtime(wall)
    short = note.encode()[:NOTE_MOST].decode(errors="ignore")
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": f"{name[:200]}.{int(wall * 1e9):x}{os.getpid():x}",
            "namespace": namespace or "default",
        },
        "eventTime": stamp,
        "reportingController": CONTROLLER,
        "reportingInstance": CONTROLLER,
        "action": "Repair",
        "reason": reason,
        "regarding": {
            "apiVersion": _VERSIONS.get(kind, "apps/v1"),
            "kind": kind,
            "namespace": namespace,
            "name": name,
        },
        "note": short,
        "type": "Warning" if warning else "Normal",
    }

"""How well the cluster's nodes are: a repair made for one node is no cure for a sick cluster."""

import threading
import time
from collections.abc import Callable, Mapping

from kproxy.api import kinds
from kproxy.client.objects import ObjectClient
from kproxy.client.rest import Rest
from kproxy.errors import KproxyError

from .attempt import Attempt

PATIENCE_S = 3.0
"""So long the API server may take; then what was known before has to do."""
FRESH_S = 2.0
"""So long an answer is used again: a storm of alerts must not become one of requests."""

NotReady = Mapping[str, bool]
"""Nodes by name, and whether they are not ready."""


class NodeHealth:
    """Asks the API server for its nodes, and remembers the last answer."""

    def __init__(self, rest: Rest | None, now: Callable[[], float] = time.monotonic) -> None:
        self._rest = rest.derive() if rest is not None else None
        self._now = now
        self._lock = threading.Lock()
        self._asked: Attempt[NotReady] | None = None
        self._known: NotReady = {}
        self._at = -FRESH_S

    def not_ready(self) -> NotReady:
        """Return the nodes as they are, or as they were last known; empty: never known."""
        with self._lock:
            if self._rest is None or self._now() - self._at < FRESH_S:
                return self._known
            if self._asked is None or not self._asked.lives:
                self._asked = Attempt(self._ask, "nodes")
            asked = self._asked
            if asked.wait(PATIENCE_S) and asked.result is not None:
                self._known = asked.result
            self._at = self._now()
            return self._known

    def _ask(self) -> NotReady:
        assert self._rest is not None
        try:
            nodes = ObjectClient(self._rest).list_objects(kinds.NODE)
        except KproxyError:
            return self._known
        return {one["metadata"]["name"]: not _is_ready(one.get("status") or {}) for one in nodes}


def _is_ready(status: Mapping[str, object]) -> bool:
    conditions = status.get("conditions")
    if not isinstance(conditions, list):
        return False
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)

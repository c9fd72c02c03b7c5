"""Events about pods, as ``kubectl describe`` shows them: like ones counted, many held back."""

import hashlib
import threading
from collections.abc import Callable
from typing import Any

from kproxy.api.pods import Pod

from .eventrecorder import Budget

Object = dict[str, Any]

KEPT = 1000


class PodEvents:
    """Makes Events and gives them to ``send``. Safe to use from several threads.

    ``now``: monotonic seconds; ``today``: the wall clock as Kubernetes writes it.
    """

    def __init__(
        self,
        node_name: str,
        send: Callable[[Object], None],
        *,
        now: Callable[[], float],
        today: Callable[[], str],
    ) -> None:
        self._source = {"component": "kubelet", "host": node_name}
        self._send = send
        self._now = now
        self._today = today
        self._lock = threading.Lock()
        self._known: dict[str, Object] = {}
        self._budget = Budget()

    def note(self, pod: Pod, reason: str, message: str, *, warning: bool = False) -> None:
        """Take an Event; never waits."""
        meta = pod.metadata
        words = "\n".join((meta.uid, reason, message))
        name = f"{meta.name}.{hashlib.blake2b(words.encode(), digest_size=8).hexdigest()}"
        with self._lock:
            if not self._budget.admits(meta.uid, self._now()):
                return
            today = self._today()
            before = self._known.pop(name, {"firstTimestamp": today, "count": 0})
            event = {
                "metadata": {"namespace": meta.namespace, "name": name},
                "involvedObject": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "namespace": meta.namespace,
                    "name": meta.name,
                    "uid": meta.uid,
                },
                "type": "Warning" if warning else "Normal",
                "reason": reason,
                "message": message[:1024],
                "source": self._source,
                "reportingComponent": "kubelet",
                "firstTimestamp": before["firstTimestamp"],
                "lastTimestamp": today,
                "count": before["count"] + 1,
            }
            self._known[name] = event
            if len(self._known) > KEPT:
                self._known.pop(next(iter(self._known)))
        self._send(event)

"""Is the proxy healthy? A state machine told the time; semantics and bodies are kube-proxy's.

``/livez``: 503 if a change has been waiting for longer than the time-out without getting into the
kernel, else 200; also before the first sync. ``/healthz``: the same, and 503 while the node is
being deleted or the cluster autoscaler has marked it, so that load balancers turn away early.
"""

import time

from kproxy.agent.http import Answer
from kproxy.api import core

TO_BE_DELETED_TAINT = "ToBeDeletedByClusterAutoscaler"
_NEVER = "0001-01-01 00:00:00 +0000 UTC"


class ProxyHealth:
    """Knows since when changes wait. ``now`` is monotonic, ``wall`` the time of day, in seconds.

    Methods may be called from several threads: each assigns single attributes only.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout = timeout_s
        self._waiting_since: float | None = None
        self._syncing_since: float | None = None
        self._updated_at: float | None = None
        self._eligible = True

    def queued(self, now: float) -> None:
        """Tell that a change came which is not in the kernel yet."""
        if self._waiting_since is None:
            self._waiting_since = now

    def sync_started(self) -> None:
        """Tell that a sync of all that was queued begins."""
        if self._syncing_since is None:
            self._syncing_since = self._waiting_since
        self._waiting_since = None

    def sync_succeeded(self, wall: float) -> None:
        """Tell that the sync has ended well; after one that failed its changes still wait."""
        self._syncing_since = None
        self._updated_at = wall

    def node_changed(self, node: core.Node | None) -> None:
        """Take the newest version of this node's object; None if it is gone."""
        if node is None:
            self._eligible = False
            return
        tainted = any(taint.key == TO_BE_DELETED_TAINT for taint in node.spec.taints or ())
        self._eligible = node.metadata.deletion_timestamp is None and not tainted

    def livez(self, now: float, wall: float) -> Answer:
        """Answer ``/livez``."""
        alive = self._in_time(now)
        return Answer(200 if alive else 503, f"{{{self._times(wall, healthy=alive)}}}")

    def healthz(self, now: float, wall: float) -> Answer:
        """Answer ``/healthz``."""
        eligible = self._eligible
        healthy = eligible and self._in_time(now)
        word = "true" if eligible else "false"
        body = f'{{{self._times(wall, healthy=healthy)}, "nodeEligible": {word}}}'
        return Answer(200 if healthy else 503, body)

    def keeps_up_now(self) -> bool:
        """Return whether no change has been waiting for too long, by the monotonic clock."""
        return self._in_time(time.monotonic())

    def _in_time(self, now: float) -> bool:
        if self._updated_at is None:
            return True  # still starting
        since = self._syncing_since if self._syncing_since is not None else self._waiting_since
        return since is None or now - since < self._timeout

    def _times(self, wall: float, *, healthy: bool) -> str:
        # While all is well nothing may have changed for hours: then "last updated" is now.
        updated = wall if healthy else self._updated_at
        return f'"lastUpdated": "{_stamp(updated)}","currentTime": "{_stamp(wall)}"'


def _stamp(wall: float | None) -> str:
    """Return a time as Go prints it."""
    if wall is None:
        return _NEVER
    text = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(wall))
    return f"{text}.{int(wall % 1 * 1e9):09d} +0000 UTC"

"""Events are forgotten after an hour, as in Kubernetes: they tell what happens, not what is."""

import threading
import time
from collections.abc import Callable

from kproxy import errors, logs, rfc3339

from .presentation import cells
from .store import Store
from .versions import Object, key_of

TTL_SECONDS = 3600.0
LOOK_SECONDS = 60.0


def expire(store: Store, now: float, ttl: float = TTL_SECONDS) -> int:
    """Delete the Events that have not been seen for ``ttl`` seconds; return how many."""
    gone = 0
    for item in store.list("events", fresh=False)[0]:
        if last_seen(item.obj) + ttl > now:
            continue
        try:
            version = item.obj["metadata"]["resourceVersion"]
            store.delete("events", key_of(item.obj), version=version)
            gone += 1
        except errors.ApiError as error:  # another server was faster, or it was seen again
            if error.code not in (404, 409):
                raise
    return gone


def last_seen(event: Object) -> float:
    """Return when an Event happened last, in seconds since the epoch."""
    times = [
        event["metadata"].get("creationTimestamp"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        cells.at(event, "series", "lastObservedTime"),
    ]
    return max(rfc3339.seconds_of(text) or 0.0 for text in times)


def keep_expiring(store: Store, log: logs.Log, now: Callable[[], float] = time.time) -> None:
    """Look for what has expired until the store is closed, in a thread of its own."""

    def run() -> None:
        while not store.wait_closed(LOOK_SECONDS):
            try:
                expire(store, now())
            except errors.ApiError as error:
                log.warning("cannot expire events", error=str(error))

    threading.Thread(target=run, name="events", daemon=True).start()

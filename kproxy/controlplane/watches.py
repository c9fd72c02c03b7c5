"""Watches: the changes of a collection, as lines, until the client or the time is gone."""

import time
from collections.abc import Iterator, Sequence

import msgspec

from kproxy import errors

from . import eventviews, lists, routes, selectors, status, versions
from .requests import Options, Query, number, truth
from .store import Store
from .versions import Event, EventType
from .views import View

BOOKMARK_SECONDS = 60.0
TICK_SECONDS = 10.0
"""How often an idle watch looks whether its client is still there."""
WATCH_SECONDS = 1800.0
"""How long a watch without ``timeoutSeconds`` lasts."""
INITIAL_END = {"k8s.io/initial-events-end": "true"}

_encode = msgspec.json.Encoder().encode


class Watch:
    """One watch, from the check of its request on; iterating over it gives its lines.

    A line is empty now and then: an occasion to look whether the client is there. Raises ApiError
    400 for a bad request; a version that is too old is an ERROR line, as in Kubernetes.
    """

    def __init__(
        self, store: Store, target: routes.Target, query: Query, options: Options
    ) -> None:
        self._store = store
        self._resource = eventviews.resource(target.kind)
        self._namespace = target.namespace
        self._view = View(target.kind, options)
        self._selected = lists.selector(target, query)
        self._since = number(query, "resourceVersion", 0)
        self._initial = truth(query, "sendInitialEvents")
        self._bookmarks = truth(query, "allowWatchBookmarks")
        seconds = number(query, "timeoutSeconds", 0) or WATCH_SECONDS
        self._end = time.monotonic() + seconds
        match = query.get("resourceVersionMatch", "")
        if self._initial and match != "NotOlderThan":
            message = "sendInitialEvents: resourceVersionMatch must be NotOlderThan"
            raise errors.ApiError(422, "Invalid", message)

    def __iter__(self) -> Iterator[bytes]:
        """Yield lines: without a version (or with "0") what is there comes first, as ADDED."""
        if self._since == 0 or self._initial:
            yield self._what_is_there()
        marked = time.monotonic()
        while not self._store.closed:
            now = time.monotonic()
            if now >= self._end:
                break
            try:
                events, self._since = self._store.events(
                    self._resource, self._since, min(TICK_SECONDS, self._end - now)
                )
            except errors.ApiError as error:
                yield _line("ERROR", _encode(status.failure(error)))
                return
            lines = self._told(events)
            if self._bookmarks and time.monotonic() - marked >= BOOKMARK_SECONDS:
                marked = time.monotonic()
                lines.append(_line("BOOKMARK", self._view.bookmark(self._since)))
            yield b"".join(lines)
        if self._bookmarks and not self._store.closed:
            yield _line("BOOKMARK", self._view.bookmark(self._since))

    def _what_is_there(self) -> bytes:
        items, self._since = self._store.list(self._resource, self._namespace)
        chosen = [i for i in items if self._selected is None or self._selected(i.obj)]
        lines = [_line(EventType.ADDED, self._view.watched(item)) for item in chosen]
        if self._initial and self._bookmarks:
            lines.append(_line("BOOKMARK", self._view.bookmark(self._since, dict(INITIAL_END))))
        return b"".join(lines)

    def _told(self, events: Sequence[Event]) -> list[bytes]:
        lines = []
        for event in events:
            if self._namespace and event.item.obj["metadata"].get("namespace") != self._namespace:
                continue
            kind = _seen_as(event, self._selected)
            if kind is None:
                continue
            item = event.item
            if kind is EventType.DELETED and event.previous is not None:
                # What the watcher knew, as when it was really deleted; not what it may not see.
                item = versions.item(event.previous, event.version)
            lines.append(_line(kind, self._view.watched(item)))
        return lines


def _seen_as(event: Event, selected: selectors.Predicate | None) -> EventType | None:
    """Return what an event is to the watcher: an object that stops matching is DELETED to it."""
    if selected is None:
        return event.type
    before = event.previous is not None and selected(event.previous)
    after = event.type is not EventType.DELETED and selected(event.item.obj)
    if before and after:
        return EventType.MODIFIED
    if after:
        return EventType.ADDED
    return EventType.DELETED if before else None


def _line(event_type: str, raw: bytes) -> bytes:
    return b'{"type":"%b","object":%b}\n' % (event_type.encode(), raw)

"""Keeps up with all objects of one kind: list, watch, and again when the watch ends.

One thread per informer. It blocks in reads and in waits with deadlines and never polls. What it
hears it hands on as pairs ``(old, new)``, in order, from its own thread:

* ``old`` None: the object is new; ``new`` None: it is gone;
* after a break the objects are listed again and only the differences are told, so that a handler
  never hears of an object twice, and hears of those that vanished meanwhile;
* ``on_changes`` gets all differences of a list in one call, ``on_change`` one by one: what is new
  or changed first, what is gone last, because something may have been replaced under another name;
* an object that cannot be decoded goes to ``on_problem``; its last good version stays in force.

An exception of a handler is a bug: it ends the thread through ``threading.excepthook``.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from kproxy.api import codec, kinds
from kproxy.api.codec import EventType
from kproxy.errors import ApiError, Gone, InvalidItem, KproxyError

from .backoff import Backoff, BackoffPolicy, lots
from .rest import Rest

T = TypeVar("T", bound=Any)
Key = tuple[str, str]
Change = tuple[T | None, T | None]

RETRY_AFTER_MAX_S = 60.0
"""However long a server wants to be left in peace, it is asked again after so long."""


AT_ONCE_EVERY_S = 10.0
"""A version that has expired leads to a new list at once, but not more often than this."""


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which objects of a kind are wanted."""

    namespace: str = ""
    label_selector: str = ""
    field_selector: str = ""


class Informer(Generic[T]):
    """Follows the objects of the type ``wanted``."""

    THREAD_PREFIX = "informer-"

    def __init__(
        self,
        rest: Rest,
        wanted: type[T],
        *,
        on_change: Callable[[T | None, T | None], None] | None = None,
        on_changes: Callable[[Sequence[Change[T]]], None] | None = None,
        on_synced: Callable[[], None] | None = None,
        on_problem: Callable[[KproxyError], None] | None = None,
        selection: Selection | None = None,
        policy: BackoffPolicy | None = None,
        lot: Callable[[], float] | None = None,
    ) -> None:
        codec.prepare(wanted)  # here: the threads of several informers may not
        self._rest = rest.derive()
        self._wanted = wanted
        self._on_change = on_change
        self._on_changes = on_changes
        self._on_synced = on_synced
        self._on_problem = on_problem
        self._selection = selection or Selection()
        self._backoff = Backoff(policy)
        seed = f"{os.uname().nodename} {os.getpid()} {wanted.__name__}"
        self._lot = lot or lots(seed).__next__
        self._objects: dict[Key, T] = {}
        self._version = ""
        self._heard_at = 0.0
        self._asked_at = math.inf
        """Since when the server owes an answer: waiting for it in vain counts as waiting."""
        self._listed_at_once = -math.inf
        self._stopping = threading.Event()
        self._synced = False
        self._synced_or_stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"{self.THREAD_PREFIX}{wanted.__name__}", daemon=True
        )

    @property
    def synced(self) -> bool:
        """Return whether the first list has been handed to the handler."""
        return self._synced

    @property
    def kind(self) -> kinds.Kind:
        """Return what it follows."""
        return kinds.for_type(self._wanted)

    @property
    def selective(self) -> bool:
        """Return whether it follows some objects of the kind only."""
        return self._selection != Selection()

    @property
    def version(self) -> str:
        """Return the version that its objects are as new as, as far as it was told."""
        return self._version

    @property
    def heard_at(self) -> float:
        """Return when the server last told something, seconds since 1970; 0: never.

        A server tells of an idle kind, too: "bookmarks", about once a minute.
        """
        return self._heard_at

    @property
    def count(self) -> int:
        """Return how many objects are known."""
        return len(self._objects)

    @property
    def objects(self) -> Mapping[Key, T]:
        """Return the objects as known now, by namespace and name: a copy."""
        return self._objects.copy()

    def start(self) -> None:
        """Begin to list and watch, in a thread of its own."""
        self._thread.start()

    def wait_synced(self, timeout: float | None = None) -> bool:
        """Wait for the first list, or :meth:`stop`; return whether it has come."""
        self._synced_or_stopped.wait(timeout)
        return self._synced

    def stop(self, timeout: float | None = 5.0) -> None:
        """End it, also in the middle of a read; return when its thread has ended."""
        self._stopping.set()
        self._synced_or_stopped.set()
        self._rest.close()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopping.is_set():
            refused, at_least = False, 0.0
            self._asked_at = time.monotonic()
            try:
                if not self._version:
                    self._list()
                self._watch()
            except Gone:
                self._version = ""
                if self._may_list_at_once(time.monotonic()):
                    continue
            except ApiError as error:
                refused, at_least = True, min(error.retry_after, RETRY_AFTER_MAX_S)
                if self._backoff.impatient:
                    # Perhaps the server has lost its store, and knows nothing of this version.
                    self._version = ""
                self._tell(error)
            except KproxyError as error:
                self._tell(error)
            now = time.monotonic()
            delay = self._backoff.failed(now, self._lot(), refused=refused)
            if not refused:
                delay -= max(0.0, now - self._asked_at)
            self._stopping.wait(max(delay, at_least, 0.0))

    def _may_list_at_once(self, now: float) -> bool:
        """Return whether to list without waiting: the server is there, but may be in trouble."""
        if now - self._listed_at_once < AT_ONCE_EVERY_S:
            return False
        self._listed_at_once = now
        return True

    def _tell(self, error: KproxyError) -> None:
        if self._on_problem is not None and not self._stopping.is_set():
            self._on_problem(error)

    def _list(self) -> None:
        chosen = self._selection
        page = self._rest.list(
            self._wanted,
            chosen.namespace,
            label_selector=chosen.label_selector,
            field_selector=chosen.field_selector,
        )
        for problem in page.problems:
            self._tell(problem)
        listed: dict[Key, T] = {_key(item): item for item in page.items}
        broken = {(problem.namespace, problem.name) for problem in page.problems}
        gone = [key for key in self._objects if key not in listed and key not in broken]
        self._change([*listed.items(), *((key, None) for key in gone)])
        self._version = page.resource_version
        self._heard_at = time.time()
        if not self._synced:
            self._synced = True
            self._synced_or_stopped.set()
            if self._on_synced is not None:
                self._on_synced()

    def _watch(self) -> None:
        chosen = self._selection
        # Spread over time, so that the watches of many nodes do not all end at once.
        seconds = 300 + int(300 * self._lot())
        with self._rest.watch(
            self._wanted,
            chosen.namespace,
            resource_version=self._version,
            label_selector=chosen.label_selector,
            field_selector=chosen.field_selector,
            seconds=seconds,
        ) as lines:
            self._backoff.started(time.monotonic())
            self._asked_at = math.inf
            for line in lines:
                if self._stopping.is_set():
                    return
                self._take(line)

    def _take(self, line: bytes) -> None:
        """Take one event; raises Gone if the watch has to begin anew."""
        self._heard_at = time.time()
        try:
            event = codec.decode_event(line, self._wanted)
        except InvalidItem as problem:
            self._tell(problem)
            self._version = problem.resource_version or self._version
            return
        if event.type is EventType.DELETED:
            self._change([(event.key, None)])
        elif event.object is not None:
            self._change([(event.key, event.object)])
        self._version = event.resource_version or self._version

    def _change(self, newest: Sequence[tuple[Key, T | None]]) -> None:
        """Keep the newest versions of objects, and tell those that are news."""
        # The whole object is compared, not its version: a server that has lost its store may
        # give the same version to something else.
        changes: list[Change[T]] = []
        for key, new in newest:
            old = self._objects.get(key)
            if old == new:
                continue
            if new is None:
                del self._objects[key]
            else:
                self._objects[key] = new
            changes.append((old, new))
        if self._on_changes is not None and changes:
            self._on_changes(changes)
        if self._on_change is not None:
            for old, new in changes:
                self._on_change(old, new)


def _key(obj: Any) -> Key:
    return obj.metadata.namespace, obj.metadata.name

"""A storage that counts what is asked of it, by the names of kube-apiserver's ``etcd_*``.

They are so called whatever the storage is. Besides, it tells when reading and writing last
succeeded and last failed: a store that does not answer, be it without quorum or on a full disk, is
one whose last failure is younger.
"""

import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TypeVar

from kproxy.controlplane import versions
from kproxy.exposition import Registry

from . import base

T = TypeVar("T")

_BOUNDS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15)
"""Kubernetes', as far as anybody waits here."""


class _Way(StrEnum):
    READ = "read"
    WRITE = "write"


class StorageMetrics:
    """The instruments for one storage."""

    def __init__(self, registry: Registry) -> None:
        labels = ("operation", "type")
        self._requests = registry.counter(
            "etcd_requests_total", "Requests to the store, by resource.", *labels
        )
        self._failed = registry.counter(
            "etcd_request_errors_total", "Requests that the store did not answer.", *labels
        )
        self._seconds = registry.histogram(
            "etcd_request_duration_seconds",
            "How many seconds requests to the store took.",
            _BOUNDS,
            *labels,
        )
        prefix, words = "kproxy_store_last", "in seconds since 1970; 0: never."
        self._succeeded_at = registry.gauge(
            f"{prefix}_success_timestamp_seconds", f"When the store last answered, {words}", "way"
        )
        self._failed_at = registry.gauge(
            f"{prefix}_failure_timestamp_seconds", f"When it last did not, {words}", "way"
        )
        for way in _Way:
            self._succeeded_at.set(0, way)
            self._failed_at.set(0, way)

    def ask(self, way: _Way, operation: str, resource: str, question: Callable[[], T]) -> T:
        """Ask, and count it. A commit that is refused for a version is answered."""
        began = time.monotonic()
        try:
            answer = question()
        except base.Unavailable:
            self._failed.add(operation, resource)
            self._failed_at.set(time.time(), way)
            raise
        except (base.Mismatch, base.Compacted):
            self._succeeded_at.set(time.time(), way)
            raise
        else:
            self._succeeded_at.set(time.time(), way)
            return answer
        finally:
            self._requests.add(operation, resource)
            self._seconds.observe(time.monotonic() - began, operation, resource)


class CountedStorage:
    """Hands everything on to a storage, and counts it."""

    def __init__(self, storage: base.Storage, registry: Registry) -> None:
        self._storage = storage
        self._metrics = StorageMetrics(registry)

    def get(self, key: str) -> tuple[base.Entry | None, int]:
        """See :class:`base.Storage`."""
        return self._read("get", _resource(key), lambda: self._storage.get(key))

    def list(self, prefix: str) -> tuple[Sequence[base.Entry], int]:
        """See :class:`base.Storage`."""
        return self._read("list", "", lambda: self._storage.list(prefix))

    def revision(self) -> int:
        """See :class:`base.Storage`."""
        return self._read("revision", "", self._storage.revision)

    def commit(self, writes: Sequence[base.Write]) -> int:
        """See :class:`base.Storage`. It is counted as what its first write does."""
        operation, resource = _first(writes)
        return self._metrics.ask(
            _Way.WRITE, operation, resource, lambda: self._storage.commit(writes)
        )

    def watch(self, prefix: str, since: int) -> base.Watch:
        """See :class:`base.Storage`. What a watch tells is no request, and is not counted."""
        return self._read("watch", "", lambda: self._storage.watch(prefix, since))

    def compact(self, revision: int) -> None:
        """See :class:`base.Storage`."""
        self._metrics.ask(_Way.WRITE, "compact", "", lambda: self._storage.compact(revision))

    def close(self) -> None:
        """See :class:`base.Storage`."""
        self._storage.close()

    def _read(self, operation: str, resource: str, question: Callable[[], T]) -> T:
        return self._metrics.ask(_Way.READ, operation, resource, question)


def _first(writes: Sequence[base.Write]) -> tuple[str, str]:
    """Return what a commit is mainly about: operation and resource of its first write."""
    for write in writes:
        if not write.only_checked:
            if write.value is None:
                operation = "delete"
            else:
                operation = "create" if write.expected == base.ABSENT else "update"
            return operation, _resource(write.key)
    return "check", ""


def _resource(key: str) -> str:
    place = versions.parse_path(key)
    return place[0] if place is not None else ""

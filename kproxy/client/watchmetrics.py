"""How well informers keep up, for Prometheus: a watch that is stuck looks like a quiet cluster.

There are two signs. A server tells something of every kind about once a minute, if only a
bookmark; who has heard nothing for several minutes is cut off. And who follows a kind up to a
version while API servers have a newer one (``apiserver_watch_cache_resource_version``) is behind:
that is seen as soon as it happens.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from kproxy.exposition import Family, Kind, Sample

from .informer import Informer


def families(informers: Sequence[Informer[Any]]) -> Iterator[Family]:
    """Yield the metrics of a program's informers, which follow a kind each."""
    for name, words, ask, chosen in (
        (
            "last_event_timestamp_seconds",
            "When the API server last told something of a resource, in seconds since 1970; "
            "0: never.",
            _heard_at,
            informers,
        ),
        (
            "resource_version",
            "Up to which version a resource is followed; 0: it has to be listed.",
            _version,
            # Who hears of some objects only does not learn of the others' versions at once.
            [one for one in informers if not one.selective],
        ),
        ("objects", "Objects of a resource that are known.", _objects, informers),
    ):
        samples = [Sample({"resource": one.kind.plural}, ask(one)) for one in chosen]
        yield Family(f"kproxy_watch_{name}", Kind.GAUGE, words, samples)


def _heard_at(informer: Informer[Any]) -> float:
    return informer.heard_at


def _version(informer: Informer[Any]) -> float:
    """Return the version as a number; servers promise no order of versions, but all keep one."""
    text = informer.version
    return float(text) if text.isascii() and text.isdigit() else 0.0


def _objects(informer: Informer[Any]) -> float:
    return informer.count

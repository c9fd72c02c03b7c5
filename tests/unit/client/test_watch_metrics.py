"""What informers tell of how well they keep up."""

import queue
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scripted_server import CHUNKED, LAST_CHUNK, Request, ScriptedServer, answer, event

from kproxy.api import core
from kproxy.client import watchmetrics
from kproxy.client.informer import Informer, Selection
from kproxy.client.kubeconfig import Access
from kproxy.client.rest import Rest
from netns.wait import wait_until

PATIENCE_S = 60.0
END = object()


class Api:
    """Lists one node of version 10; a watch sends what is put into ``events``."""

    def __init__(self) -> None:
        self.events: queue.Queue[Any] = queue.Queue()

    def __call__(self, request: Request) -> Iterator[object]:
        if "watch" not in request.query:
            items = [{"metadata": {"name": "n1", "resourceVersion": "7"}}]
            yield answer({"metadata": {"resourceVersion": "10"}, "items": items})
            return
        yield CHUNKED
        while (part := self.events.get()) is not END:
            yield part
        yield LAST_CHUNK


def told(informer: Informer[Any]) -> dict[str, dict[str, float]]:
    return {
        family.name.removeprefix("kproxy_watch_"): {
            sample.labels["resource"]: sample.value for sample in family.samples
        }
        for family in watchmetrics.families([informer])
    }


def until(accept: Callable[[], object]) -> None:
    wait_until(accept, PATIENCE_S, "the informer has not heard of it")


def test_an_informer_that_has_heard_nothing_says_so() -> None:
    idle = Informer(Rest(Access(server="http://127.0.0.1:1")), core.Node)
    assert told(idle) == {
        "last_event_timestamp_seconds": {"nodes": 0},
        "resource_version": {"nodes": 0},
        "objects": {"nodes": 0},
    }


@pytest.mark.parametrize("kind", ["BOOKMARK", "MODIFIED"])
def test_lists_events_and_bookmarks_are_signs_of_life(kind: str) -> None:
    api = Api()
    with ScriptedServer(api) as server:
        informer = Informer(Rest(Access(server=server.url)), core.Node)
        before = time.time()
        informer.start()
        assert informer.wait_synced(PATIENCE_S)
        until(lambda: told(informer)["resource_version"] == {"nodes": 10})
        listed = told(informer)["last_event_timestamp_seconds"]["nodes"]
        assert before <= listed <= time.time()
        assert told(informer)["objects"] == {"nodes": 1}
        api.events.put(event(kind, {"metadata": {"name": "n1", "resourceVersion": "12"}}))
        until(lambda: told(informer)["resource_version"] == {"nodes": 12})
        assert told(informer)["last_event_timestamp_seconds"]["nodes"] >= listed
        assert told(informer)["objects"] == {"nodes": 1}
        api.events.put(END)
        informer.stop()


def test_who_follows_some_objects_only_says_nothing_of_the_version() -> None:
    chosen = Selection(field_selector="metadata.name=n1")
    one = Informer(Rest(Access(server="http://127.0.0.1:1")), core.Node, selection=chosen)
    assert told(one)["resource_version"] == {}
    assert told(one)["last_event_timestamp_seconds"] == {"nodes": 0}

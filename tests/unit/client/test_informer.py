"""Keeping up with objects through breaks, restarts and bad objects."""

import pytest
from informer_server import END, PATIENCE, Api, running, service
from scripted_server import DROP, event, status

from kproxy.api import codec
from kproxy.client.informer import Selection
from kproxy.errors import InvalidItem


def test_list_then_watch():
    api = Api(service("a", 1), service("b", 2))
    server, watcher = running(api)
    with server, watcher:
        assert [watcher.next(), watcher.next()] == [(None, ("a", 80)), (None, ("b", 80))]
        assert watcher.synced.wait(60)
        assert watcher.informer.wait_synced(PATIENCE)
        query = api.watched.get(timeout=PATIENCE)
        assert (query["resourceVersion"], query["timeoutSeconds"]) == ("10", "450")
        api.events.put(event("ADDED", service("c", 11)))
        api.events.put(event("MODIFIED", service("a", 12, 81)))
        api.events.put(event("DELETED", service("b", 13)))
        assert watcher.next() == (None, ("c", 80))
        assert watcher.next() == (("a", 80), ("a", 81))
        assert watcher.next() == (("b", 80), None)
        assert sorted(watcher.informer.objects) == [("demo", "a"), ("demo", "c")]


def test_an_empty_list_is_synced_too():
    server, watcher = running(Api())
    with server, watcher:
        assert watcher.synced.wait(60)


def test_synced_comes_after_all_objects_of_the_list():
    api = Api(*(service(f"s{number}", number) for number in range(50)))
    server, watcher = running(api)
    with server, watcher:
        assert watcher.synced.wait(60)
        assert watcher.changes.qsize() == 50


@pytest.mark.parametrize("end", [END, DROP], ids=["ended", "broken"])
def test_a_watch_that_ends_goes_on_from_where_it_was(end):
    api = Api(service("a", 1))
    server, watcher = running(api)
    with server, watcher:
        watcher.next()
        api.events.put(event("MODIFIED", service("a", 12, 81)))
        api.events.put(end)
        assert watcher.next() == (("a", 80), ("a", 81))
        assert api.watched.get(timeout=PATIENCE)["resourceVersion"] == "10"
        assert api.watched.get(timeout=PATIENCE)["resourceVersion"] == "12"
        assert api.lists == 1


def test_a_bookmark_moves_the_version_on():
    api = Api()
    server, watcher = running(api)
    with server, watcher:
        api.events.put(event("BOOKMARK", {"metadata": {"resourceVersion": "77"}}))
        api.events.put(END)
        api.watched.get(timeout=PATIENCE)
        assert api.watched.get(timeout=PATIENCE)["resourceVersion"] == "77"
        assert watcher.nothing_more()


@pytest.mark.parametrize("how", ["status", "event"])
def test_gone_lists_again_and_tells_only_the_differences(how):
    api = Api(service("same", 1), service("changed", 2), service("vanished", 3))
    server, watcher = running(api)
    with server, watcher:
        for _ in range(3):
            watcher.next()
        api.watched.get(timeout=PATIENCE)
        api.objects = [service("same", 1), service("changed", 22, 81), service("new", 21)]
        api.version = 30
        if how == "status":
            api.refuse.append(status(410, "Expired"))
            api.events.put(END)
        else:
            api.events.put(event("ERROR", {"kind": "Status", "code": 410}))
            api.events.put(END)
        news = [watcher.next() for _ in range(3)]
        assert news == [
            (("changed", 80), ("changed", 81)),
            (None, ("new", 80)),
            (("vanished", 80), None),
        ]
        assert watcher.batches.get(timeout=PATIENCE) == 3, "the first list"
        assert watcher.batches.get(timeout=PATIENCE) == 3, (
            "all differences of the second one together"
        )
        assert api.watched.get(timeout=PATIENCE)["resourceVersion"] == "30"
        assert watcher.nothing_more()
        assert watcher.problems.empty(), "an expired version is nothing to report"


def test_a_server_that_lost_its_store_is_listed_again():
    api = Api(service("a", 1), version=5000)
    server, watcher = running(api)
    with server, watcher:
        watcher.next()
        api.watched.get(timeout=PATIENCE)
        # The same version now stands for something else.
        api.objects, api.version = [service("a", 1, 99)], 3
        api.refuse += [status(504, "Timeout", "Too large resource version")] * 6
        api.events.put(END)
        assert watcher.next() == (("a", 80), ("a", 99))


def test_a_bad_object_in_a_list_is_reported_and_the_others_kept():
    bad = {"metadata": {"namespace": "demo", "name": "bad"}, "spec": {"ports": "many"}}
    server, watcher = running(Api(service("a", 1), bad))
    with server, watcher:
        assert watcher.next() == (None, ("a", 80))
        problem = watcher.problems.get(timeout=PATIENCE)
        assert str(problem).startswith("Service demo/bad: spec.ports: must be a list")


def test_an_object_that_turns_bad_keeps_its_last_good_version():
    api = Api(service("a", 1))
    server, watcher = running(api)
    with server, watcher:
        watcher.next()
        api.events.put(event("MODIFIED", service("a", 11, "bad")))
        assert isinstance(watcher.problems.get(timeout=PATIENCE), InvalidItem)
        api.events.put(END)
        assert api.watched.get(timeout=PATIENCE)["resourceVersion"] == "10"
        assert api.watched.get(timeout=PATIENCE)["resourceVersion"] == "11", "not told again"
        api.objects = [service("a", 11, "bad")]
        api.events.put(event("ERROR", {"kind": "Status", "code": 410}))
        api.events.put(END)
        assert isinstance(watcher.problems.get(timeout=PATIENCE), InvalidItem), "listed again"
        assert watcher.nothing_more()
        api.events.put(event("MODIFIED", service("a", 12, 82)))
        assert watcher.next() == (("a", 80), ("a", 82))
        api.events.put(event("DELETED", service("a", 13, "bad")))
        assert watcher.next() == (("a", 82), None)


def test_a_selection_is_asked_for():
    api = Api()
    selection = Selection(namespace="demo", label_selector="!skip", field_selector="x=y")
    server, watcher = running(api, selection=selection)
    with server, watcher:
        api.watched.get(timeout=PATIENCE)
        for request in server.requests:
            assert request.path == "/api/v1/namespaces/demo/services"
            assert request.query["labelSelector"] == "!skip"
            assert request.query["fieldSelector"] == "x=y"


def test_no_decoder_is_made_by_a_thread(monkeypatch):
    """Another thread that decodes a part of the same type meanwhile would crash the process."""
    codec._decoder.cache_clear()
    api = Api(service("a", 1))
    server, watcher = running(api)

    def refuse(*_, **__):
        raise AssertionError("made too late")

    monkeypatch.setattr(codec.msgspec.json, "Decoder", refuse)
    api.refuse.append(status(503))
    with server, watcher:
        assert watcher.next() == (None, ("a", 80))
        api.events.put(event("ADDED", service("b", 11)))
        assert watcher.next() == (None, ("b", 80))
        assert watcher.problems.get(timeout=PATIENCE).code == 503

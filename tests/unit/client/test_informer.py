"""Keeping up with objects through breaks, restarts and bad objects."""

import queue
import threading

import pytest
from scripted_server import CHUNKED, DROP, LAST_CHUNK, ScriptedServer, answer, event, status

from kproxy.api import codec, core
from kproxy.client.backoff import Backoff, BackoffPolicy
from kproxy.client.informer import Informer, Selection
from kproxy.client.kubeconfig import Access
from kproxy.client.rest import Rest, Unreachable
from kproxy.errors import InvalidItem

QUICK = BackoffPolicy(initial=0.001, maximum=0.01, refused=0.001, refused_maximum=0.01)
LONG = BackoffPolicy(initial=2.0, maximum=2.0)
PATIENCE = 60
"""Seconds for what takes milliseconds on an idle machine."""
END = object()
EXPIRED = event("ERROR", {"kind": "Status", "code": 410})
"""After this a server ends the watch by itself."""


def service(name, version, port=80):
    meta = {"namespace": "demo", "name": name, "resourceVersion": str(version)}
    return {"metadata": meta, "spec": {"ports": [{"port": port}]}}


class Api:
    """Lists what ``objects`` holds; each watch sends what is put into ``events``."""

    def __init__(self, *objects, version=10):
        self.version = version
        self.objects = list(objects)
        self.events = queue.Queue()
        self.lists = 0
        self.watched = queue.Queue()
        self.refuse = []

    def __call__(self, request):
        if self.refuse:
            return [self.refuse.pop(0)]
        if "watch" not in request.query:
            self.lists += 1
            meta = {"resourceVersion": str(self.version)}
            return [answer({"metadata": meta, "items": self.objects})]
        stream = self.stream(self.events)
        self.watched.put(request.query)
        return stream

    def stream(self, events):
        yield CHUNKED
        while (part := events.get()) is not END:
            yield part
            if part is EXPIRED:
                break
        yield LAST_CHUNK


class Watcher:
    """An informer whose news can be waited for."""

    def __init__(self, url, **more):
        self.changes = queue.Queue()
        self.problems = queue.Queue()
        self.batches = queue.Queue()
        self.synced = threading.Event()
        self.informer = Informer(
            Rest(Access(server=url)),
            core.Service,
            on_change=lambda old, new: self.changes.put((brief(old), brief(new))),
            on_changes=lambda changes: self.batches.put(len(changes)),
            on_synced=self.synced.set,
            on_problem=self.problems.put,
            policy=QUICK,
            lot=lambda: 0.5,
            **more,
        )

    def __enter__(self):
        self.informer.start()
        return self

    def __exit__(self, *_):
        self.informer.stop()
        assert not self.informer._thread.is_alive()

    def next(self):
        return self.changes.get(timeout=PATIENCE)

    def nothing_more(self):
        return self.changes.empty()


def brief(obj):
    return obj and (obj.metadata.name, obj.spec.ports[0].port)


def running(api, **more):
    server = ScriptedServer(api)
    return server, Watcher(server.url, **more)


def test_list_then_watch():
    api = Api(service("a", 1), service("b", 2))
    server, watcher = running(api)
    with server, watcher:
        assert [watcher.next(), watcher.next()] == [(None, ("a", 80)), (None, ("b", 80))]
        assert watcher.synced.wait(5)
        assert watcher.informer.wait_synced(5)
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
        assert watcher.synced.wait(5)


def test_synced_comes_after_all_objects_of_the_list():
    api = Api(*(service(f"s{number}", number) for number in range(50)))
    server, watcher = running(api)
    with server, watcher:
        assert watcher.synced.wait(5)
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


@pytest.mark.parametrize(("asked", "least"), [("7", 7), ("100000", 60), ("soon", 0)])
def test_a_server_that_wants_to_be_left_in_peace_is(monkeypatch, asked, least):
    reply = answer({"kind": "Status", "code": 429}, 429, f"Retry-After: {asked}\r\n")
    server, watcher = running(lambda request: [reply])
    waits = queue.Queue()
    stopping = watcher.informer._stopping
    wait = stopping.wait
    monkeypatch.setattr(stopping, "wait", lambda seconds: (waits.put(seconds), wait(0.001)))
    with server, watcher:
        first = waits.get(timeout=PATIENCE)
        assert least <= first <= least + 1


def test_a_server_that_goes_on_refusing_is_listed_less_and_less_often(monkeypatch):
    server, watcher = running(lambda request: [status(403, "Forbidden")])
    watcher.informer._backoff = Backoff()
    waits = queue.Queue()
    stopping = watcher.informer._stopping
    wait = stopping.wait
    monkeypatch.setattr(stopping, "wait", lambda seconds: (waits.put(seconds), wait(0.001)))
    with server, watcher:
        seen = [waits.get(timeout=PATIENCE) for _ in range(12)]
    assert max(seen[:3]) < 0.2
    assert seen[-1] == 7.5, "ten seconds, the middle lot"
    assert seen == sorted(seen)


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


def test_a_server_that_comes_back():
    api = Api(service("a", 1))
    server, watcher = running(api)
    with watcher:
        watcher.next()
        api.watched.get(
            timeout=PATIENCE
        )  # it has the events of its time, none of those that follow
        server.stop()
        api.events.put(END)
        assert "API server" in str(watcher.problems.get(timeout=PATIENCE))
        api.events = queue.Queue()
        with ScriptedServer(api, port=server.port):
            api.events.put(event("MODIFIED", service("a", 12, 81)))
            assert watcher.next() == (("a", 80), ("a", 81))
            watcher.informer.stop()


def test_a_server_that_is_not_there_yet():
    with ScriptedServer(lambda request: []) as server:
        port = server.port
    watcher = Watcher(f"http://127.0.0.1:{port}")
    with watcher:
        assert "Connection refused" in str(watcher.problems.get(timeout=PATIENCE))
        assert not watcher.informer.synced
        with ScriptedServer(Api(service("a", 1)), port=port):
            assert watcher.next() == (None, ("a", 80))
            watcher.informer.stop()


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


@pytest.mark.parametrize("where", ["list", "watch", "backoff"])
def test_it_stops_at_once_wherever_it_is(where):
    entered = threading.Event()

    def reply(request):
        if where == "backoff":
            entered.set()
            yield status(500)
        elif where == "watch" and "watch" not in request.query:
            yield answer({"metadata": {"resourceVersion": "1"}})
        else:
            if where == "watch":
                yield CHUNKED
            entered.set()
            threading.Event().wait()

    policy = BackoffPolicy(initial=1000, maximum=1000)
    with ScriptedServer(reply) as server:
        informer = Informer(
            Rest(Access(server=server.url)),
            core.Service,
            on_change=lambda old, new: None,
            policy=policy,
        )
        informer.start()
        assert entered.wait(5)
        informer.stop(timeout=PATIENCE)
        assert not informer._thread.is_alive()


def test_a_handler_may_stop_it():
    stopped = threading.Event()

    def change(old, new):
        informer.stop()
        stopped.set()

    with ScriptedServer(Api(service("a", 1))) as server:
        informer = Informer(Rest(Access(server=server.url)), core.Service, on_change=change)
        informer.start()
        assert stopped.wait(5)
        informer._thread.join(5)
        assert not informer._thread.is_alive()


def test_stopping_what_never_started():
    Informer(Rest(Access(server="http://127.0.0.1:1")), core.Service, on_change=print).stop()


def test_waiting_in_vain_for_an_answer_counts_as_waiting(monkeypatch):
    """A server that has vanished is asked again at once when asking it has taken its time."""
    clock = [100.0]
    monkeypatch.setattr("kproxy.client.informer.time.monotonic", lambda: clock[0])
    informer = Informer(Rest(Access(server="http://127.0.0.1:1")), core.Service, policy=LONG)
    waits = []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            informer._stopping.set()

    monkeypatch.setattr(informer._stopping, "wait", wait)
    takes = [0.25, 5.0]

    def ask(*_, **__):
        clock[0] += takes.pop(0)
        raise Unreachable("nobody is there")

    monkeypatch.setattr(informer._rest, "list", ask)
    informer._run()
    assert waits[0] == pytest.approx(LONG.initial * 0.75 - 0.25, abs=LONG.initial / 4)
    assert waits[0] > 0
    assert waits[1] == 0


def test_a_watch_that_ends_after_long_is_not_renewed_by_all_at_once(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("kproxy.client.informer.time.monotonic", lambda: clock[0])
    api = Api()
    server, watcher = running(api)
    waits = queue.Queue()
    stopping = watcher.informer._stopping
    wait = stopping.wait
    monkeypatch.setattr(stopping, "wait", lambda seconds: (waits.put(seconds), wait(0.001)))
    with server, watcher:
        api.watched.get(timeout=PATIENCE)
        clock[0] += 300
        api.events.put(END)
        assert waits.get(timeout=PATIENCE) == QUICK.initial * 0.75


def test_a_list_follows_at_once_when_a_version_has_expired_but_not_without_end(monkeypatch):
    """The first expired version costs no time; a server that says nothing else is left alone."""
    api = Api()
    server, watcher = running(api)
    waits = queue.Queue()
    stopping = watcher.informer._stopping
    wait = stopping.wait
    monkeypatch.setattr(stopping, "wait", lambda seconds: (waits.put(seconds), wait(0.001)))
    api.events.put(EXPIRED)
    with server, watcher:
        api.watched.get(timeout=PATIENCE)
        api.watched.get(timeout=PATIENCE)
        assert api.lists == 2
        assert waits.empty()
        for _ in range(3):
            api.events.put(EXPIRED)
        assert waits.get(timeout=PATIENCE) > 0
        assert waits.get(timeout=PATIENCE) > 0


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

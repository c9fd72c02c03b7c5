"""How long an informer waits before it asks again, and that it stops at once."""

import queue
import threading

import pytest
from informer_server import END, EXPIRED, LONG, PATIENCE, QUICK, Api, Watcher, running, service
from scripted_server import CHUNKED, ScriptedServer, answer, event, status

from kproxy.api import core
from kproxy.client.backoff import Backoff, BackoffPolicy
from kproxy.client.informer import Informer
from kproxy.client.kubeconfig import Access
from kproxy.client.rest import Rest, Unreachable


@pytest.mark.parametrize(("asked", "least"), [("7", 7), ("100000", 60), ("soon", 0)])
def test_a_server_that_wants_to_be_left_in_peace_is(monkeypatch, asked, least):
    reply = answer({"kind": "Status", "code": 429}, 429, f"Retry-After: {asked}\r\n")
    server, watcher = running(lambda request: [reply])
    waits = hurried(watcher, monkeypatch)
    with server, watcher:
        first = waits.get(timeout=PATIENCE)
        assert least <= first <= least + 1


def hurried(watcher, monkeypatch):
    """Have an informer wait for a moment only; return how long it wanted to."""
    waits = queue.Queue()
    stopping = watcher.informer._stopping
    wait = stopping.wait
    monkeypatch.setattr(stopping, "wait", lambda seconds: (waits.put(seconds), wait(0.001)))
    return waits


def test_a_server_that_goes_on_refusing_is_listed_less_and_less_often(monkeypatch):
    server, watcher = running(lambda request: [status(403, "Forbidden")])
    watcher.informer._backoff = Backoff()
    waits = hurried(watcher, monkeypatch)
    with server, watcher:
        seen = [waits.get(timeout=PATIENCE) for _ in range(12)]
    assert max(seen[:3]) < 0.2
    assert seen[-1] == 7.5, "ten seconds, the middle lot"
    assert seen == sorted(seen)


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
        assert entered.wait(60)
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
        assert stopped.wait(60)
        informer._thread.join(60)
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
    waits = hurried(watcher, monkeypatch)
    with server, watcher:
        api.watched.get(timeout=PATIENCE)
        clock[0] += 300
        api.events.put(END)
        assert waits.get(timeout=PATIENCE) == QUICK.initial * 0.75


def test_a_list_follows_at_once_when_a_version_has_expired_but_not_without_end(monkeypatch):
    """The first expired version costs no time; a server that says nothing else is left alone."""
    api = Api()
    server, watcher = running(api)
    waits = hurried(watcher, monkeypatch)
    monkeypatch.setattr("kproxy.client.informer.AT_ONCE_EVERY_S", 3600.0)
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

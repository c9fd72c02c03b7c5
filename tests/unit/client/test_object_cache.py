"""The cache of whole objects: own writes show at once, and nothing late undoes them."""

import threading

import pytest
from scripted_server import ScriptedServer, answer

from kproxy.api import catalog
from kproxy.client import cache
from kproxy.client.kubeconfig import Access
from kproxy.client.picture import UNCONFIRMED_S
from kproxy.client.rest import Rest, Unreachable
from kproxy.errors import ApiError, Conflict

POD = catalog.POD


def pod(name, version, uid="u", **meta):
    meta = {"name": name, "namespace": "d", "uid": uid, "resourceVersion": str(version), **meta}
    return {"metadata": meta}


class Server:
    """Answers reads from ``objects`` and writes with ``answer``."""

    def __init__(self):
        self.objects = {}
        self.answer = None
        self.asked = []

    def get(self, kind, namespace, name):
        self.asked.append(name)
        return self.objects.get(name)

    def create(self, kind, obj):
        return self._write()

    update = update_status = create

    def patch(self, kind, namespace, name, patch, subresource=""):
        return self._write()

    def delete(self, kind, namespace, name, **options):
        self._write()

    def _write(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def cached(server):
    return cache.Cache(server, [POD])


def names(cached):
    return [one["metadata"]["name"] for one in cached.list_objects(POD, "d")]


def test_what_was_created_is_there_before_the_watch_tells(server, cached):
    server.answer = pod("a", 5)
    cached.create(POD, pod("a", 0))
    assert names(cached) == ["a"]
    cached.heard(POD, None, pod("a", 5, labels={"x": "y"}))
    assert cached.get(POD, "d", "a")["metadata"]["labels"] == {"x": "y"}


def test_an_older_event_does_not_undo_an_own_write(server, cached):
    cached.heard(POD, None, pod("a", 3))
    server.answer = pod("a", 7)
    cached.update(POD, pod("a", 3))
    cached.heard(POD, pod("a", 3), pod("a", 5))
    assert cached.get(POD, "d", "a")["metadata"]["resourceVersion"] == "7"
    cached.heard(POD, pod("a", 5), pod("a", 8))
    assert cached.get(POD, "d", "a")["metadata"]["resourceVersion"] == "8"


def test_a_quicker_watch_is_not_undone_by_the_answer(server, cached):
    cached.heard(POD, None, pod("a", 9))
    server.answer = pod("a", 7)
    cached.update(POD, pod("a", 3))
    assert cached.get(POD, "d", "a")["metadata"]["resourceVersion"] == "9"


def test_what_was_deleted_stays_marked_until_it_is_gone(server, cached):
    cached.heard(POD, None, pod("a", 3))
    cached.delete(POD, "d", "a", uid="u")
    cached.heard(POD, pod("a", 3), pod("a", 4))
    assert cached.get(POD, "d", "a")["metadata"]["deletionTimestamp"]
    cached.heard(POD, pod("a", 4), None)
    assert names(cached) == []
    cached.heard(POD, None, pod("a", 9, uid="another"))
    assert "deletionTimestamp" not in cached.get(POD, "d", "a")["metadata"]


def test_the_end_of_a_former_object_does_not_take_its_successor(server, cached):
    cached.heard(POD, None, pod("a", 3))
    server.answer = pod("a", 9, uid="another")
    cached.create(POD, pod("a", 0))
    cached.heard(POD, pod("a", 3), None)
    assert names(cached) == ["a"]


def test_after_a_lost_answer_the_object_is_read_anew_before_anything_else(server, cached):
    server.answer = Unreachable("away")
    with pytest.raises(Unreachable):
        cached.create(POD, pod("a", 0))
    server.objects["a"] = pod("a", 5)
    assert names(cached) == ["a"]
    assert server.asked == ["a"]
    assert names(cached) == ["a"]
    assert server.asked == ["a"], "once is enough"


def test_a_deletion_whose_answer_was_lost_is_found_out(server, cached):
    cached.heard(POD, None, pod("a", 3))
    cached.heard(POD, None, pod("b", 4))
    server.answer = ApiError(503, "ServiceUnavailable", "no quorum")
    with pytest.raises(ApiError):
        cached.delete(POD, "d", "a", uid="u")
    server.objects["b"] = pod("b", 4)
    assert cached.get(POD, "d", "a")["metadata"]["deletionTimestamp"]
    assert "deletionTimestamp" not in cached.get(POD, "d", "b")["metadata"]


def test_while_it_cannot_be_read_nothing_is_told(server, cached):
    server.answer = Unreachable("away")
    with pytest.raises(Unreachable):
        cached.create(POD, pod("a", 0))

    def away(*_):
        raise Unreachable("away")

    server.get = away
    with pytest.raises(Unreachable):
        cached.list_objects(POD, "d")
    assert list(cached.known.list_objects(POD, "d")) == [], "who only looks is told"


def test_a_refusal_leaves_no_doubt(server, cached):
    server.answer = Conflict(409, "Conflict", "changed")
    with pytest.raises(Conflict):
        cached.update(POD, pod("a", 3))
    assert names(cached) == []
    assert server.asked == []


def test_what_the_watch_never_confirms_is_read_anew(server, cached, monkeypatch):
    """Created, and gone again before a watch that broke was opened anew."""
    server.answer = pod("a", 5)
    cached.create(POD, pod("a", 0))
    now = cache.time.monotonic()
    monkeypatch.setattr(cache.time, "monotonic", lambda: now + UNCONFIRMED_S + 1)
    assert names(cached) == []
    assert server.asked == ["a"]


def meanwhile(server, found, happens):
    """Answer the next read with ``found``, and before the answer arrives something happens."""
    usual = server.get

    def get(kind, namespace, name):
        server.get = usual
        happens()
        return found

    server.get = get


def doubt(server, cached):
    server.answer = Unreachable("away")
    with pytest.raises(Unreachable):
        cached.create(POD, pod("a", 0))


def test_what_the_watch_tells_while_it_is_read_in_vain_is_not_taken_for_gone(server, cached):
    """The write that was in doubt was done after the read: the object is alive."""
    doubt(server, cached)
    meanwhile(server, None, lambda: cached.heard(POD, None, pod("a", 5)))
    cached.list_objects(POD, "d")
    server.objects["a"] = pod("a", 5)
    assert "deletionTimestamp" not in cached.get(POD, "d", "a")["metadata"]
    cached.heard(POD, pod("a", 5), pod("a", 6))
    assert "deletionTimestamp" not in cached.get(POD, "d", "a")["metadata"]


def test_what_another_thread_makes_while_it_is_read_in_vain_stays(server, cached):
    doubt(server, cached)

    def create():
        server.answer = server.objects["a"] = pod("a", 5)
        cached.create(POD, pod("a", 0))

    meanwhile(server, None, create)
    assert names(cached) == ["a"]
    assert names(cached) == ["a"]


def test_what_goes_while_it_is_read_does_not_come_back(server, cached):
    cached.heard(POD, None, pod("a", 3))
    doubt(server, cached)
    meanwhile(server, pod("a", 4), lambda: cached.heard(POD, pod("a", 4), None))
    assert names(cached) == []
    assert names(cached) == []


def test_labels_choose(server, cached):
    cached.heard(POD, None, pod("a", 3, labels={"app": "x", "tier": "y"}))
    cached.heard(POD, None, pod("b", 4, labels={"app": "z"}))
    found = cached.list_objects(POD, labels={"app": "x"})
    assert [one["metadata"]["name"] for one in found] == ["a"]


def test_who_waits_for_the_first_lists_waits_no_longer_than_until_the_end():
    """Its API server is not there; whoever waited would be left behind."""
    with Rest(Access(server="http://127.0.0.1:1")) as client:
        objects = cache.CachedObjects(client, [POD])
        objects.start()
        waiting = threading.Thread(target=objects.wait_synced, daemon=True)
        waiting.start()
        objects.stop()
        waiting.join(60)
        assert not waiting.is_alive()


def test_an_object_that_a_handler_cannot_take_does_not_end_the_watch():
    objects = [{**pod("a", 3), "spec": {}}, {**pod("b", 4), "spec": {}}]
    page = {"metadata": {"resourceVersion": "4"}, "items": objects}
    problems, heard = [], []
    both = threading.Event()

    def handler(old, new):
        heard.append(new["metadata"]["name"])
        if len(heard) == 2:
            both.set()
        raise KeyError("name")

    with ScriptedServer(lambda request: [answer(page)]) as server:
        client = Rest(Access(server=server.url))
        cached = cache.CachedObjects(client, [POD], on_problem=problems.append)
        cached.on_change(POD, handler)
        cached.start()
        assert both.wait(60)
        cached.stop()
    assert sorted(heard) == ["a", "b"]
    assert "a change of a Pod broke: KeyError('name')" in str(problems[0])

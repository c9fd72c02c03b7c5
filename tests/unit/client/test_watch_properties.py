"""Whatever happens to a watch, the informer ends with what the server holds, and tells no lies."""

import json
import queue
import threading

from examples import examples
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from scripted_server import CHUNKED, DROP, LAST_CHUNK, ScriptedServer, answer, event, status

from kproxy.api import core
from kproxy.client.backoff import BackoffPolicy
from kproxy.client.informer import Informer
from kproxy.client.kubeconfig import Access
from kproxy.client.rest import Rest

QUICK = BackoffPolicy(initial=0.001, maximum=0.002, refused=0.001, refused_maximum=0.002)
PATIENCE_S = 60
LAST = "last"

names = st.sampled_from(["a", "b", "c"])
steps = st.one_of(
    st.tuples(st.just("put"), names, st.integers(1, 3)),
    st.tuples(st.just("delete"), names),
    st.tuples(st.just("end")),  # the server ends the watch in good order
    st.tuples(st.just("cut"), names),  # it breaks in the middle of a line
    st.tuples(st.just("expire"), st.booleans()),  # the version is too old: told by status or event
    st.tuples(st.just("refuse"), st.sampled_from([401, 403, 429, 500, 503])),
    st.tuples(st.just("bookmark")),
    st.tuples(st.just("bad"), names),  # a version of an object that cannot be decoded
)


class Api:
    """Goes through the steps, one after the other, whenever somebody watches; then stays there."""

    def __init__(self, plan):
        self.plan = [*plan, ("put", LAST, 1)]
        self.version = 1
        self.oldest = 0
        self.objects = {}
        self.deleted = set()
        self.log = []  # (version, event)
        self.refusals = []
        self.as_event = False
        self.over = threading.Event()

    def __call__(self, request):
        if self.refusals:
            return [status(self.refusals.pop())]
        if "watch" not in request.query:
            meta = {"resourceVersion": str(self.version)}
            return [answer({"metadata": meta, "items": list(self.objects.values())})]
        return self.watch(int(request.query["resourceVersion"]))

    def watch(self, version):
        if version < self.oldest and not self.as_event:
            yield status(410, "Expired")
            return
        yield CHUNKED
        if version < self.oldest:
            yield event("ERROR", {"kind": "Status", "code": 410})
            yield LAST_CHUNK
            return
        yield from (line for at, line in self.log if at > version)
        while self.plan:
            yield from self.step(*self.plan.pop(0))
        self.over.wait(PATIENCE_S)

    def step(self, kind, *rest):
        match kind:
            case "put" | "bad" | "cut":
                new = rest[0] not in self.objects
                port = rest[1] if kind == "put" else 7
                line = self.note("ADDED" if new else "MODIFIED", rest[0], port)
                if kind == "cut":
                    yield line[: len(line) // 2]
                    yield DROP
                    return
                yield line
                if kind == "bad":
                    yield event("MODIFIED", {**self.objects[rest[0]], "spec": "none"})
            case "delete" if rest[0] in self.objects:
                self.deleted.add(rest[0])
                yield self.note("DELETED", rest[0], 1)
            case "bookmark":
                yield event("BOOKMARK", {"metadata": {"resourceVersion": str(self.version)}})
            case "end":
                yield LAST_CHUNK
                yield DROP
            case "refuse":
                self.refusals.append(rest[0])
                yield DROP
            case "expire":
                self.version += 1
                self.oldest, self.as_event = self.version, rest[0]
                yield DROP

    def note(self, kind, name, port):
        self.version += 1
        meta = {"namespace": "demo", "name": name, "resourceVersion": str(self.version)}
        obj = {"metadata": meta, "spec": {"ports": [{"port": port}]}}
        if kind == "DELETED":
            del self.objects[name]
        else:
            self.objects[name] = obj
        line = event(kind, obj)
        self.log.append((self.version, line))
        return line


@examples(60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, max_size=12))
def test_the_informer_ends_with_what_the_server_holds(plan):
    api, told, last = Api(plan), queue.Queue(), threading.Event()

    def on_change(old, new):
        told.put((old, new))
        if new is not None and new.metadata.name == LAST:
            last.set()

    with ScriptedServer(api) as server:
        informer = Informer(
            Rest(Access(server=server.url)), core.Service, on_change=on_change, policy=QUICK
        )
        informer.start()
        try:
            assert last.wait(PATIENCE_S), json.dumps(plan)
            known = {key[1]: brief(obj) for key, obj in informer.objects.items()}
        finally:
            api.over.set()
            informer.stop()
    wanted = {name: obj["spec"]["ports"][0]["port"] for name, obj in api.objects.items()}
    assert known == wanted
    assert replay(told, api.deleted) == wanted


def brief(obj):
    return obj.spec.ports[0].port


def replay(told, deleted):
    """Return what somebody knows who heard every change; each must be one, and true."""
    known = {}
    while not told.empty():
        old, new = told.get()
        name = (old or new).metadata.name
        assert known.get(name) == (old and brief(old))
        if new is None:
            assert name in deleted
            del known[name]
        else:
            assert old is None or (old.metadata, old.spec) != (new.metadata, new.spec)
            known[name] = brief(new)
    return known

"""An API server with one list and one watch, and an informer whose news can be waited for."""

import queue
import threading

from scripted_server import CHUNKED, LAST_CHUNK, ScriptedServer, answer, event

from kproxy.api import core
from kproxy.client.backoff import BackoffPolicy
from kproxy.client.informer import Informer
from kproxy.client.kubeconfig import Access
from kproxy.client.rest import Rest

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

"""Nothing is created in a namespace that is deleted in the same moment."""

import random

import msgspec
import pytest
from local_cluster import new_api

from kproxy import errors
from kproxy.controlplane import addresses, routes
from kproxy.controlplane.allocations import Allocations
from kproxy.controlplane.rest import Api
from kproxy.controlplane.storage.memory import MemoryStorage
from kproxy.controlplane.store import Store

NAMESPACE = "/api/v1/namespaces/demo"


class Storage(MemoryStorage):
    """Somebody is faster: right before the commit of a key, once, something else is done."""

    def __init__(self) -> None:
        super().__init__()
        self.first = {}

    def commit(self, writes):
        for write in writes:
            for part in [part for part in self.first if part in write.key]:
                self.first.pop(part)()
        return super().commit(writes)


@pytest.fixture
def storage():
    return Storage()


@pytest.fixture
def api(storage):
    store = Store(storage)
    cidrs = addresses.parse_cidrs("10.96.0.0/16")
    api = Api(store, Allocations(store, cidrs, draw=random.Random(1)))
    create(api, "/api/v1/namespaces", {"metadata": {"name": "demo"}})
    return api


def create(api, path, body):
    return api.create(routes.target(path), msgspec.json.encode(body))


def delete(api):
    api.delete(routes.target(NAMESPACE), {}, b"")


def finalize(api):
    delete(api)
    found = msgspec.json.decode(api.get(routes.target(NAMESPACE)).body)
    found["spec"]["finalizers"] = []
    api.replace(routes.target(f"{NAMESPACE}/finalize"), msgspec.json.encode(found))


SERVICE = {"metadata": {"name": "x"}, "spec": {"ports": [{"port": 80}]}}
NAMED = {"metadata": {"name": "x"}}
DRAWN = {"metadata": {"generateName": "x-"}}


@pytest.mark.parametrize(("end", "code"), [(delete, 403), (finalize, 404)])
@pytest.mark.parametrize(
    ("resource", "body"), [("services", SERVICE), ("configmaps", NAMED), ("configmaps", DRAWN)]
)
def test_what_comes_too_late_is_refused_and_not_there(storage, api, resource, body, end, code):
    storage.first[f"/{resource}/demo/"] = lambda: end(api)
    with pytest.raises(errors.ApiError) as caught:
        create(api, f"{NAMESPACE}/{resource}", body)
    assert caught.value.code == code
    assert api.store.list(resource)[0] == []
    assert api.store.list("ipaddresses")[0] == []


def test_a_change_of_the_namespace_that_leaves_it_open_stops_nobody(storage, api):
    labels = msgspec.json.encode({"metadata": {"labels": {"a": "b"}}})
    storage.first["/configmaps/demo/"] = lambda: api.merge_patch(routes.target(NAMESPACE), labels)
    create(api, f"{NAMESPACE}/configmaps", NAMED)
    assert [item.obj["metadata"]["name"] for item in api.store.list("configmaps")[0]] == ["x"]


def test_creating_writes_nothing_to_the_namespace():
    api = new_api()
    create(api, "/api/v1/namespaces", {"metadata": {"name": "demo"}})
    before = api.store.get("namespaces", ("", "demo")).revision
    create(api, f"{NAMESPACE}/configmaps", NAMED)
    assert api.store.get("namespaces", ("", "demo")).revision == before

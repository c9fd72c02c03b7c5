"""Who may not write everything is judged by what a write would make of an object."""

import msgspec
import pytest
from local_cluster import new_api

from kproxy import errors
from kproxy.controlplane import routes
from kproxy.controlplane.requests import Options

NODES = "/api/v1/nodes"
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"


def guard(resource, old, new):
    """Refuse every Node with taints."""
    assert resource == "nodes"
    if new["spec"].get("taints"):
        raise errors.ApiError(403, "Forbidden", "no taints")


@pytest.fixture
def api():
    return new_api()


def node(*taints):
    return {"metadata": {"name": "n1"}, "spec": {"taints": list(taints)}}


def write(api, method, path, body, content_type="application/json", **options):
    target = routes.target(path)
    made = Options(content_type=content_type, guard=guard, **options)
    return getattr(api, method)(target, msgspec.json.encode(body), made).code


WRITES = [
    ("replace", "application/json", {}),
    ("patch", MERGE, {}),
    ("patch", MERGE, {"dry_run": True}),
    ("patch", APPLY, {"manager": "kubelet", "force": True}),
]
TAINT = {"key": "a", "effect": "NoSchedule"}


@pytest.mark.parametrize(("method", "kind", "options"), WRITES)
def test_every_way_of_changing_is_judged(api, method, kind, options):
    assert write(api, "create", NODES, node()) == 201
    path = f"{NODES}/n1"
    assert write(api, method, path, node(), kind, **options) == 200
    with pytest.raises(errors.ApiError, match="no taints"):
        write(api, method, path, node(TAINT), kind, **options)


@pytest.mark.parametrize(
    ("method", "path", "kind", "options"),
    [
        ("create", NODES, "application/json", {}),
        ("create", NODES, "application/json", {"dry_run": True}),
        ("patch", f"{NODES}/n1", APPLY, {"manager": "kubelet"}),
    ],
)
def test_every_way_of_creating_is_judged(api, method, path, kind, options):
    with pytest.raises(errors.ApiError, match="no taints"):
        write(api, method, path, node(TAINT), kind, **options)
    assert not api.store.exists("nodes", ("", "n1"))


def test_the_status_is_no_way_around(api):
    write(api, "create", NODES, node())
    body = {**node(TAINT), "status": {"phase": "x"}}
    write(api, "patch", f"{NODES}/n1/status", body, MERGE)
    found = api.store.get("nodes", ("", "n1")).obj
    assert not found["spec"]["taints"]
    assert found["status"] == {"phase": "x"}


def test_an_apply_that_comes_second_is_laid_over_the_first(api, monkeypatch):
    """Both have seen that there is nothing; only one can create it."""
    config = {"metadata": {"name": "c"}, "data": {"mine": "1"}}
    path = "/api/v1/namespaces/default/configmaps"
    create, done = api._writes._create, []

    def overtaken(kind, new, options, demand):
        if not done:
            done.append(True)
            first = {"metadata": {"name": "c"}, "data": {"other": "2"}}
            api.create(routes.target(path), msgspec.json.encode(first))
        return create(kind, new, options, demand)

    monkeypatch.setattr(api._writes, "_create", overtaken)
    options = Options(content_type=APPLY, manager="me")
    api.patch(routes.target(f"{path}/c"), msgspec.json.encode(config), options)
    assert api.store.get("configmaps", ("default", "c")).obj["data"] == {"mine": "1", "other": "2"}

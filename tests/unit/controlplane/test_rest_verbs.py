"""The verbs of the API on a store: paths, defaults, selectors, errors, graceful deletion."""

import ipaddress
import itertools

import msgspec
import pytest
from local_cluster import new_api

from kproxy import errors
from kproxy.controlplane import routes, status, watches
from kproxy.controlplane.requests import Options


@pytest.fixture
def api():
    return new_api(now=lambda: 0.0)


def send(api, method, path, body=None, query=None):
    target = routes.target(path)
    data = msgspec.json.encode(body) if body is not None else b""
    match method:
        case "GET" if target.name:
            answer = api.get(target)
        case "GET":
            answer = api.list(target, query or {})
        case "POST":
            answer = api.create(target, data)
        case "PUT":
            answer = api.replace(target, data)
        case "PATCH":
            answer = api.merge_patch(target, data)
        case "DELETE":
            answer = api.delete(target, query or {}, data)
    return msgspec.json.decode(answer.body)


def failure(api, *request):
    with pytest.raises((errors.KproxyError, ExceptionGroup)) as caught:
        send(api, *request)
    return status.failure(caught.value)


DEFAULT = "/api/v1/namespaces/default"


def service(name="web", **spec):
    spec.setdefault("ports", [{"port": 80}])
    return {"metadata": {"name": name}, "spec": spec}


def pod(name="a", node="", labels=None):
    spec = {"containers": [{"name": "c", "ports": [{"containerPort": 80}]}]}
    if node:
        spec["nodeName"] = node
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": spec}


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api/v2/pods",
        "/api/v1/widgets",
        "/apis/apps/v1",
        "/api/v1/pods/a",
        "/api/v1/namespaces/default/nodes/n",
        f"{DEFAULT}/pods/a/nonsense",
        f"{DEFAULT}/services/a/scale",
        f"{DEFAULT}/pods//status",
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/a/status",
    ],
)
def test_paths_that_do_not_exist(path):
    with pytest.raises(errors.ApiError) as caught:
        routes.target(path)
    assert caught.value.code == 404


def test_paths_of_namespaces_and_in_namespaces():
    assert routes.target("/api/v1/namespaces/demo").key == ("", "demo")
    assert routes.target("/api/v1/namespaces/demo/status").subresource == "status"
    assert routes.target("/api/v1/namespaces/demo/pods/a").key == ("demo", "a")
    assert routes.target("/apis/apps/v1/daemonsets").kind.name == "DaemonSet"


def test_a_service_gets_defaults_and_an_address(api):
    made = send(api, "POST", f"{DEFAULT}/services", service())
    assert made["apiVersion"] == "v1"
    assert made["kind"] == "Service"
    assert made["metadata"]["namespace"] == "default"
    address = made["spec"]["clusterIP"]
    assert ipaddress.ip_address(address) in ipaddress.ip_network("10.96.0.0/16")
    assert made["spec"] == {
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "clusterIP": address,
        "clusterIPs": [address],
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
    }


def test_an_address_is_respected_kept_and_given_once(api):
    send(api, "POST", f"{DEFAULT}/services", service("a", clusterIP="10.96.0.1"))
    other = send(api, "POST", f"{DEFAULT}/services", service("b"))
    assert other["spec"]["clusterIP"] != "10.96.0.1"
    kept = send(api, "PUT", f"{DEFAULT}/services/b", service("b", ports=[{"port": 81}]))
    assert kept["spec"]["clusterIP"] == other["spec"]["clusterIP"]
    answer = failure(api, "POST", f"{DEFAULT}/services", service("c", clusterIP="10.96.0.1"))
    assert answer["code"] == 422
    assert answer["details"]["causes"][0]["field"] == "spec.clusterIP"
    send(api, "DELETE", f"{DEFAULT}/services/a")
    again = send(api, "POST", f"{DEFAULT}/services", service("c", clusterIP="10.96.0.1"))
    assert again["spec"]["clusterIP"] == "10.96.0.1"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"clusterIP": "192.0.2.1"}, "spec.clusterIP"),
        ({"clusterIP": "nonsense"}, "spec.clusterIP"),
        ({"ports": [{"port": 70000}]}, "spec.ports[0].port"),
        ({"ipFamilies": ["IPv6"]}, "spec.ipFamilies[0]"),
    ],
)
def test_bad_services_are_422_with_the_field(api, spec, field):
    answer = failure(api, "POST", f"{DEFAULT}/services", service(**spec))
    assert (answer["code"], answer["reason"]) == (422, "Invalid")
    assert field in [cause["field"] for cause in answer["details"]["causes"]]
    assert send(api, "GET", "/api/v1/services")["items"] == []


def test_an_address_cannot_be_changed(api):
    send(api, "POST", f"{DEFAULT}/services", service())
    patch = {"spec": {"clusterIP": "10.96.0.77"}}
    answer = failure(api, "PATCH", f"{DEFAULT}/services/web", patch)
    assert answer["code"] == 422


def test_headless_services_get_no_address(api):
    made = send(api, "POST", f"{DEFAULT}/services", service(clusterIP="None"))
    assert made["spec"]["clusterIPs"] == ["None"]
    made = send(api, "POST", f"{DEFAULT}/services", service("b"))
    assert made["spec"]["clusterIP"].startswith("10.96.")


def test_errors_have_code_and_reason(api):
    send(api, "POST", f"{DEFAULT}/pods", pod())
    rows = [
        (("GET", f"{DEFAULT}/pods/b"), 404, "NotFound"),
        (("POST", f"{DEFAULT}/pods", pod()), 409, "AlreadyExists"),
        (("POST", "/api/v1/namespaces/nowhere/pods", pod()), 404, "NotFound"),
        (("POST", f"{DEFAULT}/pods", {"kind": "Service"}), 400, "BadRequest"),
        (("POST", f"{DEFAULT}/pods", {"metadata": {"namespace": "x"}}), 400, "BadRequest"),
        (("POST", f"{DEFAULT}/pods", []), 400, "BadRequest"),
        (("POST", f"{DEFAULT}/pods", {"metadata": {}}), 422, "Invalid"),
        (("PUT", f"{DEFAULT}/pods/a", pod("b")), 400, "BadRequest"),
        (("PATCH", f"{DEFAULT}/pods/a", ["x"]), 400, "BadRequest"),
        (("GET", "/api/v1/pods", None, {"labelSelector": "a in b"}), 400, "BadRequest"),
        (("GET", "/api/v1/pods", None, {"fieldSelector": "spec.x=1"}), 400, "BadRequest"),
    ]
    for request, code, reason in rows:
        answer = failure(api, *request)
        assert (answer["code"], answer["reason"]) == (code, reason), request


def test_a_body_that_is_no_json_is_400(api):
    with pytest.raises(errors.ApiError) as caught:
        api.create(routes.target("/api/v1/namespaces"), b"{")
    assert caught.value.code == 400


def test_put_of_an_old_version_conflicts(api):
    old = send(api, "POST", f"{DEFAULT}/services", service())
    send(api, "PATCH", f"{DEFAULT}/services/web", {"metadata": {"labels": {"a": "b"}}})
    answer = failure(api, "PUT", f"{DEFAULT}/services/web", old)
    assert (answer["code"], answer["reason"]) == (409, "Conflict")


def test_merge_patch_removes_by_null(api):
    send(api, "POST", f"{DEFAULT}/pods", pod(labels={"a": "1", "b": "2"}))
    made = send(api, "PATCH", f"{DEFAULT}/pods/a", {"metadata": {"labels": {"a": None}}})
    assert made["metadata"]["labels"] == {"b": "2"}


def test_status_and_specification_are_written_apart(api):
    made = send(api, "POST", f"{DEFAULT}/pods", {**pod(), "status": {"phase": "Running"}})
    assert made["status"] == {"phase": "Pending"}
    changed = {**made, "metadata": {**made["metadata"], "labels": {"x": "y"}}}
    changed["status"] = {"phase": "Running"}
    assert send(api, "PUT", f"{DEFAULT}/pods/a/status", changed)["metadata"].get("labels") == {}
    after = send(api, "GET", f"{DEFAULT}/pods/a")
    assert after["status"] == {"phase": "Running"}
    assert after["metadata"]["generation"] == 1
    after["status"] = {"phase": "Failed"}
    assert send(api, "PUT", f"{DEFAULT}/pods/a", after)["status"] == {"phase": "Running"}


def test_a_status_of_the_wrong_shape_is_refused(api):
    send(api, "POST", f"{DEFAULT}/pods", pod())
    answer = failure(api, "PATCH", f"{DEFAULT}/pods/a/status", {"status": {"phase": 7}})
    assert answer["code"] == 422


def test_selectors(api):
    send(api, "POST", f"{DEFAULT}/pods", pod("a", node="n1", labels={"app": "x"}))
    send(api, "POST", f"{DEFAULT}/pods", pod("b", node="n2", labels={"app": "x", "t": ""}))
    send(api, "POST", f"{DEFAULT}/pods", pod("c", labels={"app": "y"}))

    def names(**query):
        found = send(api, "GET", "/api/v1/pods", None, query)
        return [item["metadata"]["name"] for item in found["items"]]

    assert names(labelSelector="app=x") == ["a", "b"]
    assert names(labelSelector="app==x,!t") == ["a"]
    assert names(labelSelector="app!=x") == ["c"]
    assert names(labelSelector="t") == ["b"]
    assert names(fieldSelector="spec.nodeName=n1") == ["a"]
    assert names(fieldSelector="metadata.name!=a", labelSelector="app=x") == ["b"]
    assert names(fieldSelector="spec.nodeName=") == ["c"]


def test_a_pod_on_a_node_is_marked_then_removed(api):
    send(api, "POST", f"{DEFAULT}/pods", pod(node="n1"))
    marked = send(api, "DELETE", f"{DEFAULT}/pods/a")
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
    assert marked["metadata"]["deletionTimestamp"] == "1970-01-01T00:00:30Z"
    gone = send(api, "DELETE", f"{DEFAULT}/pods/a", {"gracePeriodSeconds": 0})
    assert gone["status"] == "Success"
    assert failure(api, "GET", f"{DEFAULT}/pods/a")["code"] == 404


def test_a_pod_without_anything_to_stop_is_removed_at_once(api):
    send(api, "POST", f"{DEFAULT}/pods", pod("unbound"))
    assert send(api, "DELETE", f"{DEFAULT}/pods/unbound")["status"] == "Success"
    send(api, "POST", f"{DEFAULT}/pods", pod("failed", node="n1"))
    send(api, "PATCH", f"{DEFAULT}/pods/failed/status", {"status": {"phase": "Failed"}})
    assert send(api, "DELETE", f"{DEFAULT}/pods/failed")["status"] == "Success"


def test_a_namespace_is_marked_until_it_is_finalized(api):
    send(api, "POST", "/api/v1/namespaces", {"metadata": {"name": "demo"}})
    assert send(api, "GET", "/api/v1/namespaces/demo/serviceaccounts/default")
    send(api, "POST", "/api/v1/namespaces/demo/services", service())
    marked = send(api, "DELETE", "/api/v1/namespaces/demo")
    assert marked["status"]["phase"] == "Terminating"
    assert marked["spec"]["finalizers"] == ["kubernetes"]
    answer = failure(api, "POST", "/api/v1/namespaces/demo/services", service("b"))
    assert (answer["code"], answer["reason"]) == (403, "Forbidden")
    assert send(api, "GET", "/api/v1/namespaces/demo/services/web")
    send(api, "DELETE", "/api/v1/namespaces/demo/services/web")
    marked["spec"]["finalizers"] = []
    target = routes.target("/api/v1/namespaces/demo/finalize")
    api.replace(target, msgspec.json.encode(marked))
    assert failure(api, "GET", "/api/v1/namespaces/demo")["code"] == 404
    assert failure(api, "POST", "/api/v1/namespaces/demo/services", service())["code"] == 404


@pytest.mark.parametrize("name", ["default", "kube-system", "kube-public"])
def test_namespaces_that_a_cluster_needs_stay(api, name):
    assert failure(api, "DELETE", f"/api/v1/namespaces/{name}")["code"] == 403


def test_an_exact_old_list_is_that_of_then_or_expired(api):
    send(api, "POST", f"{DEFAULT}/pods", pod("a"))
    then = str(api.store.version)
    send(api, "POST", f"{DEFAULT}/pods", pod("b"))
    query = {"resourceVersion": then, "resourceVersionMatch": "Exact"}
    found = send(api, "GET", "/api/v1/pods", None, query)
    assert [item["metadata"]["name"] for item in found["items"]] == ["a"]
    assert found["metadata"]["resourceVersion"] == then
    query["resourceVersion"] = str(int(then) + 100)
    assert failure(api, "GET", "/api/v1/pods", None, query)["code"] in (410, 504)


def lines(api, path, count, **query):
    stream = api.watch(routes.target(path), {"watch": "1", **query})
    told = itertools.chain.from_iterable(chunk.splitlines() for chunk in stream)
    events = [msgspec.json.decode(line) for line in itertools.islice(told, count)]
    return [(event["type"], event["object"]["metadata"].get("name")) for event in events]


def test_watch_without_a_version_begins_with_what_is_there(api):
    send(api, "POST", f"{DEFAULT}/pods", pod("a"))
    assert lines(api, "/api/v1/pods", 1) == [("ADDED", "a")]
    assert lines(api, "/api/v1/pods", 1, resourceVersion="0") == [("ADDED", "a")]


def test_watch_from_a_version_tells_what_came_after(api):
    send(api, "POST", f"{DEFAULT}/pods", pod("a"))
    since = str(api.store.version)
    send(api, "POST", f"{DEFAULT}/pods", pod("b"))
    send(api, "DELETE", f"{DEFAULT}/pods/a")
    expected = [("ADDED", "b"), ("DELETED", "a")]
    assert lines(api, "/api/v1/pods", 2, resourceVersion=since) == expected


def test_an_object_that_stops_matching_is_deleted_to_the_watcher(api):
    since = str(api.store.version)
    send(api, "POST", f"{DEFAULT}/pods", pod("a", labels={"app": "x"}))
    for value in ("y", "x"):
        send(api, "PATCH", f"{DEFAULT}/pods/a", {"metadata": {"labels": {"app": value}}})
    send(api, "PATCH", f"{DEFAULT}/pods/a", {"metadata": {"annotations": {"k": "v"}}})
    expected = [("ADDED", "a"), ("DELETED", "a"), ("ADDED", "a"), ("MODIFIED", "a")]
    query = {"labelSelector": "app=x", "resourceVersion": since}
    assert lines(api, "/api/v1/pods", 4, **query) == expected


def test_of_an_object_that_stops_matching_the_watcher_sees_what_it_knew(api):
    since = str(api.store.version)
    send(api, "POST", f"{DEFAULT}/pods", pod("a", labels={"app": "x"}))
    changed = send(api, "PATCH", f"{DEFAULT}/pods/a", {"metadata": {"labels": {"app": "y"}}})
    query = {"watch": "1", "labelSelector": "app=x", "resourceVersion": since}
    told = next(api.watch(routes.target("/api/v1/pods"), query)).splitlines()
    last = msgspec.json.decode(told[-1])
    assert last["type"] == "DELETED"
    assert last["object"]["metadata"]["labels"] == {"app": "x"}
    assert last["object"]["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]


def test_watch_of_a_version_too_old_is_an_error_event(api):
    stream = api.watch(routes.target("/api/v1/pods"), {"resourceVersion": "999999"})
    event = msgspec.json.decode(next(stream))
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
    assert list(stream) == []


def test_a_watch_ends_with_a_bookmark_when_its_time_is_over(api, monkeypatch):
    monkeypatch.setattr(watches, "WATCH_SECONDS", 0.001)
    send(api, "POST", f"{DEFAULT}/services", service())
    query = {"resourceVersion": str(api.store.version), "allowWatchBookmarks": "true"}
    (event,) = [
        msgspec.json.decode(line)
        for line in api.watch(routes.target("/api/v1/pods"), query)
        if line
    ]
    assert event["type"] == "BOOKMARK"
    assert event["object"]["metadata"]["resourceVersion"] == str(api.store.version)


def test_an_object_cannot_grow_beyond_what_any_store_takes(api):
    send(api, "POST", f"{DEFAULT}/events", {"metadata": {"name": "e"}})
    path = f"{DEFAULT}/events/e"
    send(api, "PATCH", path, {"message": "x" * 1_000_000})
    before = send(api, "GET", path)
    refused = failure(api, "PATCH", path, {"reason": "x" * 1_000_000})
    assert (refused["code"], refused["reason"]) == (413, "RequestEntityTooLarge")
    assert send(api, "GET", path) == before


def test_a_selector_of_a_deployment_cannot_be_changed(api):
    template = {"metadata": {"labels": {"app": "x", "b": "c"}}, "spec": pod()["spec"]}
    body = {
        "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": template},
    }
    path = "/apis/apps/v1/namespaces/default/deployments"
    made = send(api, "POST", path, body)
    assert made["spec"]["replicas"] == 1
    assert made["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 30
    made["spec"]["selector"] = {"matchLabels": {"b": "c"}}
    assert failure(api, "PUT", f"{path}/d", made)["code"] == 422


@pytest.mark.parametrize("dry_run", [False, True])
def test_what_was_read_somewhere_is_not_created(api, dry_run):
    """As Kubernetes does: 500, with these words and no reason."""
    send(api, "POST", f"{DEFAULT}/services", service("old"))
    old = send(api, "GET", f"{DEFAULT}/services/old")
    again = service("new")
    again["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
    target = routes.target(f"{DEFAULT}/services")
    with pytest.raises(errors.ApiError) as caught:
        api.create(target, msgspec.json.encode(again), Options(dry_run=dry_run))
    assert (caught.value.code, caught.value.reason) == (500, "")
    assert str(caught.value) == "resourceVersion should not be set on objects to be created"
    assert failure(api, "GET", f"{DEFAULT}/services/new")["code"] == 404
    # What exists is not compared with it either.
    assert failure(api, "POST", f"{DEFAULT}/services", old)["code"] == 500


@pytest.mark.parametrize("version", ["", "0", "-1", "new"])
def test_what_is_no_version_hinders_no_creation(api, version):
    new = service("new")
    new["metadata"]["resourceVersion"] = version
    assert send(api, "POST", f"{DEFAULT}/services", new)["metadata"]["resourceVersion"] != version

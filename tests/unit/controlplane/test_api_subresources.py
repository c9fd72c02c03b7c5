"""Scale, binding, eviction, tokens, finalizers; events in two versions; dry runs; deletion."""

import itertools

import jwt
import msgspec
import pytest
from local_cluster import new_api

from kproxy import errors, rfc3339
from kproxy.controlplane import eventexpiry, routes, status
from kproxy.controlplane.access.tokens import AUDIENCE, Signer
from kproxy.controlplane.requests import Options
from kproxy.controlplane.rest import Api

DEFAULT = "/api/v1/namespaces/default"
APPS = "/apis/apps/v1/namespaces/default"
KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def api():
    return new_api()


def post(api, path, body, **options):
    answer = api.create(routes.target(path), msgspec.json.encode(body), Options(**options))
    return msgspec.json.decode(answer.body)


def get(api, path, **query):
    target = routes.target(path)
    answer = api.get(target) if target.name else api.list(target, query)
    return msgspec.json.decode(answer.body)


def put(api, path, body, **options):
    answer = api.replace(routes.target(path), msgspec.json.encode(body), Options(**options))
    return msgspec.json.decode(answer.body)


def patch(api, path, body, kind="merge-patch", **options):
    made = Options(content_type=f"application/{kind}+json", **options)
    answer = api.patch(routes.target(path), msgspec.json.encode(body), made)
    return msgspec.json.decode(answer.body)


def delete(api, path, body=None, **query):
    data = msgspec.json.encode(body) if body is not None else b""
    return msgspec.json.decode(api.delete(routes.target(path), query, data).body)


def refusal(call, *args, **options):
    with pytest.raises((errors.KproxyError, ExceptionGroup)) as caught:
        call(*args, **options)
    answer = status.failure(caught.value)
    return answer["code"], answer["message"]


def pod(name="a", **meta):
    return {"metadata": {"name": name, **meta}, "spec": {"containers": [{"name": "c"}]}}


def deployment():
    template = {"metadata": {"labels": {"app": "x"}}, "spec": pod()["spec"]}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "x"}}, "template": template}
    return {"metadata": {"name": "web"}, "spec": spec}


def test_scale(api):
    made = post(api, f"{APPS}/deployments", deployment())
    scale = get(api, f"{APPS}/deployments/web/scale")
    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert (scale["spec"], scale["status"]) == (
        {"replicas": 2},
        {"replicas": 0, "selector": "app=x"},
    )
    changed = patch(api, f"{APPS}/deployments/web/scale", {"spec": {"replicas": 5}})
    assert changed["spec"]["replicas"] == 5
    scaled = get(api, f"{APPS}/deployments/web")
    assert scaled["spec"] == {**made["spec"], "replicas": 5}
    assert scaled["metadata"]["generation"] == 2
    code, message = refusal(put, api, f"{APPS}/deployments/web/scale", scale)
    assert (code, "modified" in message) == (409, True)
    scale["metadata"] = {}
    assert put(api, f"{APPS}/deployments/web/scale", scale)["spec"]["replicas"] == 2
    code, message = refusal(
        patch, api, f"{APPS}/deployments/web/scale", {"spec": {"replicas": -1}}
    )
    assert (code, "spec.replicas" in message) == (422, True)


def test_a_pod_is_bound_once(api):
    post(api, f"{DEFAULT}/pods", pod())
    post(api, f"{DEFAULT}/pods/a/binding", {"target": {"kind": "Node", "name": "n1"}})
    bound = get(api, f"{DEFAULT}/pods/a")
    assert bound["spec"]["nodeName"] == "n1"
    assert [(c["type"], c["status"]) for c in bound["status"]["conditions"]] == [
        ("PodScheduled", "True")
    ]
    code, message = refusal(post, api, f"{DEFAULT}/pods/a/binding", {"target": {"name": "n2"}})
    assert (code, "already assigned" in message) == (409, True)
    delete(api, f"{DEFAULT}/pods/a")
    code, message = refusal(post, api, f"{DEFAULT}/pods/a/binding", {"target": {"name": "n2"}})
    assert (code, "being deleted" in message) == (409, True)
    assert refusal(post, api, f"{DEFAULT}/pods/b/binding", {"target": {"name": "n"}})[0] == 404
    post(api, f"{DEFAULT}/pods", pod("c"))
    assert refusal(post, api, f"{DEFAULT}/pods/c/binding", {"target": {}})[0] == 422


def test_an_eviction_deletes(api):
    post(api, f"{DEFAULT}/pods", pod())
    post(api, f"{DEFAULT}/pods/a/eviction", {"metadata": {"name": "a"}})
    assert refusal(get, api, f"{DEFAULT}/pods/a")[0] == 404


def test_pods_change_only_where_they_may(api):
    post(api, f"{DEFAULT}/pods", pod())
    image = [{"op": "add", "path": "/spec/containers/0/image", "value": "x"}]
    assert patch(api, f"{DEFAULT}/pods/a", image, "json-patch")
    code, message = refusal(patch, api, f"{DEFAULT}/pods/a", {"spec": {"nodeName": "n1"}})
    assert (code, "pod updates may not change fields" in message) == (422, True)


@pytest.mark.parametrize(
    ("path", "body", "change", "field"),
    [
        (
            f"{APPS}/deployments",
            deployment(),
            {"spec": {"selector": {"matchLabels": {"app": "x", "b": "c"}},
                      "template": {"metadata": {"labels": {"b": "c"}}}}},
            "spec.selector",
        ),
        (
            f"{APPS}/statefulsets",
            {**deployment(), "spec": {**deployment()["spec"], "serviceName": "a"}},
            {"spec": {"serviceName": "b"}},
            "spec",
        ),
        (f"{DEFAULT}/secrets", {"metadata": {"name": "web"}}, {"type": "other"}, "type"),
        (
            f"{DEFAULT}/configmaps",
            {"metadata": {"name": "web"}, "data": {"a": "b"}, "immutable": True},
            {"data": {"a": "c"}},
            "data",
        ),
    ],
)  # fmt: skip
def test_immutable_fields(api, path, body, change, field):
    post(api, path, body)
    code, message = refusal(patch, api, f"{path}/web", change)
    assert code == 422
    assert f"is invalid: {field}: " in message


def test_generated_names(api):
    names = set()
    for _ in range(5):
        made = post(api, f"{DEFAULT}/configmaps", {"metadata": {"generateName": "conf-"}})
        names.add(made["metadata"]["name"])
    assert len(names) == 5
    assert all(name.startswith("conf-") and len(name) == 10 for name in names)


def test_secrets_are_kept_encoded(api):
    body = {"metadata": {"name": "a"}, "stringData": {"key": "value"}}
    made = post(api, f"{DEFAULT}/secrets", body)
    assert made["data"] == {"key": "dmFsdWU="}
    assert "stringData" not in made


@pytest.mark.parametrize("name", ["10.96.0.77", "fd00:10:96::4d"])
def test_addresses_are_names(api, name):
    path = "/apis/networking.k8s.io/v1/ipaddresses"
    ref = {"resource": "services", "namespace": "demo", "name": "web"}
    made = post(api, path, {"metadata": {"name": name}, "spec": {"parentRef": ref}})
    assert get(api, f"{path}/{name}") == made
    assert (
        refusal(post, api, path, {"metadata": {"name": "x"}, "spec": {"parentRef": ref}})[0] == 422
    )


def test_events_are_one_store_in_two_versions(api):
    new, old = "/apis/events.k8s.io/v1/namespaces/default/events", f"{DEFAULT}/events"
    about = {"kind": "Pod", "name": "a", "namespace": "default"}
    made = post(api, new, {
        "metadata": {"name": "a.1"}, "regarding": about, "note": "hello", "type": "Normal",
        "reportingController": "me", "eventTime": "2026-01-01T00:00:00.000001Z",
    })  # fmt: skip
    assert (made["apiVersion"], made["regarding"]) == ("events.k8s.io/v1", about)
    shown = get(api, f"{old}/a.1")
    assert (shown["apiVersion"], shown["involvedObject"]) == ("v1", about)
    assert (shown["message"], shown["reportingComponent"]) == ("hello", "me")
    query = {"fieldSelector": "involvedObject.name=a,involvedObject.kind=Pod"}
    assert len(get(api, old, **query)["items"]) == 1
    (item,) = get(api, new, fieldSelector="regarding.name=a")["items"]
    assert item["note"] == "hello"
    patched = patch(api, f"{old}/a.1", {"count": 2, "message": "again"})
    assert (patched["count"], get(api, f"{new}/a.1")["deprecatedCount"]) == (2, 2)
    lines = next(iter(api.watch(routes.target(new), {}))).splitlines()
    assert msgspec.json.decode(lines[0])["object"]["note"] == "again"


def test_events_are_forgotten_after_an_hour(api):
    def told(name, **times):
        about = {"kind": "Pod", "name": "a"}
        post(
            api,
            f"{DEFAULT}/events",
            {"metadata": {"name": name}, "involvedObject": about, **times},
        )

    now = rfc3339.seconds_of("2100-01-01T01:00:00Z")
    told("new", lastTimestamp="2100-01-01T00:00:01Z")
    told("old", lastTimestamp="2099-12-31T23:59:59Z")
    told("again", series={"lastObservedTime": "2100-01-01T00:30:00.000000Z"})
    assert len(get(api, f"{DEFAULT}/events")["items"]) == 3
    assert eventexpiry.expire(api.store, now) == 1
    names = [item["metadata"]["name"] for item in get(api, f"{DEFAULT}/events")["items"]]
    assert names == ["again", "new"]


def test_leases_keep_microseconds(api):
    path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    spec = {"holderIdentity": "n1", "renewTime": "2026-01-01T00:00:00.123456Z"}
    assert post(api, path, {"metadata": {"name": "n1"}, "spec": spec})["spec"] == spec


@pytest.mark.parametrize(("policy", "finalizer"), [
    ("Foreground", "foregroundDeletion"), ("Orphan", "orphan"),
])  # fmt: skip
def test_propagation_is_told_by_a_finalizer(api, policy, finalizer):
    post(api, f"{APPS}/deployments", deployment())
    marked = delete(api, f"{APPS}/deployments/web", {"propagationPolicy": policy})
    assert marked["metadata"]["finalizers"] == [finalizer]
    assert marked["metadata"]["deletionTimestamp"]
    patch(api, f"{APPS}/deployments/web", {"metadata": {"finalizers": None}})
    assert refusal(get, api, f"{APPS}/deployments/web")[0] == 404


def test_finalizers_hold_an_object_back(api):
    post(api, f"{DEFAULT}/configmaps", {"metadata": {"name": "a", "finalizers": ["x/y"]}})
    first = delete(api, f"{DEFAULT}/configmaps/a", {"propagationPolicy": "Background"})
    assert first["metadata"]["finalizers"] == ["x/y"]
    assert delete(api, f"{DEFAULT}/configmaps/a")["metadata"]["deletionTimestamp"]
    patch(api, f"{DEFAULT}/configmaps/a", {"metadata": {"finalizers": []}})
    assert refusal(get, api, f"{DEFAULT}/configmaps/a")[0] == 404


def test_preconditions_of_a_deletion(api):
    made = post(api, f"{DEFAULT}/configmaps", {"metadata": {"name": "a"}})
    path = f"{DEFAULT}/configmaps/a"
    assert refusal(delete, api, path, {"preconditions": {"uid": "other"}})[0] == 409
    assert refusal(delete, api, path, {"preconditions": {"resourceVersion": "1"}})[0] == 409
    assert refusal(delete, api, path, {"propagationPolicy": "Sideways"})[0] == 400
    assert refusal(delete, api, path, {"preconditions": []})[0] == 400
    wanted = {"uid": made["metadata"]["uid"]}
    assert delete(api, path, {"preconditions": wanted})["status"] == "Success"


def test_a_collection_is_deleted_by_selector(api):
    for name, label in (("a", "x"), ("b", "x"), ("c", "y")):
        body = {"metadata": {"name": name, "labels": {"l": label}}}
        post(api, f"{DEFAULT}/configmaps", body)
    delete(api, f"{DEFAULT}/configmaps", labelSelector="l=x")
    names = [item["metadata"]["name"] for item in get(api, f"{DEFAULT}/configmaps")["items"]]
    assert names == ["c"]


def test_dry_runs_change_nothing(api):
    body = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
    shown = post(api, f"{DEFAULT}/services", body, dry_run=True)
    assert shown["spec"]["clusterIP"]
    assert shown["metadata"]["uid"]
    assert get(api, f"{DEFAULT}/services")["items"] == []
    made = post(api, f"{DEFAULT}/services", body)
    assert refusal(post, api, f"{DEFAULT}/services", body, dry_run=True)[0] == 409
    changed = patch(
        api, f"{DEFAULT}/services/web", {"metadata": {"labels": {"a": "b"}}}, dry_run=True
    )
    assert changed["metadata"]["labels"] == {"a": "b"}
    assert get(api, f"{DEFAULT}/services/web") == made
    api.delete(routes.target(f"{DEFAULT}/services/web"), {}, b"", Options(dry_run=True))
    assert get(api, f"{DEFAULT}/services/web") == made


def test_streaming_lists_end_with_a_bookmark(api):
    query = {
        "watch": "1",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
    }
    lines = next(iter(api.watch(routes.target("/api/v1/namespaces"), query))).splitlines()
    last = msgspec.json.decode(lines[-1])
    assert last["type"] == "BOOKMARK"
    assert last["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_lists_by_pages(api):
    for number in range(5):
        post(api, f"{DEFAULT}/configmaps", {"metadata": {"name": f"c{number}"}})
    found, token, versions = [], "", set()
    for _ in itertools.count():
        page = get(api, f"{DEFAULT}/configmaps", limit="2", **{"continue": token})
        found += [item["metadata"]["name"] for item in page["items"]]
        versions.add(page["metadata"]["resourceVersion"])
        token = page["metadata"].get("continue", "")
        if not token:
            break
        post(api, f"{DEFAULT}/configmaps", {"metadata": {"name": f"c{len(found)}z"}})
    assert found == [f"c{number}" for number in range(5)]
    assert len(versions) == 1
    assert refusal(get, api, f"{DEFAULT}/configmaps", **{"continue": "?"})[0] == 400


def test_a_version_that_is_not_there_yet(api):
    assert refusal(get, api, f"{DEFAULT}/pods", resourceVersion="999999")[0] == 504


def with_signer(now):
    api = new_api()
    return Api(api.store, api._writes._allocations, Signer(KEY, now))


def test_a_token_is_given_out_and_expires():
    clock = [1_000_000.0]
    api = with_signer(lambda: clock[0])
    path = f"{DEFAULT}/serviceaccounts/default/token"
    made = post(api, path, {"spec": {"expirationSeconds": 600}})
    assert made["spec"] == {"expirationSeconds": 600, "audiences": [AUDIENCE]}
    longest = post(api, path, {"spec": {"expirationSeconds": 10**9}})
    assert longest["spec"]["expirationSeconds"] == 24 * 3600
    answer = made["status"]
    assert answer["expirationTimestamp"] == "1970-01-12T13:56:40Z"
    claims = jwt.decode(answer["token"], options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 600
    assert claims["aud"] == [AUDIENCE]
    signer = Signer(KEY, lambda: clock[0])
    proof = signer.proof(answer["token"], lambda *_: True)
    assert proof.user.name == "system:serviceaccount:default:default"
    assert signer.proof(answer["token"], lambda *_: False) is None
    assert Signer(KEY[::-1]).proof(answer["token"], lambda *_: True) is None
    clock[0] += 600
    assert signer.proof(answer["token"], lambda *_: True) is None
    assert refusal(post, api, path, {"spec": {"expirationSeconds": 60}})[0] == 422
    assert refusal(post, api, f"{DEFAULT}/serviceaccounts/x/token", {})[0] == 404


def test_a_token_of_a_pod(api):
    api = with_signer(lambda: 1.0)
    made = post(api, f"{DEFAULT}/pods", pod())
    path = f"{DEFAULT}/serviceaccounts/default/token"
    ref = {"kind": "Pod", "name": "a", "uid": made["metadata"]["uid"]}
    token = post(api, path, {"spec": {"boundObjectRef": ref}})["status"]["token"]
    asked = []
    Signer(KEY, lambda: 2.0).proof(token, lambda *what: asked.append(what) or True)
    assert ("pods", "default", "a", made["metadata"]["uid"]) in asked
    ref["uid"] = "other"
    assert refusal(post, api, path, {"spec": {"boundObjectRef": ref}})[0] == 409


def test_without_a_key_there_are_no_tokens(api):
    assert refusal(post, api, f"{DEFAULT}/serviceaccounts/default/token", {})[0] == 501

"""Discovery, OpenAPI and tables: true to what is served, in the forms that clients parse."""

import msgspec
import pytest
from local_cluster import new_api

from kproxy.api import catalog, kinds, shapes
from kproxy.controlplane import routes
from kproxy.controlplane.presentation import (
    cells,
    columns,
    discovery,
    openapi,
    openapi_v2,
    podcells,
    resources,
    schemas,
    tables,
)
from kproxy.controlplane.protobuf import wire
from kproxy.controlplane.requests import Options
from kproxy.controlplane.serving import documents

AGGREGATED = discovery.AGGREGATED.format(version="v2")
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


@pytest.mark.parametrize("version", resources.versions())
def test_every_resource_can_be_reached(version):
    root = "/apis/" if "/" in version else "/api/"
    listed = discovery.plain(root + version)
    assert listed["groupVersion"] == version
    for resource in listed["resources"]:
        name, _, part = resource["name"].partition("/")
        path = f"{root}{version}/" + ("namespaces/x/" if resource["namespaced"] else "") + name
        if routes.review(path):
            continue
        target = routes.target(f"{path}/y/{part}" if part else path)
        assert target.kind.name == resource["kind"] or part


def test_plain_and_aggregated_discovery_tell_the_same():
    plain = {
        (version.rpartition("/")[0], entry["name"])
        for version in resources.versions()
        for entry in discovery.plain(("/apis/" if "/" in version else "/api/") + version)[
            "resources"
        ]
    }
    gathered = set()
    for path in ("/api", "/apis"):
        for group in discovery.aggregated(path, "v2")["items"]:
            for version in group["versions"]:
                for entry in version["resources"]:
                    name = group["metadata"].get("name", "")
                    gathered.add((name, entry["resource"]))
                    for part in entry.get("subresources", ()):
                        gathered.add((name, f"{entry['resource']}/{part['subresource']}"))
    assert gathered == plain


def test_scale_is_of_its_own_group():
    found = {entry["name"]: entry for entry in discovery.plain("/apis/apps/v1")["resources"]}
    scale = found["deployments/scale"]
    assert (scale["kind"], scale["group"], scale["version"]) == ("Scale", "autoscaling", "v1")
    assert "daemonsets/scale" not in found


@pytest.mark.parametrize(
    ("accept", "version"),
    [
        (f"{AGGREGATED},application/json", "v2"),
        (discovery.AGGREGATED.format(version="v2beta1"), "v2beta1"),
        ("application/json", ""),
        ("application/json, */*", ""),
        ("", ""),
    ],
)
def test_who_gets_aggregated_discovery(accept, version):
    assert discovery.aggregated_version(accept) == version


def test_documents_are_labelled_as_what_they_are():
    store = new_api().store
    answer = documents.answer("/apis", AGGREGATED, store)
    assert answer.content_type == AGGREGATED
    assert documents.answer("/apis", "application/json", store).content_type == "application/json"
    accept = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
    proto = documents.answer("/openapi/v2", accept, store)
    assert "@" not in proto.content_type
    assert proto.body[:5] == b"\x0a\x032.0"


@pytest.mark.parametrize("kind", kinds.known(), ids=lambda kind: kind.api_version + kind.name)
def test_schemas_are_those_of_the_types(kind):
    found = schemas.definitions(kind, openapi.ROOT)
    name = schemas.definition_name(kind, shapes.of(kind))
    whole = found[name]
    assert whole["description"]
    assert set(whole["properties"]) == set(shapes.of(kind).fields)
    for field in msgspec.structs.fields(kind.type):
        assert field.encode_name in whole["properties"]
    text = msgspec.json.encode(found).decode()
    for part in text.split('"$ref":"')[1:]:
        assert part.partition('"')[0].removeprefix(openapi.ROOT) in found


def test_writes_advertise_validation_and_dry_runs():
    document = msgspec.json.decode(openapi.document("apps/v1"))
    item = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]
    names = {parameter["name"] for parameter in item["patch"]["parameters"]}
    assert {"fieldValidation", "dryRun", "fieldManager", "force"} <= names
    gvk = item["patch"]["x-kubernetes-group-version-kind"]
    assert gvk == {"group": "apps", "version": "v1", "kind": "Deployment"}
    schema = document["components"]["schemas"]["io.k8s.api.apps.v1.PodSpec"]
    containers = schema["properties"]["containers"]
    assert containers["x-kubernetes-patch-merge-key"] == "name"


@pytest.mark.parametrize("version", ["v1", "apps/v1"])
def test_where_the_server_fills_in_something_kubectl_finds_the_place(version):
    """Of a place that differs and is not there it warns whenever a manifest is applied."""
    served = msgspec.json.decode(openapi.document(version))["components"]["schemas"]
    group = version.partition("/")[0] if "/" in version else "core"
    source = served[f"io.k8s.api.{group}.v1.EnvVar"]["properties"]["valueFrom"]
    assert source["properties"]["fieldRef"]["type"] == "object"
    assert source["x-kubernetes-preserve-unknown-fields"]


def test_what_is_explained_is_not_called_missing():
    assert b"Not supported" not in openapi.document("v1") + openapi.document("apps/v1")


def test_the_index_leads_to_every_document():
    paths = openapi.index()["paths"]
    assert "api/v1" in paths
    store = new_api().store
    for place, entry in paths.items():
        url = entry["serverRelativeURL"].partition("?")[0]
        assert url == f"/openapi/v3/{place}"
        assert documents.answer(url, "application/json", store).code == 200


def test_the_protobuf_document_holds_paths_and_definitions():
    fields = dict(wire.fields(openapi_v2.document()))
    paths = [dict(wire.fields(value)) for number, value in wire.fields(fields[8])]
    names = {path[1].decode() for path in paths}
    assert "/api/v1/namespaces/{namespace}/pods/{name}" in names
    definitions = {
        dict(wire.fields(value))[1].decode(): dict(wire.fields(value))[2]
        for _, value in wire.fields(fields[9])
    }
    assert "io.k8s.api.core.v1.Pod" in definitions
    json = msgspec.json.decode(openapi_v2.json_document())
    assert set(json["definitions"]) == set(definitions)
    assert set(json["paths"]) == names


@pytest.mark.parametrize("kind", kinds.known(), ids=lambda kind: kind.api_version + kind.name)
def test_every_kind_has_columns_that_bear_an_empty_object(kind):
    assert kind.plural in columns.BY_RESOURCE
    obj = {"metadata": {"name": "x", "namespace": "demo"}}
    table = tables.table(kind, [obj], {}, 0.0)
    assert len(table["rows"][0]["cells"]) == len(table["columnDefinitions"])


def cells_of(kind, obj, now=0.0):
    table = tables.table(kind, [obj], {}, now)
    names = [column["name"] for column in table["columnDefinitions"]]
    return dict(zip(names, table["rows"][0]["cells"], strict=True))


def test_a_service_as_a_row():
    spec = {
        "type": "LoadBalancer",
        "clusterIP": "10.96.0.2",
        "ports": [{"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP"}],
        "selector": {"b": "2", "a": "1"},
    }
    obj = {"metadata": {"name": "web", "creationTimestamp": "1970-01-01T00:00:00Z"}, "spec": spec}
    row = cells_of(kinds.SERVICE, obj, now=90.0)
    assert row["Port(s)"] == "80:30080/TCP,53/UDP"
    assert row["External-IP"] == "<pending>"
    assert (row["Age"], row["Selector"]) == ("90s", "a=1,b=2")
    obj["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}}
    assert cells_of(kinds.SERVICE, obj)["External-IP"] == "192.0.2.9"


def test_a_daemon_set_as_a_row():
    status = {
        "desiredNumberScheduled": 5,
        "currentNumberScheduled": 4,
        "numberReady": 3,
        "updatedNumberScheduled": 2,
        "numberAvailable": 1,
    }
    row = cells_of(catalog.DAEMON_SET, {"metadata": {"name": "x"}, "status": status})
    names = ("Desired", "Current", "Ready", "Up-to-date", "Available")
    assert [row[name] for name in names] == [5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("pod", "word"),
    [
        ({"status": {"phase": "Pending"}}, "Pending"),
        ({"status": {"phase": "Failed", "reason": "Evicted"}}, "Evicted"),
        (
            {
                "status": {
                    "containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}]
                }
            },
            "ErrImagePull",
        ),
        (
            {"status": {"containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}},
            "ExitCode:3",
        ),
        (
            {
                "spec": {"initContainers": [{}, {}]},
                "status": {
                    "phase": "Pending",
                    "initContainerStatuses": [
                        {"state": {"terminated": {"exitCode": 0}}},
                        {"state": {"running": {}}},
                    ],
                },
            },
            "Init:1/2",
        ),
        (
            {"metadata": {"deletionTimestamp": "x"}, "status": {"phase": "Running"}},
            "Terminating",
        ),
        (
            {"metadata": {"deletionTimestamp": "x"}, "status": {"phase": "Succeeded"}},
            "Succeeded",
        ),
    ],
)
def test_the_word_for_a_pod(pod, word):
    assert podcells.status({"metadata": {}, **pod}) == word


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600 + 60, "3h1m"),
        (47 * 3600, "47h"),
        (48 * 3600, "2d"),
        (50 * 3600, "2d2h"),
        (300 * 86400, "300d"),
        (1000 * 86400, "2y270d"),
    ],
)
def test_durations(seconds, text):
    assert cells.duration(seconds) == text


def test_lists_and_watches_as_tables():
    api = new_api()
    target = routes.target("/api/v1/namespaces")
    options = Options(accept=TABLE)
    table = msgspec.json.decode(api.list(target, {}, options).body)
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    row = table["rows"][0]
    assert row["cells"][:2] == ["default", "Active"]
    assert row["object"]["kind"] == "PartialObjectMetadata"
    lines = next(api.watch(target, {"watch": "1"}, options)).splitlines()
    events = [msgspec.json.decode(line) for line in lines]
    assert events[0]["object"]["rows"][0]["cells"][0] == "default"
    assert events[0]["object"]["columnDefinitions"]
    assert events[1]["object"]["columnDefinitions"] is None


@pytest.mark.parametrize(
    ("include", "kind"), [("Object", "Namespace"), ("None", None), ("", "PartialObjectMetadata")]
)
def test_what_comes_with_a_row(include, kind):
    options = Options(accept=TABLE, include=include)
    answer = new_api().get(routes.target("/api/v1/namespaces/default"), options)
    obj = msgspec.json.decode(answer.body)["rows"][0]["object"]
    assert obj is None if kind is None else obj["kind"] == kind


def test_metadata_only():
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    api = new_api()
    found = api.list(routes.target("/api/v1/namespaces"), {}, Options(accept=accept))
    listed = msgspec.json.decode(found.body)
    assert listed["kind"] == "PartialObjectMetadataList"
    assert "spec" not in listed["items"][0]
    accept = accept.replace("List", "")
    found = api.get(routes.target("/api/v1/namespaces/default"), Options(accept=accept))
    assert msgspec.json.decode(found.body)["kind"] == "PartialObjectMetadata"

"""Decoding of lists, events and single objects, and their way back."""

import json

import pytest

from kproxy.api import apps, catalog, codec, core, discovery, kinds
from kproxy.api.whole import whole
from kproxy.errors import ApiError, Conflict, Gone, InvalidItem, InvalidObject, KproxyError


def service(name, **spec):
    return {"metadata": {"name": name, "namespace": "demo", "resourceVersion": "7"}, "spec": spec}


def as_list(*items, **meta):
    return json.dumps(
        {"kind": "List", "metadata": {"resourceVersion": "42", **meta}, "items": items}
    ).encode()


def test_a_list_gives_items_and_version():
    raw = as_list(service("a", ports=[{"port": 80}]), service("b"))
    items, version, problems, _ = codec.decode_page(raw, core.Service)
    assert [item.metadata.name for item in items] == ["a", "b"]
    assert items[0].spec.ports == [core.ServicePort(port=80)]
    assert (version, problems) == ("42", [])


def test_a_list_without_items_is_empty():
    raw = json.dumps({"metadata": {"resourceVersion": "1"}, "items": None}).encode()
    assert codec.decode_page(raw, core.Service) == ([], "1", [], "")


def test_one_malformed_object_costs_only_itself():
    raw = as_list(service("a"), service("bad", ports=[{"port": "eighty"}]), service("c"))
    items, version, problems, _ = codec.decode_page(raw, core.Service)
    assert [item.metadata.name for item in items] == ["a", "c"]
    assert version == "42"
    (problem,) = problems
    assert str(problem) == (
        "Service demo/bad: spec.ports[0].port: must be a whole number, not text"
        " (correct its value)"
    )
    assert (problem.namespace, problem.name, problem.resource_version) == ("demo", "bad", "7")


def test_a_missing_field_is_named():
    raw = as_list(service("bad", ports=[{"name": "http"}]))
    (problem,) = codec.decode_page(raw, core.Service)[2]
    assert str(problem) == "Service demo/bad: spec.ports[0].port: is missing (add it)"


@pytest.mark.parametrize(
    ("item", "label"),
    [
        ({"metadata": {"name": 3}}, "Service without a name"),
        ({"spec": {}}, "Service without a name"),
        (["no object"], "Service without a name"),
        ({"metadata": {"name": "x", "labels": {"a": 1}}}, "Service default/x"),
    ],
)
def test_an_object_without_identity_is_still_reported(item, label):
    items, _, problems, _ = codec.decode_page(as_list(item, service("good")), core.Service)
    assert [item.metadata.name for item in items] == ["good"]
    assert [problem.obj for problem in problems] == [label]


def test_a_whole_object_is_named_like_a_typed_one():
    raw = as_list({"metadata": {"name": "x", "namespace": "demo", "labels": {"a": 1}}})
    (problem,) = codec.decode_page(raw, whole(kinds.SERVICE)).problems
    assert problem.obj == "Service demo/x"


@pytest.mark.parametrize("raw", [b"", b"{", b"<html>", b"\xff\xfe", b'{"items": 3}', b"[]"])
def test_what_is_no_list_is_an_error(raw):
    with pytest.raises(KproxyError, match="cannot be read"):
        codec.decode_page(raw, core.Service)


def deep(text):
    """Return JSON nested more deeply than anybody reads."""
    return text.replace("DEEP", "[" * 5000 + "]" * 5000).encode()


def test_one_object_that_is_not_utf_8_costs_only_itself():
    raw = as_list(service("good"), service("evil")).replace(b"evil", b"evi\xff")
    items, version, problems, _ = codec.decode_page(raw, core.Service)
    assert [item.metadata.name for item in items] == ["good"]
    assert version
    assert [problem.obj for problem in problems] == ["Service demo/evi\N{REPLACEMENT CHARACTER}"]


UNREADABLE = {
    "nested too deeply": b"[" * 5000 + b"]" * 5000,
    "half a letter": b'"\\ud800"',
    "no escape": b'"\\q"',
    "no number": b"NaN",
    "too large a number": b"1e999",
    "not UTF-8": b'"\xff"',
    "nothing at all": b"",
}
EVERY_UNREADABLE = pytest.mark.parametrize("junk", UNREADABLE.values(), ids=UNREADABLE)


@EVERY_UNREADABLE
@pytest.mark.parametrize("place", ["labels", "status", "spec"])
def test_an_object_that_nobody_can_read_costs_only_itself(junk, place):
    evil = {**service("evil"), place: "JUNK"}
    if place == "labels":
        evil["metadata"]["labels"] = "JUNK"
    raw = as_list(service("good"), evil, service("last")).replace(b'"JUNK"', junk)
    items, version, problems, _ = codec.decode_page(raw, core.Service)
    assert [item.metadata.name for item in items] == ["good", "last"]
    assert version == codec.decode_page(as_list(), core.Service)[1]
    assert [(one.obj, one.resource_version) for one in problems] == [("Service demo/evil", "7")]


@EVERY_UNREADABLE
def test_an_event_that_nobody_can_read_tells_whose_it_is(junk):
    for place in ("spec", "status"):
        line = event("MODIFIED", {**service("evil"), place: "JUNK"}).replace(b'"JUNK"', junk)
        with pytest.raises(InvalidItem) as caught:
            codec.decode_event(line, core.Service)
        assert (caught.value.name, caught.value.resource_version) == ("evil", "7")
        gone = codec.decode_event(line.replace(b"MODIFIED", b"DELETED"), core.Service)
        assert (gone.key, gone.object, gone.resource_version) == (("demo", "evil"), None, "7")


@EVERY_UNREADABLE
def test_a_name_that_nobody_can_read(junk):
    raw = as_list(service("good"), service("JUNK")).replace(b'"JUNK"', junk)
    items, _, problems, _ = codec.decode_page(raw, core.Service)
    assert [item.metadata.name for item in items] == ["good"]
    assert len(problems) == 1


def test_what_is_nested_too_deeply_is_an_error_like_others():
    with pytest.raises(InvalidItem):
        codec.decode_object(deep('{"status": DEEP}'), core.Service)
    assert codec.api_error(500, deep('{"details": DEEP}')).code == 500
    for raw in ('{"items": DEEP', '{"items": [{"status": DEEP}', '{"items": [}}', "DEEP"):
        with pytest.raises(KproxyError, match="cannot be read"):
            codec.decode_page(deep(raw), core.Service)
    for line in ('{"type": "ADDED", "object": {"a": DEEP}', '{"type": 3, "object": DEEP}', "DEEP"):
        with pytest.raises(KproxyError, match="cannot be read"):
            codec.decode_event(deep(line), core.Service)


@pytest.mark.parametrize("raw", [
    b'{"items": [{}, [}], "metadata": {}}', b'{"items": [NaN], "metadata": 3}',
    b'{"items": [NaN]} 3', b'{"items": ["]}', b'x {"items": [NaN]}',
    b'{"items": {"a": NaN}}', b"[NaN]", b"NaN",
])  # fmt: skip
def test_what_has_no_parts_is_an_error(raw):
    with pytest.raises(KproxyError, match="cannot be read"):
        codec.decode_page(raw, core.Service)


def test_brackets_and_quotes_in_texts_part_nothing():
    odd = service("odd", externalName='a],[{"}\\"\\\\')
    raw = as_list(odd, {"status": "JUNK"}, odd).replace(b'"JUNK"', b"NaN")
    items, _, problems, _ = codec.decode_page(raw, core.Service)
    assert [item.spec.external_name for item in items] == ['a],[{"}\\"\\\\'] * 2
    assert len(problems) == 1


def test_events_that_are_not_utf_8():
    mark = event("BOOKMARK", {"metadata": {"resourceVersion": "5", "name": "x"}})
    assert codec.decode_event(mark.replace(b"x", b"\xff"), core.Service).resource_version == "5"
    bad = event("ADDED", service("evil", ports="oops")).replace(b"oops", b"\xff")
    with pytest.raises(InvalidItem) as caught:
        codec.decode_event(bad, core.Service)
    assert (caught.value.name, caught.value.resource_version) == ("evil", "7")


def test_a_page_has_the_token_of_the_next():
    page = codec.decode_page(as_list(service("a"), **{"continue": "more"}), core.Service)
    assert page.token == "more"


def event(kind, obj):
    return json.dumps({"type": kind, "object": obj}).encode()


@pytest.mark.parametrize("kind", ["ADDED", "MODIFIED", "DELETED"])
def test_an_event_carries_its_object(kind):
    found = codec.decode_event(event(kind, service("a")), core.Service)
    assert found.type == kind
    assert found.object is not None
    assert found.key == ("demo", "a")
    assert found.resource_version == "7"


def test_a_bookmark_carries_only_a_version():
    mark = {"kind": "Service", "metadata": {"resourceVersion": "99", "creationTimestamp": None}}
    found = codec.decode_event(event("BOOKMARK", mark), core.Service)
    assert (found.type, found.object, found.resource_version) == ("BOOKMARK", None, "99")


def test_an_error_event_with_410_is_gone():
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
    with pytest.raises(Gone, match="too old") as caught:
        codec.decode_event(event("ERROR", status), core.Service)
    assert caught.value.reason == "Expired"


def test_a_malformed_object_in_an_event_tells_who_it_is():
    with pytest.raises(InvalidItem) as caught:
        codec.decode_event(event("MODIFIED", service("a", ports=3)), core.Service)
    assert caught.value.name == "a"
    assert caught.value.field == "spec.ports"


def test_a_malformed_object_can_still_be_deleted():
    found = codec.decode_event(event("DELETED", service("a", ports=3)), core.Service)
    assert (found.key, found.object) == (("demo", "a"), None)


@pytest.mark.parametrize("line", [b"", b"{}", b"nonsense", event("SINGING", {})])
def test_what_is_no_event_is_an_error(line):
    with pytest.raises(KproxyError):
        codec.decode_event(line, core.Service)


def test_error_bodies_become_errors():
    conflict = codec.api_error(409, b'{"kind":"Status","code":409,"reason":"Conflict"}')
    assert isinstance(conflict, Conflict)
    plain = codec.api_error(502, b"Bad Gateway\n")
    assert type(plain) is ApiError
    assert (plain.code, plain.message) == (502, "Bad Gateway")
    assert codec.api_error(500, b"").message == "the API server answered with status 500"


def test_objects_survive_the_way_there_and_back():
    item = discovery.EndpointSlice(
        metadata=core.ObjectMeta(name="web-1", namespace="demo"),
        endpoints=[
            discovery.Endpoint(
                addresses=["10.0.0.1"], conditions=discovery.EndpointConditions(ready=False)
            )
        ],
        ports=[discovery.EndpointPort(name="", port=80)],
    )
    data = codec.to_dict(item)
    assert (data["apiVersion"], data["kind"]) == ("discovery.k8s.io/v1", "EndpointSlice")
    assert data["endpoints"] == [{"addresses": ["10.0.0.1"], "conditions": {"ready": False}}]
    assert codec.from_dict(data, discovery.EndpointSlice) == item
    assert codec.decode_object(codec.encode(item), discovery.EndpointSlice) == item


def test_zero_is_written_and_absent_is_not():
    obj = apps.Deployment(
        metadata=core.ObjectMeta(name="web", namespace="demo"),
        spec=apps.DeploymentSpec(replicas=0),
        status=apps.DeploymentStatus(),
    )
    data = codec.to_dict(obj)
    assert data["spec"]["replicas"] == 0
    assert data["status"]["readyReplicas"] == 0
    assert "uid" not in data["metadata"]


@pytest.mark.parametrize("kind", kinds.known(), ids=lambda kind: kind.name)
def test_every_kind_can_be_found_by_name_plural_and_type(kind):
    assert kinds.by_name(kind.api_version, kind.name) is kind
    assert kinds.by_plural(kind.api_version, kind.plural) is kind
    assert kinds.for_type(kind.type) in (kind, catalog.EVENT)


def test_paths_are_those_of_kubernetes():
    assert kinds.SERVICE.path() == "/api/v1/services"
    assert kinds.SERVICE.path("demo") == "/api/v1/namespaces/demo/services"
    assert kinds.NODE.path("", "n1", "status") == "/api/v1/nodes/n1/status"
    assert (
        catalog.DEPLOYMENT.path("demo", "web") == "/apis/apps/v1/namespaces/demo/deployments/web"
    )


def test_an_unknown_kind_is_told_with_the_known_ones():
    with pytest.raises(InvalidObject, match=r"unknown kind 'Servise' .*Service \(v1\)"):
        kinds.by_name("v1", "Servise")
    with pytest.raises(InvalidObject, match="write apiVersion: apps/v1"):
        kinds.by_name("extensions/v1beta1", "Deployment")

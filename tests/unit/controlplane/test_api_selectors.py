"""Label and field selectors: which objects they choose, and what is no selector."""

import pytest

from kproxy import errors
from kproxy.api import meta
from kproxy.controlplane import selectors


def chosen(labels="", fields="", resource="pods", **obj):
    made = {"metadata": {"name": "a", "namespace": "demo", **obj.pop("metadata", {})}, **obj}
    found = selectors.parse(labels, fields, resource)
    return found is None or found(made)


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        ("", {}, True),
        ("a=1", {"a": "1"}, True),
        ("a==1", {"a": "2"}, False),
        ("a!=1", {}, True),
        ("a!=1", {"a": "1"}, False),
        ("a in (1,2)", {"a": "2"}, True),
        ("a in (1, 2)", {"a": "3"}, False),
        ("a in (1,2)", {}, False),
        ("a notin (1,2)", {}, True),
        ("a notin (1,2),b", {"a": "3", "b": ""}, True),
        ("a notin (1,2),b", {"a": "1", "b": ""}, False),
        ("a", {"a": ""}, True),
        ("!a", {"a": ""}, False),
        ("! a", {}, True),
        ("x.io/y-z in (a.b)", {"x.io/y-z": "a.b"}, True),
        ("a=", {"a": ""}, True),
        ("a>1", {"a": "2"}, True),
        ("a > 1", {"a": "1"}, False),
        ("a<10,b", {"a": "9", "b": ""}, True),
        ("a<10", {"a": "many"}, False),
        ("a<10", {}, False),
        ("a>-5", {"a": "-4"}, True),
    ],
)
def test_label_selectors(selector, labels, expected):
    assert chosen(selector, metadata={"labels": labels}) is expected


@pytest.mark.parametrize(
    "selector", ["a in b", "a in (b", "(a)", "a b", "!", "=x", "a=b c", "a>b", "a>", ">1", "a>1.5"]
)
def test_what_is_no_label_selector(selector):
    with pytest.raises(errors.ApiError) as caught:
        selectors.parse(selector, "", "pods")
    assert caught.value.code == 400


POD = {
    "spec": {"nodeName": "n1", "hostNetwork": True},
    "status": {"phase": "Running", "podIP": "10.1.0.2"},
}
EVENT = {
    "involvedObject": {"kind": "Pod", "name": "web", "namespace": "demo"},
    "type": "Warning",
    "reason": "BackOff",
    "source": {"component": "kubelet"},
}


@pytest.mark.parametrize(
    ("fields", "resource", "obj", "expected"),
    [
        ("metadata.name=a", "pods", POD, True),
        ("metadata.name!=a", "pods", POD, False),
        ("metadata.namespace=demo", "services", {}, True),
        ("spec.nodeName=n1,status.phase!=Failed,status.phase!=Succeeded", "pods", POD, True),
        ("spec.nodeName=", "pods", POD, False),
        ("status.podIP=10.1.0.2", "pods", POD, True),
        ("spec.hostNetwork=true", "pods", POD, True),
        ("spec.hostNetwork=false", "pods", {"spec": {}}, True),
        ("spec.unschedulable=false", "nodes", {"spec": {}}, True),
        ("involvedObject.name=web,involvedObject.kind=Pod,type=Warning", "events", EVENT, True),
        ("regarding.name=web,reason=BackOff", "events", EVENT, True),
        ("source=kubelet", "events", EVENT, True),
        ("type!=Warning", "events", EVENT, False),
        ("type=Opaque", "secrets", {"type": "Opaque"}, True),
    ],
)
def test_field_selectors(fields, resource, obj, expected):
    assert chosen("", fields, resource, **obj) is expected


@pytest.mark.parametrize("fields", ["spec.x=1", "metadata.name", "status.phase=Running"])
def test_fields_that_cannot_be_selected_by(fields):
    with pytest.raises(errors.ApiError) as caught:
        selectors.parse("", fields, "services")
    assert "not supported" in caught.value.message


def test_fields_that_a_selector_demands():
    fields = "spec.nodeName=n1, status.phase!=Failed,metadata.name==a"
    assert selectors.equal_fields(fields) == {"spec.nodeName": "n1", "metadata.name": "a"}


def test_selectors_of_objects():
    def selects(labels, **parts):
        return meta.selects(meta.LabelSelector(**parts), labels)

    rule = [{"key": "tier", "operator": "In", "values": ["front"]}]
    assert selects(
        {"app": "x", "tier": "front"}, match_labels={"app": "x"}, match_expressions=rule
    )
    assert not selects({"app": "x"}, match_labels={"app": "x"}, match_expressions=rule)
    assert selects({}, match_expressions=[{"key": "a", "operator": "DoesNotExist"}])
    assert selects({"a": ""}, match_expressions=[{"key": "a", "operator": "Exists"}])
    assert not selects({"a": ""}, match_expressions=[{"key": "a", "operator": "Like"}])
    assert selects({"anything": "x"})
    assert not meta.selects(None, {"a": "b"})

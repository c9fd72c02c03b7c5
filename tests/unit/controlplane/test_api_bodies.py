"""Bodies of requests: JSON, YAML, protobuf; unknown and duplicate fields in them."""

import pytest

from kproxy import errors
from kproxy.api import catalog, kinds
from kproxy.controlplane import bodies, strict
from kproxy.controlplane.protobuf import objects, wire
from kproxy.controlplane.requests import Validation

PROTOBUF = objects.CONTENT_TYPE


def envelope(version, kind, raw):
    meta = wire.text(1, version) + wire.text(2, kind)
    return objects.MAGIC + wire.message(1, meta) + wire.message(2, raw)


def number(field, value):
    return wire.varint(field << 3) + wire.varint(value)


def test_a_service_in_protobuf():
    port = wire.text(1, "http") + wire.text(2, "TCP") + number(3, 80)
    port += wire.message(4, number(1, 0) + number(2, 8080)) + number(5, 0)
    named = number(3, 81) + wire.message(4, number(1, 1) + wire.text(3, "web"))
    selector = wire.text(1, "app") + wire.text(2, "web")
    spec = wire.message(1, port) + wire.message(1, named) + wire.message(2, selector)
    spec += wire.text(4, "ClusterIP") + wire.text(7, "")
    meta = wire.text(1, "web") + wire.text(3, "demo") + wire.message(8, b"")
    raw = wire.message(1, meta) + wire.message(2, spec) + wire.message(3, wire.message(1, b""))
    assert bodies.parse(envelope("v1", "Service", raw), PROTOBUF) == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "demo"},
        "spec": {
            "ports": [
                {"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080},
                {"port": 81, "targetPort": "web"},
            ],
            "selector": {"app": "web"},
            "type": "ClusterIP",
        },
    }


def test_zero_is_kept_where_it_means_something():
    raw = number(1, 0) + wire.message(2, wire.text(1, "uid-1"))
    found = bodies.parse(envelope("v1", "DeleteOptions", raw), PROTOBUF)
    assert found["gracePeriodSeconds"] == 0
    assert found["preconditions"] == {"uid": "uid-1"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"nonsense", 400),
        (objects.MAGIC + b"\xff\xff", 400),
        (envelope("v1", "Gadget", b""), 415),
        (envelope("v1", "Namespace", wire.text(9, "x")), 415),
        (envelope("v1", "Namespace", wire.message(1, wire.text(1, "x"))[:-1]), 400),
        (envelope("v1", "Namespace", b"\x0b"), 400),
        (envelope("v1", "ConfigMap", number(2, 1)), 400),
    ],
)
def test_protobuf_that_cannot_be_read_is_refused_not_guessed(body, code):
    with pytest.raises(errors.ApiError) as caught:
        bodies.parse(body, PROTOBUF)
    assert caught.value.code == code


def test_every_type_in_the_tables_is_known():
    simple = {"str", "int", "int!", "bool", "bool!", "bytes", "Time", "IntOrString"}
    used = {
        field.type.lstrip("[]{}")
        for table in objects.MESSAGES.values()
        for field in table.values()
    }
    assert used - simple <= objects.MESSAGES.keys()


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"a: [", "application/yaml", 400),
        (b"a: 1\na: 2", "application/yaml", 400),
        (b"a: 1\n---\nb: 2", "application/yaml", 400),
        (b"{}", "text/plain", 415),
        (b"{}", "application/cbor", 415),
    ],
)
def test_bodies_that_are_none(body, content_type, code):
    with pytest.raises(errors.ApiError) as caught:
        bodies.parse(body, content_type)
    assert caught.value.code == code


def test_yaml():
    assert bodies.parse(b"a: {b: 1}\n", "application/apply-patch+yaml") == {"a": {"b": 1}}


POD = {
    "metadata": {"name": "a", "labells": {}},
    "spec": {
        "containers": [{"name": "c", "imagePullPolicy": "Always", "port": 1}],
        "nodeSelector": {"anything": "x"},
        "affinity": {"free": {"form": 1}},
    },
}


def test_unknown_fields_are_told_with_their_paths():
    told = strict.check(catalog.POD, POD, b"{}", "application/json", Validation.WARN)
    assert told == ('unknown field "metadata.labells"', 'unknown field "spec.containers[0].port"')
    assert strict.check(catalog.POD, POD, b"{}", "application/json", Validation.IGNORE) == ()
    with pytest.raises(errors.ApiError) as caught:
        strict.check(catalog.POD, POD, b"{}", "application/json", Validation.STRICT)
    assert caught.value.code == 400
    assert 'strict decoding error: unknown field "metadata.labells"' in caught.value.message


def test_duplicate_fields_are_told():
    body = b'{"metadata": {"name": "a", "name": "b"}}'
    told = strict.check(kinds.NAMESPACE, {}, body, "application/json", Validation.WARN)
    assert told == ('duplicate field "name"',)

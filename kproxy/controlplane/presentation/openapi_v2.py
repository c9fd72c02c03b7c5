"""OpenAPI, version 2, in the form in which kubectl up to 1.26 reads it: protobuf of gnostic.

Field numbers: gnostic, ``openapiv2/OpenAPIv2.proto``. Only what kubectl looks at is written:
paths with their parameters and extensions, and definitions.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec

from kproxy.api import kinds

from ..protobuf.wire import message, text
from . import openapi, resources, schemas

Object = dict[str, Any]

ROOT = "#/definitions/"
CONTENT_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""kubectl parses this; the name in its own Accept header (with an @) it does not."""

_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "patch": 8}


@cache
def json_document() -> bytes:
    """Return the document as JSON, for people and tools."""
    return msgspec.json.encode(
        {
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": openapi.VERSION},
            "paths": {
                path: {method: _plain_operation(kind, operation) for method, operation in item}
                for kind, path, item in _paths()
            },
            "definitions": _definitions(),
        }
    )


def _plain_operation(kind: kinds.Kind, operation: Object) -> Object:
    plain = {
        "parameters": [
            {"name": one["name"], "in": "query", "type": "string"}
            for one in operation["parameters"]
        ],
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-group-version-kind": schemas.group_version_kind(kind),
    }
    return {**plain, "x-kubernetes-action": operation["x-kubernetes-action"]}


def _paths() -> Iterable[tuple[kinds.Kind, str, Iterable[tuple[str, Object]]]]:
    for version in resources.versions():
        for kind in resources.of_version(version):
            for path, item in openapi.operations(kind).items():
                yield kind, path, item.items()


def _definitions() -> dict[str, Object]:
    found: dict[str, Object] = {}
    for version in resources.versions():
        for name, schema in schemas.all_of(version, ROOT):
            found.setdefault(name, schema)
    return found


@cache
def document() -> bytes:
    """Return the document as gnostic's protobuf."""
    info = text(1, "Kubernetes") + text(2, openapi.VERSION)
    paths = b"".join(
        message(2, text(1, path) + message(2, _path_item(kind, item)))
        for kind, path, item in _paths()
    )
    definitions = b"".join(
        message(1, text(1, name) + message(2, _schema(schema)))
        for name, schema in _definitions().items()
    )
    return text(1, "2.0") + message(2, info) + message(8, paths) + message(9, definitions)


def _path_item(kind: kinds.Kind, item: Iterable[tuple[str, Object]]) -> bytes:
    return b"".join(
        message(_METHODS[method], _operation(kind, operation)) for method, operation in item
    )


def _operation(kind: kinds.Kind, operation: Object) -> bytes:
    parameters = b"".join(
        message(8, message(1, _query_parameter(one["name"]))) for one in operation["parameters"]
    )
    responses = message(9, message(1, text(1, "200") + message(2, message(1, text(1, "OK")))))
    action = operation["x-kubernetes-action"]
    gvk = schemas.group_version_kind(kind)
    return (
        parameters
        + responses
        + _extension(13, "x-kubernetes-action", action)
        + _extension(13, "x-kubernetes-group-version-kind", gvk)
    )


def _query_parameter(name: str) -> bytes:
    """Return a Parameter that is a query parameter of type string."""
    in_query = text(2, "query") + text(4, name) + text(6, "string")
    return message(2, message(3, in_query))


def _extension(number: int, name: str, value: Any) -> bytes:
    # An Any holds its value as YAML text, of which JSON is a part.
    return message(
        number, text(1, name) + message(2, text(2, msgspec.json.encode(value).decode()))
    )


def _schema(schema: Object) -> bytes:
    found = b""
    if "$ref" in schema:
        found += text(1, schema["$ref"])
    if "format" in schema:
        found += text(2, schema["format"])
    if schema.get("description"):
        found += text(4, schema["description"])
    found += b"".join(text(19, name) for name in schema.get("required", ()))
    if isinstance(inner := schema.get("additionalProperties"), dict):
        found += message(21, message(1, _schema(inner)))
    if "type" in schema:
        found += message(22, text(1, schema["type"]))
    if "items" in schema:
        found += message(23, message(1, _schema(schema["items"])))
    if properties := schema.get("properties"):
        pairs = (
            message(1, text(1, name) + message(2, _schema(inner)))
            for name, inner in properties.items()
        )
        found += message(25, b"".join(pairs))
    for name, value in schema.items():
        if name.startswith("x-"):
            found += _extension(31, name, value)
    return found

"""Bodies of requests to plain values: JSON, YAML, protobuf where kubectl insists on it. Pure."""

from typing import Any

import msgspec

from kproxy import errors
from kproxy.api import yamltext

from .protobuf import objects
from .requests import JSON

Object = dict[str, Any]

YAML_TYPES = ("application/yaml", "application/apply-patch+yaml")
JSON_TYPES = (
    JSON,
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/strategic-merge-patch+json",
)

_decode = msgspec.json.Decoder().decode


def parse(body: bytes, content_type: str = JSON) -> Any:
    """Decode a body. Raises ApiError: 400 for one that is broken, 415 for another type."""
    if content_type in JSON_TYPES:
        return _json(body)
    if content_type in YAML_TYPES:
        return _yaml(body)
    if content_type == objects.CONTENT_TYPE:
        return objects.decode(body)
    message = (
        f"the body of the request was in an unknown format ({content_type}) - accepted media "
        f"types include: {JSON}, application/yaml, {objects.CONTENT_TYPE}"
    )
    raise errors.ApiError(415, "UnsupportedMediaType", message)


def parse_object(body: bytes, content_type: str = JSON) -> Object:
    """Decode a body that must be one object; an empty one is an empty object."""
    value = parse(body, content_type) if body else {}
    if not isinstance(value, dict):
        raise errors.ApiError(400, "BadRequest", "the body must be one object")
    return value


def part(obj: Object, name: str) -> Object:
    """Return a field that is an object; absent it is empty. Raises ApiError 400 for another."""
    value = obj.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise errors.ApiError(400, "BadRequest", f"{name}: must be an object")
    return value


def texts(obj: Object, name: str) -> tuple[str, ...]:
    """Return a field that is a list of texts; absent it is empty. Raises ApiError 400."""
    value = obj.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise errors.ApiError(400, "BadRequest", f"{name}: must be a list of texts")
    return tuple(value)


def _json(body: bytes) -> Any:
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise errors.ApiError(400, "BadRequest", f"the body is not JSON: {error}") from None


def _yaml(body: bytes) -> Any:
    try:
        return yamltext.parse_one(body.decode(), "the body")
    except errors.InvalidObject as error:
        raise errors.ApiError(400, "BadRequest", str(error)) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise errors.ApiError(400, "BadRequest", f"the body is not YAML: {error}") from None

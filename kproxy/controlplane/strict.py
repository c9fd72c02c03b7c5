"""Fields that Kubernetes does not know, or that a client has written twice. Pure."""

import json
from collections.abc import Iterator
from typing import Any

from kproxy import errors
from kproxy.api import kinds, shapes
from kproxy.api.shapes import Shape

from .requests import JSON, Validation

MOST = 100
"""So many are told at most."""


def check(
    kind: kinds.Kind, obj: Any, body: bytes, content_type: str, how: Validation
) -> tuple[str, ...]:
    """Return warnings about an object; ``body`` is the text that it comes from.

    Raises ApiError 400 where fields are to be checked strictly and something is wrong.
    """
    if how is Validation.IGNORE:
        return ()
    found = _duplicates(body) if content_type == JSON else []
    found += [f'unknown field "{path}"' for path in unknown(obj, shapes.of(kind))]
    if found and how is Validation.STRICT:
        version = kind.api_version.rpartition("/")[2]
        raise errors.ApiError(
            400,
            "BadRequest",
            f'{kind.name} in version "{version}" cannot be handled as a {kind.name}: '
            f"strict decoding error: {', '.join(found[:MOST])}",
        )
    return tuple(found[:MOST])


def unknown(value: Any, shape: Shape, path: str = "") -> Iterator[str]:
    """Yield the paths of the fields that a shape does not have."""
    if isinstance(value, dict) and shape.type == "object":
        for name, inner in value.items():
            place = f"{path}.{name}" if path else name
            if name in shape.fields:
                yield from unknown(inner, shape.fields[name], place)
            else:
                yield place
    elif isinstance(value, dict) and shape.type == "map" and shape.item is not None:
        for name, inner in value.items():
            yield from unknown(inner, shape.item, f"{path}[{name}]")
    elif isinstance(value, list) and shape.type == "array" and shape.item is not None:
        for index, inner in enumerate(value):
            yield from unknown(inner, shape.item, f"{path}[{index}]")


def _duplicates(body: bytes) -> list[str]:
    found = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for name, value in pairs:
            if name in seen:
                found.append(f'duplicate field "{name}"')
            seen[name] = value
        return seen

    json.loads(body, object_pairs_hook=note)
    return found

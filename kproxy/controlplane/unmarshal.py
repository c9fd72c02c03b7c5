"""Values whose JSON type is not that of their field, in the words of Kubernetes' decoder. Pure.

What a client sends whole is refused by Kubernetes with 400, before anything else is looked at;
what a patch makes of an object is invalid (422).
"""

import json
from collections.abc import Mapping, Set
from typing import Any, Optional

from kproxy import errors
from kproxy.api import kinds, shapes
from kproxy.api.shapes import Shape

_WIDE = frozenset(
    {
        "activeDeadlineSeconds",
        "deletionGracePeriodSeconds",
        "generation",
        "observedGeneration",
        "revision",
        "seconds",
        "terminationGracePeriodSeconds",
        "tolerationSeconds",
    }
)
"""Fields of 64 bits."""
_NAMES = {"string": "string", "boolean": "bool", "number": "float64"}
Wrong = tuple[str, str]
"""Path of a field, and what is wrong with it."""
_Place = tuple[Optional["_Place"], str]
"""Where a field is: the place of what it is in, and its own name."""


def check(kind: kinds.Kind, obj: Any) -> None:
    """Refuse an object that a client has sent. Raises ApiError 400."""
    found = wrong(obj, shapes.of(kind))
    if found:
        version = kind.api_version.rpartition("/")[2]
        said = f'{kind.name} in version "{version}" cannot be handled as a {kind.name}: json: '
        raise errors.ApiError(400, "BadRequest", f"{said}{found[0][1]}")


def wrong(obj: Any, shape: Shape) -> list[Wrong]:
    """Return what is wrong with an object; null is right everywhere."""
    found: list[Wrong] = []
    _look(obj, shape, "", None, found)
    return found


def _look(value: Any, shape: Shape, owner: str, place: _Place | None, found: list[Wrong]) -> None:
    """Find what is wrong at a place and below; ``owner``: the type that has the field."""
    fits = _fits(value, shape.type)
    if not fits or not _has_room(value, shape, place):
        path = _written(place)
        where = f"struct field {owner}.{path}" if path else "value"
        wanted = _go(shape, path)
        said = f"number {json.dumps(value)}" if fits else _said(value)
        found.append((path, f"cannot unmarshal {said} into Go {where} of type {wanted}"))
    elif shape.type == "object" and value:
        for name, inner in value.items():
            _look(inner, shapes.below(shape, name), shape.name, (place, f".{name}"), found)
    elif shape.type == "map" and value:
        item = shape.item or shapes.ANY
        for name, inner in value.items():
            _look(inner, item, owner, (place, f"[{name}]"), found)
    elif shape.type == "array" and value:
        item = shape.item or shapes.ANY
        for index, inner in enumerate(value):
            _look(inner, item, owner, (place, f"[{index}]"), found)


def _written(place: _Place | None) -> str:
    """Return a place as a path."""
    parts = []
    while place is not None:
        place, part = place
        parts.append(part)
    return "".join(reversed(parts)).removeprefix(".")


_FITTING: Mapping[type, Set[str]] = {
    dict: {"object", "map", "mapping"},
    list: {"array"},
    str: {"string", "int-or-string"},
    bool: {"boolean"},
    int: {"integer", "int-or-string", "number"},
    float: {"number"},
}


def _fits(value: Any, wanted: str) -> bool:
    if value is None or wanted == "any" or wanted in _FITTING.get(type(value), ()):
        return True
    return wanted == "integer" and isinstance(value, float) and value.is_integer()


def _has_room(value: Any, shape: Shape, place: _Place | None) -> bool:
    """Return whether a value is no number, or one that has room in its field."""
    if shape.type not in ("integer", "int-or-string") or not isinstance(value, int | float):
        return True
    bits = 63 if _go(shape, place[1] if place else "") == "int64" else 31
    return -(1 << bits) <= value < 1 << bits


def _said(value: Any) -> str:
    """Return what Kubernetes calls a value."""
    match value:
        case bool():
            return "bool"
        case str():
            return "string"
        case float():
            return f"number {json.dumps(value)}"
        case int():
            return "number"
        case list():
            return "array"
    return "object"


def _go(shape: Shape, path: str) -> str:
    """Return the type of a place, as Kubernetes' source calls it."""
    match shape.type:
        case "integer":
            return "int64" if path.rpartition(".")[2] in _WIDE else "int32"
        case "int-or-string":
            return "intstr.IntOrString"
        case "array":
            return f"[]{_go(shape.item or shapes.ANY, '')}"
        case "map":
            return f"map[string]{_go(shape.item or shapes.ANY, '')}"
        case "object":
            return f"v1.{shape.name}"
        case "mapping":
            return "object"
    return _NAMES.get(shape.type, "object")

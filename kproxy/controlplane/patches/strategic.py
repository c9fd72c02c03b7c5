"""Strategic merge patch: lists are merged by the keys of their items, as their types say. Pure.

What the directives mean (Kubernetes, "Strategic Merge Patch"): ``$patch`` replaces or deletes a
map or an item; ``$retainKeys`` names the only keys that a map keeps;
``$deleteFromPrimitiveList/F`` takes words out of the list F; ``$setElementOrder/F`` orders the
list F when it has been merged.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from kproxy import errors
from kproxy.api import shapes
from kproxy.api.shapes import Shape

Object = dict[str, Any]

_DELETE = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"


def merge(old: Object, patch: Any, shape: Shape) -> Object:
    """Return what a patch makes of an object. Raises ApiError 400 for a patch that is none."""
    if not isinstance(patch, dict):
        raise _bad("a strategic merge patch of an object is an object")
    directive = patch.get("$patch")
    if directive == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise _bad(f"$patch: {directive!r}: known are replace, merge and delete")
    result = _retained(old, patch)
    for name, value in patch.items():
        if not name.startswith("$"):
            _set(result, name, value, shapes.below(shape, name))
    for name, words in patch.items():
        if name.startswith(_DELETE):
            field = name.removeprefix(_DELETE)
            gone = _list(name, words)
            result[field] = [word for word in result.get(field) or [] if word not in gone]
    for name, order in patch.items():
        if name.startswith(_ORDER):
            field = name.removeprefix(_ORDER)
            if isinstance(result.get(field), list):
                inner = shapes.below(shape, field)
                result[field] = _ordered(
                    result[field], old.get(field) or [], _list(name, order), _key_of(inner)
                )
    return result


def _retained(old: Object, patch: Object) -> Object:
    if "$retainKeys" not in patch:
        return dict(old)
    keys = _list("$retainKeys", patch["$retainKeys"])
    for name in patch:
        if not name.startswith("$") and name not in keys:
            raise _bad(f"$retainKeys does not name {name!r}, which the patch sets")
    return {name: value for name, value in old.items() if name in keys}


def _set(result: Object, name: str, value: Any, shape: Shape) -> None:
    before = result.get(name)
    if value is None:
        result.pop(name, None)
    elif isinstance(value, dict):
        if value.get("$patch") == "delete":
            result.pop(name, None)
        else:
            result[name] = merge(before if isinstance(before, dict) else {}, value, shape)
    elif isinstance(value, list) and shape.is_set:
        kept = list(before or [])
        result[name] = kept + [word for word in value if word not in kept]
    elif isinstance(value, list) and shape.merge_key:
        result[name] = _merge_list(before or [], value, shape)
    else:
        result[name] = value


def _merge_list(old: Sequence[Any], patch: Sequence[Any], shape: Shape) -> list[Any]:
    key, item_shape = shape.merge_key, shape.item or shapes.ANY
    replaces = any(isinstance(item, dict) and item == {"$patch": "replace"} for item in patch)
    if replaces:
        return [item for item in patch if item != {"$patch": "replace"}]
    result = list(old)
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise _bad(f"map: {item} does not contain declared merge key: {key}")
        places = [place for place, have in enumerate(result) if have.get(key) == item[key]]
        if item.get("$patch") == "delete":
            result = [have for have in result if have.get(key) != item[key]]
        elif places:
            result[places[0]] = merge(result[places[0]], item, item_shape)
        else:
            result.append(merge({}, item, item_shape))
    return result


def _key_of(shape: Shape) -> Callable[[Any], Any]:
    """Return what tells items apart: by their key, or by all of them; it can be hashed."""

    def key(item: Any) -> Any:
        if shape.merge_key and isinstance(item, dict):
            item = item.get(shape.merge_key)
        return msgspec.json.encode(item) if isinstance(item, dict | list) else item

    return key


def _ordered(
    items: Sequence[Any], before: Sequence[Any], order: Sequence[Any], key: Callable[[Any], Any]
) -> list[Any]:
    """Return items by an order that may not name all of them.

    What it does not name keeps its place relative to what was around it before.
    """
    wanted = {key(item): place for place, item in enumerate(order)}
    earlier = {key(item): place for place, item in enumerate(before)}
    named = sorted((i for i in items if key(i) in wanted), key=lambda item: wanted[key(item)])
    others = [item for item in items if key(item) not in wanted]
    result: list[Any] = []
    while named and others:
        if _comes_first(key(others[0]), key(named[0]), earlier):
            result.append(others.pop(0))
        else:
            result.append(named.pop(0))
    return result + named + others


def _comes_first(other: Any, named: Any, earlier: Mapping[Any, int]) -> bool:
    if other not in earlier or named not in earlier:
        return False
    return earlier[other] < earlier[named]


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _bad(f"{name} must be a list")
    return value


def _bad(message: str) -> errors.ApiError:
    return errors.ApiError(400, "BadRequest", message)

"""Sets of fields, as ``metadata.managedFields`` writes them (FieldsV1). Pure.

A path is a tuple: ``f:NAME`` for a field, ``k:{JSON of its keys}`` for an item of a list with
keys, ``v:JSON`` for a word of a set. A set of paths holds the leaves: values, lists without keys,
empty maps, and the items of lists themselves.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from kproxy.api import shapes
from kproxy.api.shapes import Shape

Path = tuple[str, ...]
Object = dict[str, Any]

MEMBER = object()
"""The value of an item of a list: that it is there."""

_DEFAULT_KEYS = {"protocol": "TCP"}
_METADATA = ("labels", "annotations", "finalizers", "ownerReferences")


def leaves(obj: Object, shape: Shape) -> dict[Path, Any]:
    """Return the leaves of an object that somebody can manage, with their values.

    Identity, what the server sets, and the status are nobody's.
    """
    meta = obj.get("metadata") or {}
    kept = {name: meta[name] for name in _METADATA if name in meta}
    rest = {
        name: value
        for name, value in obj.items()
        if name not in ("apiVersion", "kind", "metadata", "status")
    }
    found = dict(_leaves(rest, shape, ()))
    if kept:
        inner = shapes.below(shape, "metadata")
        found.update(_leaves(kept, inner, ("f:metadata",)))
    found.pop((), None)
    return found


def _leaves(value: Any, shape: Shape, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, shapes.below(shape, name), (*path, f"f:{name}"))
    elif isinstance(value, list) and shape.list_keys:
        for item in value:
            place = (*path, item_key(item, shape))
            yield place, MEMBER
            yield from _leaves(item, shape.item or shapes.ANY, place)
    elif isinstance(value, list) and shape.is_set:
        for word in value:
            yield (*path, "v:" + _json(word)), MEMBER
    else:
        yield path, value


def item_key(item: Any, shape: Shape) -> str:
    """Return what a path calls an item of a list with keys."""
    found = {}
    for name in sorted(shape.list_keys):
        value = item.get(name, _DEFAULT_KEYS.get(name)) if isinstance(item, dict) else None
        if value is not None:
            found[name] = value
    return "k:" + _json(found)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def encode(paths: set[Path]) -> Object:
    """Return a set as FieldsV1."""
    tree: Object = {}
    for path in sorted(paths):
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        if path[-1].startswith(("k:", "v:")):
            node["."] = {}
    for path in paths:
        _trim(tree, path)
    return tree


def _trim(tree: Object, path: Path) -> None:
    """Write an item with nothing below it as ``{}``, as Kubernetes does."""
    node = tree
    for part in path[:-1]:
        node = node[part]
    if node[path[-1]] == {".": {}}:
        node[path[-1]] = {}


def decode(tree: Any, prefix: Path = ()) -> set[Path]:
    """Return the set that FieldsV1 stands for; what is no FieldsV1 is nothing."""
    found: set[Path] = set()
    if not isinstance(tree, dict):
        return found
    for part, below in tree.items():
        if part == ".":
            found.add(prefix)
        elif not below:
            found.add((*prefix, part))
        else:
            found |= decode(below, (*prefix, part))
    found.discard(())
    return found


def told(path: Path) -> str:
    """Return a path as messages tell it: ``.spec.template.spec.containers[name="web"].image``."""
    parts = []
    for part in path:
        mark, rest = part[:2], part[2:]
        if mark == "k:":
            keys = msgspec.json.decode(rest)
            parts.append("[" + ",".join(f"{name}={_json(keys[name])}" for name in keys) + "]")
        elif mark == "v:":
            parts.append(f"[={rest}]")
        else:
            parts.append(f".{rest}")
    return "".join(parts)


def remove(obj: Object, path: Path, shape: Shape) -> None:
    """Take a leaf out of an object (which is changed), and the maps that are thereby empty."""
    part, rest = path[0], path[1:]
    name = part[2:]
    inner = obj.get(name)
    if inner is None:
        return
    below = shapes.below(shape, name)
    if not rest:
        del obj[name]
        return
    if rest[0].startswith("f:") and isinstance(inner, dict):
        remove(inner, rest, below)
    elif isinstance(inner, list):
        _remove_item(inner, rest, below)
    if not inner:
        del obj[name]


def _remove_item(items: list[Any], path: Path, shape: Shape) -> None:
    for item in list(items):
        key = "v:" + _json(item) if shape.is_set else item_key(item, shape)
        if key != path[0]:
            continue
        if len(path) == 1:
            items.remove(item)
        else:
            remove(item, path[1:], shape.item or shapes.ANY)

"""Who manages which field of an object: ``metadata.managedFields``, and server-side apply. Pure.

Managers are noted for writes that name one (``fieldManager``, as kubectl does), and for objects
that have some already: what only controllers write stays small. A status is nobody's.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from kproxy import errors
from kproxy.api import shapes
from kproxy.api.shapes import Shape

from . import fieldsets
from .fieldsets import MEMBER, Path

Object = dict[str, Any]

EARLIER = "before-first-apply"
"""Who manages what was there before anybody's fields were noted."""


class ApplyConflict(errors.Conflict):
    """An apply would change what others manage; ``causes`` are (message, field) of each."""

    def __init__(self, causes: list[tuple[str, str]]) -> None:
        count = f"{len(causes)} conflict{'s' if len(causes) > 1 else ''}"
        told = "; ".join(f"{message}: {field}" for message, field in causes)
        super().__init__(409, "Conflict", f"Apply failed with {count}: {told}")
        self.causes = causes


@dataclass(frozen=True, slots=True, kw_only=True)
class Manager:
    """The fields of one manager, by one kind of operation (Apply or Update)."""

    name: str
    operation: str
    version: str
    time: str
    paths: frozenset[Path]
    subresource: str = ""

    @property
    def identity(self) -> tuple[str, str, str]:
        """Return what no two entries share."""
        return self.name, self.operation, self.subresource


def read(obj: Object) -> list[Manager]:
    """Return the managers of an object."""
    found = []
    for entry in (obj.get("metadata") or {}).get("managedFields") or ():
        if isinstance(entry, dict) and isinstance(entry.get("manager"), str):
            found.append(
                Manager(
                    name=entry["manager"],
                    operation=str(entry.get("operation", "Update")),
                    version=str(entry.get("apiVersion", "")),
                    time=str(entry.get("time", "")),
                    paths=frozenset(fieldsets.decode(entry.get("fieldsV1"))),
                    subresource=str(entry.get("subresource", "")),
                )
            )
    return found


def write(obj: Object, managers: Iterable[Manager]) -> Object:
    """Return an object with these managers; those that manage nothing are left out."""
    entries = [_entry(manager) for manager in managers if manager.paths]
    meta = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    if entries:
        meta["managedFields"] = entries
    return {**obj, "metadata": meta}


def _entry(manager: Manager) -> Object:
    entry = {
        "manager": manager.name,
        "operation": manager.operation,
        "apiVersion": manager.version,
        "time": manager.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": fieldsets.encode(set(manager.paths)),
    }
    if manager.subresource:
        entry["subresource"] = manager.subresource
    return entry


def updated(new: Object, old: Object | None, shape: Shape, by: Manager) -> Object:
    """Return an object in which ``by`` (whose paths are ignored) manages what it has changed.

    ``old``: what was there before, None if nothing. A write that brings ``managedFields`` of its
    own is believed: this is how clients hand fields over.
    """
    before = fieldsets.leaves(old, shape) if old is not None else {}
    after = fieldsets.leaves(new, shape)
    changed = {
        path for path, value in after.items() if path not in before or before[path] != value
    }
    lost = changed | (before.keys() - after.keys())
    managers: list[Manager] = []
    if old is not None:
        managers = read(new if "managedFields" in new["metadata"] else old)
    kept = [replace(one, paths=one.paths - lost) for one in managers]
    if changed and by.name:
        kept = _owning(kept, replace(by, paths=frozenset(changed)))
    return write(new, _fresh(kept, managers))


def _owning(managers: list[Manager], by: Manager) -> list[Manager]:
    """Return managers of whom one manages more."""
    others = [one for one in managers if one.identity != by.identity]
    own = [one.paths for one in managers if one.identity == by.identity]
    return [*others, replace(by, paths=by.paths.union(*own))]


def _fresh(managers: list[Manager], before: list[Manager]) -> list[Manager]:
    """Return managers with the time of the last change of their fields."""
    known = {one.identity: one for one in before}
    return [
        known[one.identity]
        if one.identity in known and known[one.identity].paths == one.paths
        else one
        for one in managers
    ]


def apply(old: Object | None, config: Object, shape: Shape, by: Manager, *, force: bool) -> Object:
    """Return what a server-side apply makes of an object (None: of nothing).

    Raises :class:`ApplyConflict` for fields that others manage with other values, unless forced.
    """
    wanted = fieldsets.leaves(config, shape)
    if old is None:
        return write(config, [replace(by, paths=frozenset(wanted))])
    have = fieldsets.leaves(old, shape)
    earlier = replace(by, name=EARLIER, operation="Update", paths=frozenset(have))
    managers = read(old) or [earlier]
    own = next((one for one in managers if one.identity == by.identity), None)
    others = [one for one in managers if one.identity != by.identity]
    changed = {path for path, value in wanted.items() if have.get(path, MEMBER) != value}
    others = _settled(others, changed, force=force)
    result = _merged(copy.deepcopy(old), config, shape)
    held = _with_parents(wanted.keys(), *(one.paths for one in others))
    # An item of a list goes before what is in it, by which it is known.
    for path in sorted((own.paths if own else frozenset()) - wanted.keys(), key=len):
        if path not in held:
            fieldsets.remove(result, _whole(path, held, shape), shape)
    mine = replace(by, paths=frozenset(wanted))
    return write(result, _fresh([*others, mine], managers))


def _with_parents(*sets: Iterable[Path]) -> set[Path]:
    """Return paths together with those of all that they are in."""
    return {path[:end] for paths in sets for path in paths for end in range(1, len(path) + 1)}


def _whole(path: Path, held: set[Path], shape: Shape) -> Path:
    """Return the outermost field around a path, itself included, in which nobody holds anything.

    It goes as a whole, and with it the defaults that nobody wrote: without the rest of a probe its
    period means nothing. So does Kubernetes; keys of maps and items of lists are no such fields.
    """
    for end, part in enumerate(path, start=1):
        around, mark, name = shape, part[:2], part[2:]
        shape = shapes.below(shape, name) if mark == "f:" else shape.item or shapes.ANY
        field = mark == "f:" and name in around.fields and path[:end] != ("f:metadata",)
        if field and path[:end] not in held:
            return path[:end]
    return path


def _settled(others: list[Manager], changed: set[Path], *, force: bool) -> list[Manager]:
    """Return the other managers after a change of fields: it is refused, or takes them."""
    result = []
    causes = []
    for one in others:
        lost = {path for path in one.paths if any(_within(path, part) for part in changed)}
        what = f' with subresource "{one.subresource}"' if one.subresource else ""
        message = f'conflict with "{one.name}"{what} using {one.version}'
        causes += [(message, fieldsets.told(path)) for path in sorted(lost)]
        result.append(replace(one, paths=one.paths - lost))
    if causes and not force:
        raise ApplyConflict(causes)
    return result


def _within(path: Path, other: Path) -> bool:
    return path[: len(other)] == other


def _merged(old: Any, new: Any, shape: Shape) -> Any:
    """Return a value with what a configuration says laid over it."""
    if isinstance(new, dict) and isinstance(old, dict):
        result = dict(old)
        for name, value in new.items():
            if name in result:
                value = _merged(result[name], value, shapes.below(shape, name))
            result[name] = value
        return result
    if isinstance(new, list) and isinstance(old, list):
        if shape.list_keys:
            return _merged_items(old, new, shape)
        if shape.is_set:
            return old + [word for word in new if word not in old]
    return new


def _merged_items(old: list[Any], new: list[Any], shape: Shape) -> list[Any]:
    wanted = {fieldsets.item_key(item, shape): item for item in new}
    result = []
    for item in old:
        over = wanted.pop(fieldsets.item_key(item, shape), None)
        result.append(item if over is None else _merged(item, over, shape.item or shapes.ANY))
    return result + list(wanted.values())

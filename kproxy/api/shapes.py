"""What objects look like: the typed structs, walked once, for all who need more than decoding.

OpenAPI documents, strict validation, strategic merge patches and server-side apply all ask the
same: which fields does Kubernetes know here, and how is a list of them merged?
"""

import ast
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import msgspec
import msgspec.inspect as types

from . import fielddocs, kept, kinds


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One place of an object.

    ``type``: object, array, map, string, integer, number, boolean, int-or-string, mapping
    (of whatever there is in it), or any.
    """

    type: str
    name: str = ""
    """Of an object: its type's name."""
    description: str = ""
    fields: Mapping[str, "Shape"] = field(default_factory=dict)
    """Of an object, by their names in JSON."""
    required: tuple[str, ...] = ()
    item: "Shape | None" = None
    """Of an array or a map: what is in it."""
    merge_key: str = ""
    """Of an array: what a strategic merge patch knows its items by; empty: it is replaced."""
    list_keys: tuple[str, ...] = ()
    """Of an array: what a server-side apply knows its items by."""
    is_set: bool = False
    """Of an array: its items are merged as words of a set."""
    retain_keys: bool = False


ANY = Shape(type="any")
_SCALARS: tuple[tuple[type[types.Type], str], ...] = (
    (types.BoolType, "boolean"),
    (types.IntType, "integer"),
    (types.FloatType, "number"),
    (types.StrType, "string"),
)


@cache
def of(kind: kinds.Kind) -> Shape:
    """Return the shape of a kind's objects, with ``apiVersion`` and ``kind``."""
    shape = _struct(kind.type)
    fields = {
        "apiVersion": Shape(type="string", description=_API_VERSION),
        "kind": Shape(type="string", description=_KIND),
        **shape.fields,
    }
    return replace(shape, name=kind.name, fields=fields, required=())


_API_VERSION = "The group and version of the API that this object is written in."
_KIND = "The kind of this object."


def structs(shape: Shape) -> Iterator[Shape]:
    """Yield every object type below a shape, the innermost first; one may come twice."""
    for inner in shape.fields.values():
        yield from structs(inner)
    if shape.item is not None:
        yield from structs(shape.item)
    if shape.type == "object":
        yield shape


def below(shape: Shape, name: str) -> Shape:
    """Return the shape of a field; ANY if nothing is known of it."""
    if shape.type == "map":
        return shape.item or ANY
    return shape.fields.get(name, ANY)


@cache
def _struct(wanted: type[msgspec.Struct]) -> Shape:
    described = _descriptions(wanted)
    fields: dict[str, Shape] = {}
    required = []
    for found in types.type_info(wanted).fields:  # type: ignore[attr-defined]  # a StructType
        place = f"{wanted.__name__}.{found.encode_name}"
        text = described.get(found.name, "") or fielddocs.FIELDS.get(place, "")
        fields[found.encode_name] = _placed(_convert(found.type), place, text)
        if found.required and found.encode_name != "metadata":
            required.append(found.encode_name)
    for name, shape in _kept(wanted.__name__):
        fields.setdefault(name, shape)
    doc = inspect.cleandoc(wanted.__doc__ or "")
    return Shape(
        type="object",
        name=wanted.__name__,
        description=" ".join(doc.replace("``", "").split()),
        fields=fields,
        required=tuple(required),
    )


def _placed(shape: Shape, place: str, description: str) -> Shape:
    merge_key, list_keys = kept.LISTS.get(place, ("", ()))
    return replace(
        shape,
        description=description or shape.description,
        merge_key=merge_key,
        list_keys=list_keys,
        is_set=place in kept.SETS,
        retain_keys=place in kept.RETAIN_KEYS,
    )


def _convert(found: types.Type) -> Shape:
    if isinstance(found, types.UnionType):
        options = [one for one in found.types if not isinstance(one, types.NoneType)]
        if len(options) == 1:
            return _convert(options[0])
        return Shape(type="int-or-string")
    if isinstance(found, types.StructType):
        return _struct(found.cls)
    if isinstance(found, types.ListType):
        return Shape(type="array", item=_convert(found.item_type))
    if isinstance(found, types.DictType):
        if isinstance(found.value_type, types.AnyType):
            return _word("mapping")
        return Shape(type="map", item=_convert(found.value_type))
    return next((Shape(type=name) for one, name in _SCALARS if isinstance(found, one)), ANY)


def _kept(name: str) -> Iterator[tuple[str, Shape]]:
    """Yield the fields of a type that are kept without being acted on."""
    for word in kept.FIELDS.get(name, "").split():
        key, _, type_name = word.partition(":")
        shape = _word(type_name or "string")
        place = f"{name}.{key}"
        text = fielddocs.FIELDS.get(place, "Kept as it is; nothing here acts on it.")
        yield key, _placed(shape, place, text)


def _word(name: str) -> Shape:
    if name.startswith("["):
        return Shape(type="array", item=_word(name.strip("[]")))
    if name == "map":
        return Shape(type="map", item=Shape(type="string"))
    if name in kept.FIELDS:
        return Shape(type="object", name=name, fields=dict(_kept(name)))
    return Shape(type=name)


def _descriptions(wanted: type[Any]) -> dict[str, str]:
    """Return what is written below each field of a struct, which Python itself forgets."""
    try:
        (tree,) = ast.parse(inspect.getsource(wanted)).body
    except (OSError, SyntaxError):
        return {}
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for before, after in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(before, ast.AnnAssign)
            and isinstance(before.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            found[before.target.id] = " ".join(str(after.value.value).replace("``", "").split())
    return found

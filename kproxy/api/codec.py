"""From JSON and dictionaries to typed objects and back; what cannot be decoded is named.

A restarted proxy decodes every service of the cluster before its first sync, so the normal way is
one call into msgspec for a whole list. Only when that fails are the items decoded one by one, so
that one malformed object costs its own effect and no other's.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from functools import cache
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from kproxy.errors import ApiError, Conflict, Gone, InvalidItem, InvalidObject, KproxyError

from . import kinds
from .kinds import Kind
from .meta import Object, ObjectMeta

T = TypeVar("T", bound=Object)


UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises: also where text is not UTF-8, or is nested too deeply."""


class EventType(StrEnum):
    """What happened to an object, in the words of the watch protocol."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


class Event(NamedTuple, Generic[T]):
    """One line of a watch.

    A BOOKMARK carries no object, only the version reached; DELETED may lack it, if what was
    deleted cannot be decoded. ``key`` is namespace and name.
    """

    type: EventType
    object: T | None
    resource_version: str
    key: tuple[str, str] = ("", "")


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct, Generic[T], frozen=True):
    metadata: _ListMeta = _ListMeta()
    items: list[T] | None = None


class _RawList(msgspec.Struct, frozen=True):
    metadata: _ListMeta = _ListMeta()
    items: list[msgspec.Raw] | None = None


class _RawEvent(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class Status(msgspec.Struct, frozen=True, rename="camel"):
    """``kind: Status``: how the API reports an error."""

    code: int = 0
    reason: str = ""
    message: str = ""


class Page(NamedTuple, Generic[T]):
    """A decoded list, or one page of it; ``token`` is set if there is more."""

    items: list[T]
    resource_version: str
    problems: list[InvalidItem]
    token: str = ""


@cache
def _decoder(wanted: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(wanted, dec_hook=_construct)


def prepare(wanted: type[T]) -> None:
    """Make everything that lists and watches of a type are decoded with.

    To be called before threads decode: msgspec (0.22) looks into a type when the first decoder of
    it is made, and crashes if another thread decodes with what is only half known. Types have
    parts in common, so the threads need not even be of one kind of object.
    """
    for one in (ObjectMeta, wanted, _list_of(wanted), _RawList, _RawEvent, Status, str):
        _decoder(one)


def _list_of(wanted: type[T]) -> Any:
    return _List[wanted]  # type: ignore[valid-type]  # made at run time


def _construct(wanted: type[Any], data: Any) -> Any:
    """Make an object of a type that is not msgspec's own (:class:`kproxy.api.whole.Whole`)."""
    return wanted(data)


def decode_page(raw: bytes, wanted: type[T]) -> Page[T]:
    """Decode a Kubernetes list, or one page of it; bad items are among the problems.

    Raises :class:`KproxyError` if it is not a JSON list at all.
    """
    try:
        whole = _decoder(_list_of(wanted)).decode(raw)
    except UNREADABLE:
        return _decode_one_by_one(raw, wanted)
    return Page(whole.items or [], whole.metadata.resource_version, [], whole.metadata.continue_)


def _decode_one_by_one(raw: bytes, wanted: type[T]) -> Page[T]:
    meta, items = _take_apart(raw)
    good: list[T] = []
    problems: list[InvalidItem] = []
    for item in items:
        try:
            good.append(decode_object(item, wanted))
        except InvalidItem as problem:
            problems.append(problem)
    return Page(good, meta.resource_version, problems, meta.continue_)


def _take_apart(raw: bytes) -> tuple[_ListMeta, Iterable[bytes]]:
    """Return metadata and items of a list, these as text. Raises KproxyError."""
    try:
        outer = _decoder(_RawList).decode(raw)
    except UNREADABLE as error:
        from . import salvage  # rarely needed

        try:
            found = salvage.members(raw)
            items = found.get("items", b"null")
            meta = _decoder(_ListMeta).decode(found.get("metadata", b"{}"))
            return meta, [] if items == b"null" else salvage.elements(items)
        except (salvage.Broken, *UNREADABLE):
            raise _not_json(error) from None
    return outer.metadata, map(bytes, outer.items or ())


def decode_object(raw: bytes, wanted: type[T]) -> T:
    """Decode one object from JSON. Raises :class:`InvalidItem`."""
    try:
        found: T = _decoder(wanted).decode(raw)
    except msgspec.ValidationError as error:
        raise _invalid_item(_identity_in(raw), wanted, explain(error)) from None
    except UNREADABLE as error:
        why = ("", f"not JSON: {error}", "correct it")
        raise _invalid_item(_identity_in(raw), wanted, why) from None
    return found


def _identity_in(raw: bytes) -> tuple[str, str, str]:
    """Return namespace, name and resourceVersion as far as broken JSON tells them."""
    try:
        return _identity(msgspec.json.decode(raw.decode(errors="replace")))
    except UNREADABLE:
        from . import salvage  # rarely needed

        return salvage.identity(raw)


def decode_event(line: bytes, wanted: type[T]) -> Event[T]:
    """Decode one line of a watch.

    Raises :class:`Gone` or :class:`ApiError` for an ERROR event, :class:`InvalidItem` for an
    object that cannot be decoded, and :class:`KproxyError` for a line that is no event.
    """
    word, raw = _parts_of_event(line)
    if word == "ERROR":
        raise api_error(0, raw)
    try:
        kind = EventType(word)
    except ValueError:
        raise KproxyError(f"unknown watch event {word!r}") from None
    if kind is EventType.BOOKMARK:
        return Event(kind, None, _identity_in(raw)[2])
    try:
        found: Any = decode_object(raw, wanted)
    except InvalidItem as problem:
        if kind is not EventType.DELETED:
            raise
        return Event(kind, None, problem.resource_version, (problem.namespace, problem.name))
    meta = found.metadata
    return Event(kind, found, meta.resource_version, (meta.namespace, meta.name))


def _parts_of_event(line: bytes) -> tuple[str, bytes]:
    """Return what happened, and to which object, as text. Raises KproxyError."""
    try:
        outer = _decoder(_RawEvent).decode(line)
    except UNREADABLE as error:
        from . import salvage  # rarely needed

        try:
            found = salvage.members(line)
            return _decoder(str).decode(found["type"]), found["object"]
        except (salvage.Broken, KeyError, *UNREADABLE):
            raise _not_json(error) from None
    return outer.type, bytes(outer.object)


def api_error(code: int, body: bytes) -> ApiError:
    """Return the error that a ``kind: Status`` body (or any other error body) stands for."""
    try:
        status = _decoder(Status).decode(body)
    except UNREADABLE:
        status = Status(message=body[:200].decode(errors="replace").strip())
    code = status.code or code
    known = {409: Conflict, 410: Gone}
    message = status.message or f"the API server answered with status {code}"
    return known.get(code, ApiError)(code, status.reason, message)


def from_dict(data: dict[str, Any], wanted: type[T]) -> T:
    """Make a typed object of a dictionary. Raises :class:`InvalidItem`."""
    try:
        return msgspec.convert(data, wanted)
    except msgspec.ValidationError as error:
        raise _invalid_item(_identity(data), wanted, explain(error)) from None


def to_dict(obj: Object) -> dict[str, Any]:
    """Return an object as a dictionary to be written as JSON, with its apiVersion and kind.

    Absent values (None, and empty text where that is the default) are left out, as Kubernetes
    does; zero and false are kept, so that the result can also be used as a merge patch.
    """
    kind = kinds.of(obj)
    return {"apiVersion": kind.api_version, "kind": kind.name, **_plain(obj)}


def encode(obj: Object) -> bytes:
    """Return an object as JSON; see :func:`to_dict`."""
    return msgspec.json.encode(to_dict(obj))


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        fields = (
            (name, getattr(value, key), default) for key, name, default in _fields(type(value))
        )
        return {
            name: _plain(inner)
            for name, inner, default in fields
            if inner is not None and not (inner == default == "")
        }
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value


@cache
def _fields(wanted: type[msgspec.Struct]) -> list[tuple[str, str, Any]]:
    """Return attribute, name in JSON and default of each field."""
    found = msgspec.structs.fields(wanted)
    return [(field.name, field.encode_name, field.default) for field in found]


def _not_json(error: Exception) -> KproxyError:
    return KproxyError(f"the API server's answer cannot be read: {error}")


def _identity(data: Any) -> tuple[str, str, str]:
    """Return namespace, name and resourceVersion as far as a broken object tells them."""
    meta = data.get("metadata") if isinstance(data, dict) else None
    if not isinstance(meta, dict):
        return "", "", ""
    texts = (meta.get(key) for key in ("namespace", "name", "resourceVersion"))
    namespace, name, version = (text if isinstance(text, str) else "" for text in texts)
    return namespace, name, version


def _invalid_item(
    identity: tuple[str, str, str], wanted: type[T], why: tuple[str, str, str]
) -> InvalidItem:
    namespace, name, version = identity
    try:
        label = label_of(kinds.for_type(wanted), namespace, name)
    except KeyError:  # the type of a part, or a caller's own
        label = wanted.__name__
    field, problem, remedy = why
    return InvalidItem(
        InvalidObject(label, field, problem, remedy=remedy), namespace, name, version
    )


def label_of(kind: Kind, namespace: str, name: str) -> str:
    """Return how messages name an object that may lack a name."""
    return kind.label(namespace or "default", name) if name else f"{kind.name} without a name"


_WORDS = {
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "float": "a number",
    "object": "a mapping",
    "array": "a list",
    "null": "nothing",
}
_AT = re.compile(r" - at `(?:key in )?\$\.?(.*)`$")
_TYPES = re.compile(r"Expected `(.*)`, got `(.*)`")
_MISSING = re.compile(r"Object missing required field `(.*)`")


def explain(error: msgspec.ValidationError) -> tuple[str, str, str]:
    """Return field path, problem and remedy of a decoding error, in words for the user."""
    text = str(error)
    where = ""
    if at := _AT.search(text):
        where = at[1]
        text = text[: at.start()]
    if missing := _MISSING.fullmatch(text):
        field = f"{where}.{missing[1]}" if where else missing[1]
        return field, "is missing", "add it"
    if types := _TYPES.fullmatch(text):
        allowed = _either(word for word in types[1].split(" | ") if word != "null")
        return where, f"must be {allowed}, not {_either([types[2]])}", "correct its value"
    return where, text[:1].lower() + text[1:], "correct its value"


def _either(names: Iterable[str]) -> str:
    return " or ".join(_WORDS.get(name, name) for name in names)

"""What an object must pass before it is stored: shape, defaults, validation, immutable fields.

Pure. Raises InvalidObject (422) or ApiError 400, which name object, field and remedy.
"""

import base64
import random
from collections.abc import Mapping
from typing import Any

from kproxy import errors
from kproxy.api import catalog, codec, kinds, shapes, validation

from . import defaults, immutable, routes, unmarshal
from .controllers import names
from .presentation import resources

Object = dict[str, Any]


def identify(target: routes.Target, obj: Any) -> Object:
    """Return an object with kind, apiVersion, name and namespace as its path demands.

    What the object leaves out is filled in; what it says differently is ApiError 400. What is
    null is left out, as Kubernetes does: manifests that programs have written are full of it.
    """
    if not isinstance(obj, dict) or not isinstance(obj.get("metadata") or {}, dict):
        raise errors.ApiError(400, "BadRequest", "the body must be one object with metadata")
    kind = target.kind
    wanted = {"apiVersion": kind.api_version, "kind": kind.name}
    _agree("", obj, wanted)
    meta = dict(obj.get("metadata") or {})
    identity = {"namespace": target.namespace} if kind.namespaced else {}
    if target.name:
        identity["name"] = target.name
    _agree("metadata.", meta, identity)
    if not kind.namespaced and meta.get("namespace"):
        raise errors.InvalidObject(
            kind.name, "metadata.namespace", "this kind has no namespace", remedy="remove it"
        )
    meta.pop("namespace", None)
    made = {**wanted, **obj, **wanted, "metadata": {**meta, **identity}}
    if kind is catalog.CONTROLLER_REVISION:  # holds patches, in which null says something
        return made
    try:
        return dict(_without_nulls(made, shapes.of(kind)))
    except RecursionError:
        message = "the body is nested too deeply"
        raise errors.ApiError(400, "BadRequest", message) from None


def _without_nulls(value: Any, shape: shapes.Shape) -> Any:
    if isinstance(value, dict):
        if shape.type == "map":
            return {name: "" if inner is None else inner for name, inner in value.items()}
        return {
            name: _without_nulls(inner, shapes.below(shape, name))
            for name, inner in value.items()
            if inner is not None
        }
    if isinstance(value, list):
        return [_without_nulls(inner, shape.item or shapes.ANY) for inner in value]
    return value


def _agree(prefix: str, have: Object, wanted: Object) -> None:
    for name, value in wanted.items():
        if have.get(name) not in (None, "", value):
            raise errors.ApiError(
                400,
                "BadRequest",
                f"{prefix}{name}: the body says {have[name]!r}, the path {value!r}",
            )


def named(obj: Object, draw: random.Random) -> Object:
    """Return a new object with a name: its own, or one that begins with its generateName."""
    meta = obj["metadata"]
    if meta.get("name") or not isinstance(meta.get("generateName"), str):
        return obj
    if not meta["generateName"]:
        return obj
    ending = "".join(draw.choice(names.LETTERS) for _ in range(5))
    return {**obj, "metadata": {**meta, "name": meta["generateName"][:_LONGEST_PREFIX] + ending}}


_LONGEST_PREFIX = 58


def admit(kind: kinds.Kind, obj: Object, old: Object | None) -> Object:
    """Return an object with defaults, or refuse it; ``old`` is what it replaces, if anything."""
    check_shape(kind, obj, old)
    if old is not None and kind is kinds.SERVICE:
        obj = _updated_service(obj, old)
    if kind is catalog.SECRET:
        obj = _encoded(obj)
    if old is not None and kind is kinds.NAMESPACE:
        obj = {**obj, "spec": old.get("spec") or {}}  # its finalizers: see the subresource
    obj = defaults.apply(kind.name, obj)
    problems = _problems(kind, obj)
    if problems and old is not None:
        # What was wrong already, by rules that are newer than the object, stays as it is.
        known = {str(one) for one in _problems(kind, old)}
        problems = [one for one in problems if str(one) not in known]
    if problems:
        raise ExceptionGroup("invalid object", problems)
    if old is not None:
        immutable.check(kind, obj, old)
    return obj


def _problems(kind: kinds.Kind, obj: Object) -> list[errors.InvalidObject]:
    try:
        return validation.validate(codec.from_dict(obj, kind.type))
    except errors.InvalidItem as problem:
        return [problem]


def check_shape(kind: kinds.Kind, obj: Object, old: Object | None) -> Any | None:
    """Refuse fields of the wrong type, unless they were as wrong in ``old``.

    Returns the decoded object; None if it cannot be decoded, as before.
    """
    decoded = None
    try:
        decoded = codec.from_dict(obj, kind.type)
    except errors.InvalidItem as problem:
        if old is None or str(problem) != str(_undecodable(kind, old)):
            raise
    meta = obj["metadata"]
    label = codec.label_of(kind, meta.get("namespace", ""), meta.get("name", ""))
    wrong = unmarshal.wrong(obj, shapes.of(kind))
    known = unmarshal.wrong(old, shapes.of(kind)) if wrong and old is not None else ()
    problems = [
        errors.InvalidObject(label, path, words, remedy="correct its value")
        for path, words in wrong
        if (path, words) not in known
    ]
    if problems:
        raise ExceptionGroup("values of the wrong type", problems)
    return decoded


def _undecodable(kind: kinds.Kind, obj: Object) -> errors.InvalidItem | None:
    try:
        codec.from_dict(obj, kind.type)
    except errors.InvalidItem as problem:
        return problem
    return None


def check_status(kind: kinds.Kind, obj: Object, old: Object) -> Object:
    """Return the object if its status is right."""
    decoded = check_shape(kind, obj, old)
    problems = [] if decoded is None else validation.validate_status(decoded)
    if problems:
        raise ExceptionGroup("invalid status", problems)
    return obj


def initial_status(kind: kinds.Kind, obj: Object) -> Object:
    """Return a new object with the status that new objects have: only Nodes may bring one."""
    if kind is kinds.NODE:
        return obj
    rest = {name: value for name, value in obj.items() if name != "status"}
    if kind is kinds.NAMESPACE:
        rest["spec"] = {"finalizers": ["kubernetes"]}
    first: dict[kinds.Kind, Object] = {
        catalog.POD: {"phase": "Pending"},
        kinds.NAMESPACE: {"phase": "Active"},
        kinds.SERVICE: {"loadBalancer": {}},
    }
    return {**rest, "status": first.get(kind, {})} if resources.has_status(kind) else rest


def _encoded(secret: Object) -> Object:
    """Return a Secret whose stringData has become data."""
    plain = secret.get("stringData") or {}
    coded = {name: base64.b64encode(text.encode()).decode() for name, text in plain.items()}
    rest = {name: value for name, value in secret.items() if name != "stringData"}
    return {**rest, "data": {**(secret.get("data") or {}), **coded}} if coded else rest


_ADDRESSES = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")
_NEEDED_BY: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_ADDRESSES, ("ClusterIP", "NodePort", "LoadBalancer")),
    "externalTrafficPolicy": ("NodePort", "LoadBalancer"),
    "allocateLoadBalancerNodePorts": ("LoadBalancer",),
    "loadBalancerClass": ("LoadBalancer",),
}
"""The types of Services that have a use for a field; node ports: see ``allocations.kept``."""


def _updated_service(obj: Object, old: Object) -> Object:
    """Return an update of a Service without what is of no use any more, as Kubernetes does.

    That is what its new type does not need and the client has not touched. Allocated addresses
    that it leaves out and goes on to need are carried over.
    """
    spec, before = dict(obj.get("spec") or {}), old["spec"]
    needed = spec.get("type") or "ClusterIP"
    for name, types in _NEEDED_BY.items():
        if needed not in types and spec.get(name) == before.get(name):
            spec.pop(name, None)
    if needed != "ExternalName" and not spec.get("clusterIP"):
        spec |= {
            name: before[name] for name in _ADDRESSES if before.get(name) and not spec.get(name)
        }
    return {**obj, "spec": spec}

"""What an object must pass before it is stored: shape, defaults, validation, immutable fields.

Pure. Raises InvalidObject (422) or ApiError 400, which name object, field and remedy.
"""

import base64
import random
from typing import Any

from kproxy import errors
from kproxy.api import catalog, codec, kinds, validation

from . import defaults, immutable, routes
from .presentation import resources

Object = dict[str, Any]


def identify(target: routes.Target, obj: Any) -> Object:
    """Return an object with kind, apiVersion, name and namespace as its path demands.

    What the object leaves out is filled in; what it says differently is ApiError 400.
    """
    if not isinstance(obj, dict) or not isinstance(obj.get("metadata") or {}, dict):
        raise errors.ApiError(400, "BadRequest", "the body must be one object with metadata")
    kind = target.kind
    wanted = {"apiVersion": kind.api_version, "kind": kind.name}
    _agree("", obj, wanted)
    meta = {
        name: value for name, value in (obj.get("metadata") or {}).items() if value is not None
    }
    identity = {"namespace": target.namespace} if kind.namespaced else {}
    if target.name:
        identity["name"] = target.name
    _agree("metadata.", meta, identity)
    if not kind.namespaced and meta.get("namespace"):
        raise errors.InvalidObject(
            kind.name, "metadata.namespace", "this kind has no namespace", remedy="remove it"
        )
    meta.pop("namespace", None)
    return {**wanted, **obj, **wanted, "metadata": {**meta, **identity}}


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
    ending = "".join(draw.choice(_LETTERS) for _ in range(5))
    return {**obj, "metadata": {**meta, "name": meta["generateName"][:_LONGEST_PREFIX] + ending}}


_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""Those of Kubernetes: no vowels, so no words come up."""
_LONGEST_PREFIX = 58


def admit(kind: kinds.Kind, obj: Object, old: Object | None) -> Object:
    """Return an object with defaults, or refuse it; ``old`` is what it replaces, if anything."""
    check_shape(kind, obj)
    if old is not None and kind is kinds.SERVICE:
        obj = _keep_cluster_ip(obj, old)
    if kind is catalog.SECRET:
        obj = _encoded(obj)
    if old is not None and kind is kinds.NAMESPACE:
        obj = {**obj, "spec": old.get("spec") or {}}  # its finalizers: see the subresource
    obj = defaults.apply(kind.name, obj)
    problems = validation.validate(codec.from_dict(obj, kind.type))
    if problems:
        raise ExceptionGroup("invalid object", problems)
    if old is not None:
        immutable.check(kind, obj, old)
    return obj


def check_shape(kind: kinds.Kind, obj: Object) -> Object:
    """Return the object if its fields have the types that they must have."""
    codec.from_dict(obj, kind.type)
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


def _keep_cluster_ip(obj: Object, old: Object) -> Object:
    """Carry allocated addresses over into an update that leaves them out, as Kubernetes does."""
    spec, before = obj.get("spec") or {}, old["spec"]
    if spec.get("type") == "ExternalName" or spec.get("clusterIP"):
        return obj
    names = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")
    kept = {name: before[name] for name in names if name in before and not spec.get(name)}
    return {**obj, "spec": {**spec, **kept}}

"""What an object must pass before it is stored: shape, defaults, validation, immutable fields.

Pure. Raises InvalidObject (422) or ApiError 400, which name object, field and remedy.
"""

from typing import Any

from kproxy import errors
from kproxy.api import catalog, codec, kinds, validation

from . import defaults, routes

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


def admit(kind: kinds.Kind, obj: Object, old: Object | None) -> Object:
    """Return an object with defaults, or refuse it; ``old`` is what it replaces, if anything."""
    check_shape(kind, obj)
    if old is not None and kind is kinds.SERVICE:
        obj = _keep_cluster_ip(obj, old)
    obj = defaults.apply(kind.name, obj)
    problems = validation.validate(codec.from_dict(obj, kind.type))
    if problems:
        raise ExceptionGroup("invalid object", problems)
    if old is not None:
        _check_immutable(kind, obj, old)
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
    first: dict[kinds.Kind, Object] = {
        catalog.POD: {"phase": "Pending"},
        kinds.NAMESPACE: {"phase": "Active"},
        kinds.SERVICE: {"loadBalancer": {}},
    }
    return {**rest, "status": first.get(kind, {})} if routes.has_status(kind) else rest


def _keep_cluster_ip(obj: Object, old: Object) -> Object:
    """Carry allocated addresses over into an update that leaves them out, as Kubernetes does."""
    spec, before = obj.get("spec") or {}, old["spec"]
    if spec.get("type") == "ExternalName" or spec.get("clusterIP"):
        return obj
    names = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")
    kept = {name: before[name] for name in names if name in before and not spec.get(name)}
    return {**obj, "spec": {**spec, **kept}}


_IMMUTABLE = {
    catalog.DEPLOYMENT: ("selector",),
    catalog.DAEMON_SET: ("selector",),
    kinds.SERVICE: ("clusterIP",),
    catalog.POD: ("nodeName", "hostNetwork", "restartPolicy"),
}


def _check_immutable(kind: kinds.Kind, obj: Object, old: Object) -> None:
    for name in _IMMUTABLE.get(kind, ()):
        before = (old.get("spec") or {}).get(name)
        # An absent value may be set later: a pod is bound to its node, a Service gets an address.
        if before and (obj.get("spec") or {}).get(name) != before:
            raise errors.InvalidObject(
                kind.label(*_key(obj)),
                f"spec.{name}",
                "field is immutable",
                remedy="delete the object and create it again",
            )


def _key(obj: Object) -> tuple[str, str]:
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]

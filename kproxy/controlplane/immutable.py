"""Fields that nobody may change once they are set, in Kubernetes' words. Pure."""

from collections.abc import Mapping
from typing import Any

from kproxy import errors
from kproxy.api import catalog, kinds

from .presentation import cells

Object = dict[str, Any]

IMMUTABLE = "field is immutable"
_POD = (
    "pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only "
    "additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set "
    "to 1 if it was previously negative)"
)
_STATEFUL_SET = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
    "'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and "
    "'minReadySeconds' are forbidden"
)
_STATEFUL_SET_MAY = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)
_FIELDS: Mapping[kinds.Kind, tuple[str, ...]] = {
    catalog.DEPLOYMENT: ("spec.selector",),
    catalog.DAEMON_SET: ("spec.selector",),
    catalog.REPLICA_SET: ("spec.selector",),
    catalog.IP_ADDRESS: ("spec.parentRef",),
    catalog.CONTROLLER_REVISION: ("data",),
    catalog.SECRET: ("type",),
    kinds.ENDPOINT_SLICE: ("addressType",),
    kinds.SERVICE: ("spec.clusterIP",),
    kinds.SERVICE_CIDR: ("spec.cidrs",),
    kinds.NODE: ("spec.podCIDR", "spec.podCIDRs"),
}


def check(kind: kinds.Kind, new: Object, old: Object) -> None:
    """Raise InvalidObject if a change is not allowed; what was not set may be set."""
    for path in _FIELDS.get(kind, ()):
        before, after = cells.at(old, *path.split(".")), cells.at(new, *path.split("."))
        if kind is kinds.SERVICE and not _keeps_address(new, old):
            continue
        if before not in (None, "", [], {}) and before != after:
            raise _fault(kind, new, path, IMMUTABLE)
    _check_finalizers(kind, new, old)
    if kind is kinds.SERVICE:
        _check_balanced(kind, new, old)
    if kind is catalog.POD and not _may_become(old, new):
        raise _fault(kind, new, "spec", _POD)
    if kind is catalog.STATEFUL_SET and _without(new, _STATEFUL_SET_MAY) != _without(
        old, _STATEFUL_SET_MAY
    ):
        raise _fault(kind, new, "spec", _STATEFUL_SET)
    if kind in (catalog.CONFIG_MAP, catalog.SECRET) and old.get("immutable"):
        _check_frozen(kind, new, old)


def _keeps_address(new: Object, old: Object) -> bool:
    """Return whether a Service's address may not change: it may with the type ExternalName."""
    types = (cells.at(new, "spec", "type"), cells.at(old, "spec", "type"))
    return "ExternalName" not in types


def _check_balanced(kind: kinds.Kind, new: Object, old: Object) -> None:
    """Check what load balancers rely on, as long as a Service has one."""
    before, after = old.get("spec") or {}, new.get("spec") or {}
    if {before.get("type"), after.get("type")} != {"LoadBalancer"}:
        return
    if before.get("loadBalancerClass") != after.get("loadBalancerClass"):
        raise _fault(kind, new, "spec.loadBalancerClass", IMMUTABLE)
    ports = [spec.get("healthCheckNodePort") for spec in (before, after)]
    if all(ports) and ports[0] != ports[1]:
        raise _fault(kind, new, "spec.healthCheckNodePort", IMMUTABLE)


def _check_frozen(kind: kinds.Kind, new: Object, old: Object) -> None:
    words = "field is immutable when `immutable` is set"
    for name in ("immutable", "data", "binaryData"):
        if new.get(name) != old.get(name):
            raise _fault(kind, new, name, words)


def _check_finalizers(kind: kinds.Kind, new: Object, old: Object) -> None:
    if old["metadata"].get("deletionTimestamp"):
        before = old["metadata"].get("finalizers") or ()
        added = [one for one in new["metadata"].get("finalizers") or () if one not in before]
        if added:
            problem = (
                "no new finalizers can be added if the object is being deleted, found new "
                f"finalizers {', '.join(added)}"
            )
            raise _fault(kind, new, "metadata.finalizers", problem, "leave them out")


def _may_become(old: Object, new: Object) -> bool:
    """Return whether a pod may be changed like that."""
    before, after = old.get("spec") or {}, new.get("spec") or {}
    tolerated = [_unlimited(one) for one in after.get("tolerations") or ()]
    kept = all(_unlimited(one) in tolerated for one in before.get("tolerations") or ())
    return kept and _fixed(new) == _fixed(old)


def _unlimited(toleration: Object) -> Object:
    return {name: value for name, value in toleration.items() if name != "tolerationSeconds"}


def _fixed(pod: Object) -> Object:
    """Return what of a pod's specification cannot change."""
    spec = pod.get("spec") or {}
    may = ("activeDeadlineSeconds", "tolerations")
    fixed = {name: value for name, value in spec.items() if name not in may}
    for field in ("containers", "initContainers"):
        if field in fixed:
            fixed[field] = [{**one, "image": ""} for one in fixed[field]]
    return fixed


def _without(obj: Object, names: tuple[str, ...]) -> Object:
    spec = obj.get("spec") or {}
    return {name: value for name, value in spec.items() if name not in names}


def _fault(
    kind: kinds.Kind,
    obj: Object,
    field: str,
    problem: str,
    remedy: str = "delete the object and create it again",
) -> errors.InvalidObject:
    meta = obj["metadata"]
    label = kind.label(meta.get("namespace", ""), meta["name"])
    return errors.InvalidObject(label, field, problem, remedy=remedy)

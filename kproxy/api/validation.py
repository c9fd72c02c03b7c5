"""Is an object allowed to be? All that is wrong with it, in Kubernetes' words, with field paths.

Stricter than Kubernetes nowhere but in what this project cannot do; laxer where it does not matter
to it.
"""

import base64
import re
from collections.abc import Callable, Sequence
from typing import Any

from kproxy.errors import InvalidObject

from . import catalog, checks, codec, kinds, service_rules, workload_rules
from .checks import Checker
from .configuration import ConfigMap, Endpoints, EndpointSubsetPort, IPAddress, Lease, Secret
from .core import Node, Service
from .meta import Object, ObjectMeta, OwnerReference
from .networking import ServiceCIDR
from .pods import Pod

MOST_ANNOTATED = 256 * 1024
"""Characters of all annotations of an object; Kubernetes counts bytes."""


def validate(obj: Object) -> list[InvalidObject]:
    """Return everything that is wrong with a decoded object of a known kind."""
    kind = kinds.of(obj)
    meta = _meta(obj)
    check = _checker(obj)
    if kind in (kinds.SERVICE, kinds.NAMESPACE):
        pattern = checks.DNS_1035_LABEL if kind is kinds.SERVICE else checks.DNS_LABEL
        check.name("metadata.name", meta.name, pattern)
    elif kind is catalog.IP_ADDRESS:
        check.address("metadata.name", meta.name)
    else:
        check.name("metadata.name", meta.name, checks.DNS_SUBDOMAIN, 253)
    if kind.namespaced and meta.namespace:
        check.name("metadata.namespace", meta.namespace)
    elif not kind.namespaced and meta.namespace:
        check.fault("metadata.namespace", f"a {kind.name} has no namespace", "remove it")
    check.labels("metadata.labels", meta.labels)
    check.annotations("metadata.annotations", meta.annotations)
    for text in meta.finalizers or ():
        _check_finalizer(check, "metadata.finalizers", text)
    size = sum(len(key) + len(value) for key, value in (meta.annotations or {}).items())
    if size > MOST_ANNOTATED:
        problem = f"must have at most {MOST_ANNOTATED} bytes"
        check.fault("metadata.annotations", problem, "keep large texts in a ConfigMap")
    _check_owners(check, meta.owner_references or ())
    rule = _RULES.get(kind)
    if rule is not None:
        rule(check, obj)
    return check.problems


def validate_status(obj: Object) -> list[InvalidObject]:
    """Return what is wrong with the status that others write to a decoded object."""
    check = _checker(obj)
    if isinstance(obj, Service) and obj.status is not None:
        service_rules.check_ingress(check, obj.status)
    if isinstance(obj, Pod):
        workload_rules.check_pod_status(check, obj)
    if isinstance(obj, Node):
        workload_rules.check_node_status(check, obj)
    return check.problems


def _meta(obj: Object) -> ObjectMeta:
    meta: ObjectMeta = obj.metadata  # type: ignore[attr-defined]  # every kind has it
    return meta


def _checker(obj: Object) -> Checker:
    meta = _meta(obj)
    return Checker(codec.label_of(kinds.of(obj), meta.namespace, meta.name))


def _check_finalizer(check: Checker, field: str, text: str) -> None:
    if text not in _FINALIZERS and ("/" not in text or not checks.is_qualified(text)):
        problem = f"{text!r} is neither a standard finalizer name nor is it fully qualified"
        check.fault(field, problem, "use domain/name")


_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")


def _check_owners(check: Checker, owners: Sequence[OwnerReference]) -> None:
    for index, one in enumerate(owners):
        said = {"apiVersion": one.api_version, "kind": one.kind, "name": one.name, "uid": one.uid}
        for field, value in said.items():
            if not value:
                path = f"metadata.ownerReferences[{index}].{field}"
                check.fault(path, "is missing", "say who owns the object")
    if sum(one.controller is True for one in owners) > 1:
        problem = "only one reference can have `controller` set to true"
        check.fault("metadata.ownerReferences", problem, "keep one controller")


def _check_data(check: Checker, obj: ConfigMap | Secret) -> None:
    size = 0
    maps = {"data": obj.data, "binaryData": getattr(obj, "binary_data", None)}
    for field, values in maps.items():
        for key, value in (values or {}).items():
            coded = isinstance(obj, Secret) or field == "binaryData"
            size += len(value.rstrip("=")) * 3 // 4 if coded else len(value.encode())
            if not _DATA_KEY.fullmatch(key) or key in (".", ".."):
                remedy = "use up to 253 letters, digits, '-', '_' and '.'"
                check.fault(f"{field}[{key}]", f"{key!r} is not a valid key", remedy)
            elif coded and not _is_base64(value):
                check.fault(f"{field}[{key}]", "is not base64", "encode it, or use stringData")
    for key in (obj.data or {}).keys() & (maps["binaryData"] or {}).keys():
        problem = "duplicate of a key in binaryData"
        check.fault(f"data[{key}]", problem, "keep one of them")
    if size > MOST_DATA:
        problem = f"must have at most {MOST_DATA} bytes"
        check.fault("data", problem, "use several objects")
    if isinstance(obj, Secret):
        for key in _SECRET_KEYS.get(obj.type, ()):
            if key not in (obj.data or {}) and key not in (obj.string_data or {}):
                check.fault(f"data[{key}]", "is missing", f"type {obj.type} needs it")


MOST_DATA = 1024 * 1024
"""Bytes in a ConfigMap or a Secret."""
_SECRET_KEYS = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}
"""What Secrets of a type must hold."""

_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")


def _is_base64(text: str) -> bool:
    """Return whether it is base64, perhaps in several lines."""
    try:
        base64.b64decode(text.replace("\r", "").replace("\n", ""), validate=True)
    except ValueError:
        return False
    return True


def _check_ip_address(check: Checker, obj: IPAddress) -> None:
    ref = obj.spec.parent_ref or {}
    for field in ("resource", "name"):
        if not ref.get(field):
            check.fault(f"spec.parentRef.{field}", "is missing", "say whose address it is")


def _check_service_cidr(check: Checker, obj: ServiceCIDR) -> None:
    for index, text in enumerate(obj.spec.cidrs or ()):
        check.network(f"spec.cidrs[{index}]", text)
    if not obj.spec.cidrs:
        check.fault("spec.cidrs", "is missing", "give a network, or one of each family")
    elif len(obj.spec.cidrs) > 2:
        check.fault("spec.cidrs", "more than two networks", "give one for each family")


def _check_endpoints(check: Checker, obj: Endpoints) -> None:
    for index, subset in enumerate(obj.subsets or ()):
        if not subset.addresses and not subset.not_ready_addresses:
            check.fault(f"subsets[{index}]", "is missing addresses", "list at least one")
        lists = {
            "addresses": subset.addresses,
            "notReadyAddresses": subset.not_ready_addresses,
        }
        for field, listed in lists.items():
            for place, one in enumerate(listed or ()):
                at = f"subsets[{index}].{field}[{place}]"
                check.usable_address(f"{at}.ip", one.ip)
                if one.hostname:
                    check.name(f"{at}.hostname", one.hostname)
        _check_ports(check, f"subsets[{index}].ports", subset.ports or [])


def _check_ports(check: Checker, at: str, ports: Sequence[EndpointSubsetPort]) -> None:
    for index, port in enumerate(ports):
        check.port(f"{at}[{index}].port", port.port)
        check.one_of(f"{at}[{index}].protocol", port.protocol, checks.PROTOCOLS)
        if port.name:
            check.name(f"{at}[{index}].name", port.name)
        elif len(ports) > 1:
            check.fault(f"{at}[{index}].name", "is missing", "name each of several ports")


def _check_lease(check: Checker, obj: Lease) -> None:
    seconds = obj.spec.lease_duration_seconds
    if seconds is not None and seconds <= 0:
        check.fault("spec.leaseDurationSeconds", "must be greater than 0", "give seconds")
    if (obj.spec.lease_transitions or 0) < 0:
        problem = "must be greater than or equal to 0"
        check.fault("spec.leaseTransitions", problem, "count how often it has changed hands")


_RULES: dict[kinds.Kind, Callable[[Checker, Any], None]] = {
    kinds.SERVICE: service_rules.check_service,
    kinds.ENDPOINT_SLICE: service_rules.check_slice,
    catalog.POD: workload_rules.check_pod,
    kinds.NODE: workload_rules.check_node,
    catalog.DEPLOYMENT: workload_rules.check_deployment,
    catalog.DAEMON_SET: workload_rules.check_daemon_set,
    catalog.REPLICA_SET: workload_rules.check_replica_set,
    catalog.STATEFUL_SET: workload_rules.check_stateful_set,
    kinds.SERVICE_CIDR: _check_service_cidr,
    catalog.IP_ADDRESS: _check_ip_address,
    catalog.CONFIG_MAP: _check_data,
    catalog.SECRET: _check_data,
    catalog.ENDPOINTS: _check_endpoints,
    catalog.LEASE: _check_lease,
}

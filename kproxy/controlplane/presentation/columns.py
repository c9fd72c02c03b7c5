"""The columns of ``kubectl get`` for each kind, and what is in them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kproxy.api.addresses import with_port

from . import cells, podcells
from .cells import age, at, joined

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """``names`` of the columns after NAME; the ``wide`` last ones are for ``-o wide`` only."""

    names: tuple[str, ...]
    wide: int
    row: Callable[[Object, float], list[Any]]


def _age(obj: Object, now: float) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def _namespace(obj: Object, now: float) -> list[Any]:
    return [at(obj, "status", "phase") or "Active", _age(obj, now)]


def _node(obj: Object, now: float) -> list[Any]:
    ready = cells.condition(obj, "Ready").get("status", "Unknown")
    words = [{"True": "Ready", "False": "NotReady"}.get(ready, "NotReady")]
    if at(obj, "spec", "unschedulable"):
        words.append("SchedulingDisabled")
    prefix = "node-role.kubernetes.io/"
    labels = obj["metadata"].get("labels") or {}
    roles = sorted(name.removeprefix(prefix) for name in labels if name.startswith(prefix))
    info = at(obj, "status", "nodeInfo") or {}
    listed = at(obj, "status", "addresses") or ()
    addresses = {one["type"]: one["address"] for one in reversed(listed)}  # the first counts
    return [
        ",".join(words),
        joined(roles),
        _age(obj, now),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP", "<none>"),
        addresses.get("ExternalIP", "<none>"),
        info.get("osImage") or "<unknown>",
        info.get("kernelVersion") or "<unknown>",
        info.get("containerRuntimeVersion") or "<unknown>",
    ]


def _service(obj: Object, now: float) -> list[Any]:
    spec = obj.get("spec") or {}
    return [
        spec.get("type", "ClusterIP"),
        spec.get("clusterIP") or "<none>",
        _external(obj),
        joined(_service_port(port) for port in spec.get("ports") or ()),
        _age(obj, now),
        cells.selector(spec.get("selector")),
    ]


def _external(service: Object) -> str:
    spec = service.get("spec") or {}
    given = list(spec.get("externalIPs") or ())
    match spec.get("type"):
        case "ExternalName":
            return str(spec.get("externalName"))
        case "LoadBalancer":
            balancer = at(service, "status", "loadBalancer", "ingress") or ()
            found = [one.get("ip") or one.get("hostname") for one in balancer]
            return joined(found + given, "<pending>")
    return joined(given)


def _service_port(port: Object) -> str:
    number = f"{port['port']}:{port['nodePort']}" if port.get("nodePort") else port["port"]
    return f"{number}/{port.get('protocol', 'TCP')}"


def _slice(obj: Object, now: float) -> list[Any]:
    ports = [one.get("port") or "*" for one in obj.get("ports") or ()]
    addresses = [text for one in obj.get("endpoints") or () for text in one.get("addresses") or ()]
    return [
        obj.get("addressType", ""),
        joined(ports, "<unset>", 3),
        joined(addresses, "<unset>", 3),
        _age(obj, now),
    ]


def _endpoints(obj: Object, now: float) -> list[Any]:
    found = [
        with_port(address["ip"], port["port"])
        for subset in obj.get("subsets") or ()
        for port in subset.get("ports") or ()
        for address in subset.get("addresses") or ()
    ]
    return [joined(found, "<none>", 3), _age(obj, now)]


def _configured(field: str) -> Callable[[Object, float], list[Any]]:
    return lambda obj, now: [
        *([obj.get("type", "Opaque")] if field == "type" else []),
        len(obj.get("data") or {}) + len(obj.get("binaryData") or {}),
        _age(obj, now),
    ]


def _account(obj: Object, now: float) -> list[Any]:
    return [len(obj.get("secrets") or ()), _age(obj, now)]


def _event(obj: Object, now: float) -> list[Any]:
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    source = obj.get("source") or obj.get("deprecatedSource") or {}
    last = obj.get("lastTimestamp") or obj.get("deprecatedLastTimestamp") or obj.get("eventTime")
    first = obj.get("firstTimestamp") or obj.get("deprecatedFirstTimestamp") or last
    component = source.get("component") or obj.get("reportingComponent")
    host = source.get("host") or ""
    name = f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"
    return [
        age(last or obj["metadata"].get("creationTimestamp"), now),
        obj.get("type", ""),
        obj.get("reason", ""),
        name,
        (obj.get("message") or obj.get("note") or "").strip(),
        about.get("fieldPath", ""),
        joined(filter(None, (component or obj.get("reportingController"), host)), ""),
        age(first or obj["metadata"].get("creationTimestamp"), now),
        obj.get("count") or obj.get("deprecatedCount") or 1,
        obj["metadata"].get("name", ""),
    ]


def _images(template: Any) -> list[str]:
    found = cells.containers(template)
    return [joined(c.get("name") for c in found), joined(c.get("image", "") for c in found)]


def _daemon_set(obj: Object, now: float) -> list[Any]:
    status = obj.get("status") or {}
    counts = ("desired", "current", "ready", "updated", "available")
    names = ("NumberScheduled", "NumberScheduled", "", "NumberScheduled", "")
    values = [
        status.get(f"{word}{rest}" if rest else f"number{word.title()}", 0)
        for word, rest in zip(counts, names, strict=True)
    ]
    node_selector = at(obj, "spec", "template", "spec", "nodeSelector")
    wide = [*_images(at(obj, "spec", "template")), cells.selector(at(obj, "spec", "selector"))]
    return [*values, cells.selector(node_selector), _age(obj, now), *wide]


def _deployment(obj: Object, now: float) -> list[Any]:
    status = obj.get("status") or {}
    return [
        f"{status.get('readyReplicas', 0)}/{at(obj, 'spec', 'replicas') or 0}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        _age(obj, now),
        *_images(at(obj, "spec", "template")),
        cells.selector(at(obj, "spec", "selector")),
    ]


def _replica_set(obj: Object, now: float) -> list[Any]:
    status = obj.get("status") or {}
    return [
        at(obj, "spec", "replicas") or 0,
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        _age(obj, now),
        *_images(at(obj, "spec", "template")),
        cells.selector(at(obj, "spec", "selector")),
    ]


def _stateful_set(obj: Object, now: float) -> list[Any]:
    ready = at(obj, "status", "readyReplicas") or 0
    wanted = at(obj, "spec", "replicas") or 0
    return [f"{ready}/{wanted}", _age(obj, now), *_images(at(obj, "spec", "template"))]


def _revision(obj: Object, now: float) -> list[Any]:
    owners = obj["metadata"].get("ownerReferences") or ()
    owner = next((one for one in owners if one.get("controller")), None)
    group = str(owner.get("apiVersion", "")).partition("/")[0] if owner else ""
    told = f"{owner['kind'].lower()}.{group}/{owner['name']}" if owner else "<none>"
    return [told, obj.get("revision", 0), _age(obj, now)]


def _lease(obj: Object, now: float) -> list[Any]:
    return [at(obj, "spec", "holderIdentity") or "", _age(obj, now)]


def _ip_address(obj: Object, now: float) -> list[Any]:
    ref = at(obj, "spec", "parentRef") or {}
    parts = (ref.get("resource"), ref.get("namespace"), ref.get("name"))
    return ["/".join(part for part in parts if part), _age(obj, now)]


def _service_cidr(obj: Object, now: float) -> list[Any]:
    return [joined(at(obj, "spec", "cidrs")), _age(obj, now)]


def _columns(names: str, row: Callable[[Object, float], list[Any]], wide: str = "") -> Columns:
    words = [word.replace("_", " ") for word in f"{names} {wide}".split()]
    return Columns(names=tuple(words), wide=len(wide.split()), row=row)


_IMAGES = "Containers Images"
BY_RESOURCE: Mapping[str, Columns] = {
    "namespaces": _columns("Status Age", _namespace),
    "nodes": _columns(
        "Status Roles Age Version",
        _node,
        "Internal-IP External-IP OS-Image Kernel-Version Container-Runtime",
    ),
    "pods": _columns(
        "Ready Status Restarts Age", podcells.row, "IP Node Nominated_Node Readiness_Gates"
    ),
    "services": _columns("Type Cluster-IP External-IP Port(s) Age", _service, "Selector"),
    "endpointslices": _columns("AddressType Ports Endpoints Age", _slice),
    "endpoints": _columns("Endpoints Age", _endpoints),
    "configmaps": _columns("Data Age", _configured("")),
    "secrets": _columns("Type Data Age", _configured("type")),
    "serviceaccounts": _columns("Secrets Age", _account),
    "events": _columns(
        "Last_Seen Type Reason Object Message", _event, "Subobject Source First_Seen Count Name"
    ),
    "daemonsets": _columns(
        "Desired Current Ready Up-to-date Available Node_Selector Age",
        _daemon_set,
        f"{_IMAGES} Selector",
    ),
    "deployments": _columns("Ready Up-to-date Available Age", _deployment, f"{_IMAGES} Selector"),
    "replicasets": _columns("Desired Current Ready Age", _replica_set, f"{_IMAGES} Selector"),
    "statefulsets": _columns("Ready Age", _stateful_set, _IMAGES),
    "controllerrevisions": _columns("Controller Revision Age", _revision),
    "leases": _columns("Holder Age", _lease),
    "ipaddresses": _columns("ParentRef Age", _ip_address),
    "servicecidrs": _columns("CIDRs Age", _service_cidr),
}
DEFAULT = Columns(names=("Age",), wide=0, row=lambda obj, now: [_age(obj, now)])

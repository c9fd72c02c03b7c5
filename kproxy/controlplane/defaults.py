"""What the API server fills in where the user said nothing (Kubernetes API reference). Pure.

Each function returns a new object and leaves the given one alone. It expects an object whose shape
has been checked (maps where maps belong).
"""

from collections.abc import Callable, Mapping
from typing import Any

Object = dict[str, Any]

CLIENT_IP_TIMEOUT = 10_800
GRACE_PERIOD = 30


def apply(kind: str, obj: Object) -> Object:
    """Return the object with the defaults of its kind; a kind without defaults unchanged."""
    default = _DEFAULTS.get(kind)
    return default(obj) if default else obj


def _service(obj: Object) -> Object:
    spec = {"type": "ClusterIP", "sessionAffinity": "None", **(obj.get("spec") or {})}
    if spec.get("ports"):
        spec["ports"] = [_service_port(port) for port in spec["ports"]]
    if spec["sessionAffinity"] == "ClientIP" and not spec.get("sessionAffinityConfig"):
        spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": CLIENT_IP_TIMEOUT}}
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec["type"] in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    return {**obj, "spec": spec}


def _service_port(port: Object) -> Object:
    port = {"protocol": "TCP", **port}
    if port.get("targetPort") in (None, "", 0):
        port["targetPort"] = port.get("port")
    return port


def _endpoint_slice(obj: Object) -> Object:
    if not obj.get("ports"):
        return obj
    return {**obj, "ports": [{"name": "", "protocol": "TCP", **port} for port in obj["ports"]]}


def _pod_spec(spec: Object) -> Object:
    spec = {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": GRACE_PERIOD,
        **spec,
    }
    spec["containers"] = [_container(container) for container in spec.get("containers") or ()]
    return spec


def _container(container: Object) -> Object:
    if not container.get("ports"):
        return container
    ports = [{"protocol": "TCP", **port} for port in container["ports"]]
    return {**container, "ports": ports}


def _pod(obj: Object) -> Object:
    return {**obj, "spec": _pod_spec(obj.get("spec") or {})}


def _template(spec: Object) -> Object:
    template = spec.get("template") or {}
    return {**template, "spec": _pod_spec(template.get("spec") or {})}


def _deployment(obj: Object) -> Object:
    spec = {"replicas": 1, **(obj.get("spec") or {})}
    spec["template"] = _template(spec)
    limits = {"maxUnavailable": "25%", "maxSurge": "25%"}
    spec["strategy"] = _strategy(spec.get("strategy"), limits)
    return {**obj, "spec": spec}


def _daemon_set(obj: Object) -> Object:
    spec = {**(obj.get("spec") or {})}
    spec["template"] = _template(spec)
    spec["updateStrategy"] = _strategy(
        spec.get("updateStrategy"), {"maxUnavailable": 1, "maxSurge": 0}
    )
    return {**obj, "spec": spec}


def _strategy(strategy: Object | None, limits: Mapping[str, Any]) -> Object:
    strategy = {"type": "RollingUpdate", **(strategy or {})}
    if strategy["type"] == "RollingUpdate":
        strategy["rollingUpdate"] = {**limits, **(strategy.get("rollingUpdate") or {})}
    return strategy


def _namespace(obj: Object) -> Object:
    meta = obj["metadata"]
    labels = {**(meta.get("labels") or {}), "kubernetes.io/metadata.name": meta.get("name", "")}
    return {**obj, "metadata": {**meta, "labels": labels}}


_DEFAULTS: Mapping[str, Callable[[Object], Object]] = {
    "Service": _service,
    "EndpointSlice": _endpoint_slice,
    "Pod": _pod,
    "Deployment": _deployment,
    "DaemonSet": _daemon_set,
    "Namespace": _namespace,
}

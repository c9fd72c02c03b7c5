"""What the API server fills in where the user said nothing (Kubernetes API reference). Pure.

Each function returns a new object and leaves the given one alone. It expects an object whose shape
has been checked (maps where maps belong).
"""

from collections.abc import Callable, Mapping
from typing import Any

Object = dict[str, Any]

CLIENT_IP_TIMEOUT = 10_800
GRACE_PERIOD = 30
LOST_NODE_SECONDS = 300
"""So long a pod stays bound to a node that is lost, unless it says otherwise."""
NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
MIRROR = "kubernetes.io/config.mirror"
"""The annotation of pods that a kubelet shows the API: they are there already."""


def apply(kind: str, obj: Object) -> Object:
    """Return the object with the defaults of its kind; a kind without defaults unchanged."""
    default = _DEFAULTS.get(kind)
    return default(obj) if default else obj


def _filled(defaults: Object, given: Object, nothing: tuple[str | int, ...] = ("",)) -> Object:
    """Return what is given and, where it says nothing, defaults.

    Programs in Go write an empty text where they say nothing; in some places 0.
    """
    said = {
        name: value
        for name, value in given.items()
        if name not in defaults or value not in nothing
    }
    return {**defaults, **said}


def _service(obj: Object) -> Object:
    spec = _filled({"type": "ClusterIP", "sessionAffinity": "None"}, obj.get("spec") or {})
    if spec.get("ports"):
        spec["ports"] = [_service_port(port) for port in spec["ports"]]
    if spec["sessionAffinity"] == "ClientIP" and not spec.get("sessionAffinityConfig"):
        spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": CLIENT_IP_TIMEOUT}}
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec["type"] in ("NodePort", "LoadBalancer"):
        spec = _filled({"externalTrafficPolicy": "Cluster"}, spec)
    return {**obj, "spec": spec}


def _service_port(port: Object) -> Object:
    port = _filled({"protocol": "TCP"}, port)
    if port.get("targetPort") in (None, "", 0):
        port["targetPort"] = port.get("port")
    return port


def _endpoint_slice(obj: Object) -> Object:
    if not obj.get("ports"):
        return obj
    return {**obj, "ports": [{"name": "", "protocol": "TCP", **port} for port in obj["ports"]]}


def _endpoints(obj: Object) -> Object:
    if not obj.get("subsets"):
        return obj
    return {**obj, "subsets": [_subset(one) for one in obj["subsets"]]}


def _subset(subset: Object) -> Object:
    if not subset.get("ports"):
        return subset
    return {**subset, "ports": [_filled({"protocol": "TCP"}, port) for port in subset["ports"]]}


def _pod_spec(spec: Object) -> Object:
    defaults = {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": GRACE_PERIOD,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
    }
    spec = _filled(defaults, spec)
    spec["containers"] = [_container(container) for container in spec.get("containers") or ()]
    if spec.get("initContainers"):
        spec["initContainers"] = [_container(container) for container in spec["initContainers"]]
    return spec


def _container(container: Object) -> Object:
    defaults = {
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": _pull_policy(container.get("image") or ""),
    }
    container = _filled(defaults, container)
    if container.get("ports"):
        container["ports"] = [_filled({"protocol": "TCP"}, port) for port in container["ports"]]
    for name in ("readinessProbe", "livenessProbe", "startupProbe"):
        if container.get(name):
            container[name] = _probe(container[name])
    if container.get("env"):
        container["env"] = [_variable(variable) for variable in container["env"]]
    return container


def _pull_policy(image: str) -> str:
    """Return when an image is fetched: always, where the name may mean another one tomorrow."""
    name = image.rpartition("/")[2]
    tag = name.partition(":")[2]
    return "IfNotPresent" if "@" in name or tag not in ("", "latest") else "Always"


def _probe(probe: Object) -> Object:
    defaults = {
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    probe = _filled(defaults, probe, nothing=("", 0))
    if probe.get("httpGet"):
        probe["httpGet"] = _filled({"path": "/", "scheme": "HTTP"}, probe["httpGet"])
    return probe


def _variable(variable: Object) -> Object:
    source = variable.get("valueFrom") or {}
    if not isinstance(source.get("fieldRef"), dict):
        return variable
    ref = _filled({"apiVersion": "v1"}, source["fieldRef"])
    return {**variable, "valueFrom": {**source, "fieldRef": ref}}


def _pod(obj: Object) -> Object:
    spec = _pod_spec(obj.get("spec") or {})
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if MIRROR not in (obj["metadata"].get("annotations") or {}):
        account = account or "default"
    if account:
        spec |= {"serviceAccountName": account, "serviceAccount": account}
    spec["tolerations"] = _tolerations(spec.get("tolerations") or [])
    return {**obj, "spec": spec}


def _tolerations(given: list[Object]) -> list[Object]:
    """Return tolerations with those that let a pod stay for a while on a node that is lost."""
    result = list(given)
    for key in (NOT_READY, UNREACHABLE):
        if not any(_tolerates(one, key) for one in given):
            result.append(
                {
                    "key": key,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": LOST_NODE_SECONDS,
                }
            )
    return result


def _tolerates(toleration: Object, key: str) -> bool:
    if toleration.get("effect") not in (None, "", "NoExecute"):
        return False
    everything = not toleration.get("key") and toleration.get("operator") == "Exists"
    return everything or toleration.get("key") == key


def _template(spec: Object) -> Object:
    template = spec.get("template") or {}
    return {**template, "spec": _pod_spec(template.get("spec") or {})}


def _deployment(obj: Object) -> Object:
    spec = {
        "replicas": 1,
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
        **(obj.get("spec") or {}),
    }
    spec["template"] = _template(spec)
    limits = {"maxUnavailable": "25%", "maxSurge": "25%"}
    spec["strategy"] = _strategy(spec.get("strategy"), limits)
    return {**obj, "spec": spec}


def _replica_set(obj: Object) -> Object:
    spec = {"replicas": 1, **(obj.get("spec") or {})}
    spec["template"] = _template(spec)
    return {**obj, "spec": spec}


def _stateful_set(obj: Object) -> Object:
    defaults = {
        "replicas": 1,
        "podManagementPolicy": "OrderedReady",
        "revisionHistoryLimit": 10,
    }
    spec = _filled(defaults, obj.get("spec") or {})
    spec["template"] = _template(spec)
    spec["updateStrategy"] = _strategy(spec.get("updateStrategy"), {"partition": 0})
    return {**obj, "spec": spec}


def _daemon_set(obj: Object) -> Object:
    spec = {"revisionHistoryLimit": 10, **(obj.get("spec") or {})}
    spec["template"] = _template(spec)
    spec["updateStrategy"] = _strategy(
        spec.get("updateStrategy"), {"maxUnavailable": 1, "maxSurge": 0}
    )
    return {**obj, "spec": spec}


def _strategy(strategy: Object | None, limits: Mapping[str, Any]) -> Object:
    strategy = _filled({"type": "RollingUpdate"}, strategy or {})
    if strategy["type"] == "RollingUpdate":
        strategy["rollingUpdate"] = {**limits, **(strategy.get("rollingUpdate") or {})}
    return strategy


def _namespace(obj: Object) -> Object:
    meta = obj["metadata"]
    labels = {**(meta.get("labels") or {}), "kubernetes.io/metadata.name": meta.get("name", "")}
    return {**obj, "metadata": {**meta, "labels": labels}}


_DEFAULTS: Mapping[str, Callable[[Object], Object]] = {
    "Service": _service,
    "Endpoints": _endpoints,
    "EndpointSlice": _endpoint_slice,
    "Pod": _pod,
    "Deployment": _deployment,
    "DaemonSet": _daemon_set,
    "ReplicaSet": _replica_set,
    "StatefulSet": _stateful_set,
    "Namespace": _namespace,
    "Secret": lambda obj: _filled({"type": "Opaque"}, obj),
}

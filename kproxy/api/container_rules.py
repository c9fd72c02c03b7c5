"""What a container of a Pod, or of a template of pods, must fulfil."""

import re
from collections.abc import Collection
from decimal import Decimal

from . import checks
from .checks import Checker
from .pods import Container, ContainerPort, EnvVar, Handler, Probe, ResourceRequirements

PROBES = ("readinessProbe", "livenessProbe", "startupProbe")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef")
_FIELDS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
_KEYED_FIELD = re.compile(r"metadata\.(?:labels|annotations)\['[^']+'\]")
_RESOURCES = ("cpu", "memory", "ephemeral-storage")


def check_container(
    check: Checker, at: str, container: Container, volumes: Collection[str]
) -> None:
    """Check a container whose path is ``at``; ``volumes``: those that there are."""
    check.name(f"{at}.name", container.name)
    _ports(check, at, container.ports or [])
    if container.image_pull_policy:
        check.one_of(f"{at}.imagePullPolicy", container.image_pull_policy, PULL_POLICIES)
    if container.termination_message_policy:
        known = ("File", "FallbackToLogsOnError")
        check.one_of(f"{at}.terminationMessagePolicy", container.termination_message_policy, known)
    for index, variable in enumerate(container.env or ()):
        _variable(check, f"{at}.env[{index}]", variable)
    for index, source in enumerate(container.env_from or ()):
        if sum(source.get(name) is not None for name in ("configMapRef", "secretRef")) != 1:
            problem = "must specify one of: `configMapRef` or `secretRef`"
            check.fault(f"{at}.envFrom[{index}]", problem, "give one of them")
    if container.resources is not None:
        _resources(check, f"{at}.resources", container.resources)
    _mounts(check, f"{at}.volumeMounts", container, volumes)
    _probes_and_hooks(check, at, container)


def _probes_and_hooks(check: Checker, at: str, container: Container) -> None:
    probes = (container.readiness_probe, container.liveness_probe, container.startup_probe)
    for name, probe in zip(PROBES, probes, strict=True):
        if probe is not None:
            _probe(check, f"{at}.{name}", probe)
            _thresholds(check, f"{at}.{name}", name, probe)
    if container.lifecycle is not None:
        for name, hook in (
            ("postStart", container.lifecycle.post_start),
            ("preStop", container.lifecycle.pre_stop),
        ):
            if hook is not None:
                _action(check, f"{at}.lifecycle.{name}", hook)


def _ports(check: Checker, at: str, ports: list[ContainerPort]) -> None:
    for number, port in enumerate(ports):
        field = f"{at}.ports[{number}]"
        check.port(f"{field}.containerPort", port.container_port)
        check.one_of(f"{field}.protocol", port.protocol, checks.PROTOCOLS)
        if port.name:
            check.port_name(f"{field}.name", port.name)
        if port.host_port:
            check.port(f"{field}.hostPort", port.host_port)
    named = ((f"{at}.ports[{number}].name", port.name) for number, port in enumerate(ports))
    check.unique(((field, name) for field, name in named if name), "name")


def _variable(check: Checker, at: str, variable: EnvVar) -> None:
    if not variable.name:
        check.fault(f"{at}.name", "is missing", "add it")
    elif not _VARIABLE.fullmatch(variable.name):
        remedy = "use letters, digits, '_', '-' and '.'; begin with no digit"
        check.fault(f"{at}.name", f"{variable.name!r} is not a valid name", remedy)
    source = variable.value_from
    if source is None:
        return
    at = f"{at}.valueFrom"
    given = [name for name in _SOURCES if source.get(name) is not None]
    if len(given) != 1:
        check.fault(at, f"must specify one of: {', '.join(_SOURCES)}", "give one of them")
        return
    if variable.value:
        check.fault(at, "must not be specified when `value` is not empty", "remove one of them")
    (name,) = given
    ref = source[name] if isinstance(source[name], dict) else {}
    part = {"fieldRef": "fieldPath", "resourceFieldRef": "resource"}.get(name, "key")
    value = ref.get(part)
    if not isinstance(value, str) or not value:
        check.fault(f"{at}.{name}.{part}", "is missing", "add it")
    elif name == "fieldRef" and not _KEYED_FIELD.fullmatch(value):
        check.one_of(f"{at}.fieldRef.fieldPath", value, _FIELDS)


def _resources(check: Checker, at: str, wanted: ResourceRequirements) -> None:
    found: dict[str, dict[str, Decimal]] = {}
    for word, quantities in (("limits", wanted.limits), ("requests", wanted.requests)):
        found[word] = {}
        for name, value in (quantities or {}).items():
            field = f"{at}.{word}[{name}]"
            standard = name in _RESOURCES or name.startswith("hugepages-")
            if not standard and ("/" not in name or not checks.is_qualified(name)):
                problem = f"{name!r} must be a standard resource type or fully qualified"
                check.fault(field, problem, f"use {', '.join(_RESOURCES)}, or domain/name")
            amount = check.quantity(field, value)
            if amount is not None and amount < 0:
                problem = f"{value!r} must be greater than or equal to 0"
                check.fault(field, problem, "correct its value")
            elif amount is not None:
                found[word][name] = amount
    for name, amount in found["requests"].items():
        if amount > found["limits"].get(name, amount):
            limit = (wanted.limits or {})[name]
            problem = f"{name} must be less than or equal to the limit of {limit}"
            check.fault(f"{at}.requests[{name}]", problem, "ask for less, or raise the limit")


def _mounts(check: Checker, at: str, container: Container, volumes: Collection[str]) -> None:
    paths = []
    for index, mount in enumerate(container.volume_mounts or ()):
        name, path = (str(mount.get(word) or "") for word in ("name", "mountPath"))
        for word, value in (("name", name), ("mountPath", path)):
            if not value:
                check.fault(f"{at}[{index}].{word}", "is missing", "add it")
        if name and name not in volumes:
            problem, remedy = f"volume {name!r} not found", "list it under volumes"
            check.fault(f"{at}[{index}].name", problem, remedy)
        if path in paths:
            problem = f"{path!r} must be unique"
            check.fault(f"{at}[{index}].mountPath", problem, "mount one volume at a path")
        paths += [path] if path else []


def _thresholds(check: Checker, at: str, name: str, probe: Probe) -> None:
    """Check what Kubernetes demands of some kinds of probes only."""
    if name != "readinessProbe" and probe.success_threshold != 1:
        field = f"{at}.successThreshold"
        check.fault(field, "must be 1", "only readinessProbe may have another")
    grace = probe.termination_grace_period_seconds
    if grace is None:
        return
    field = f"{at}.terminationGracePeriodSeconds"
    if name == "readinessProbe":
        check.fault(field, "must not be set for readinessProbe", "remove it")
    elif grace < 1:
        check.fault(field, f"{grace} is too small", "use 1 or more")


def _probe(check: Checker, at: str, probe: Probe) -> None:
    _action(check, at, probe)
    for name, value, least in (
        ("initialDelaySeconds", probe.initial_delay_seconds, 0),
        ("timeoutSeconds", probe.timeout_seconds, 1),
        ("periodSeconds", probe.period_seconds, 1),
        ("successThreshold", probe.success_threshold, 1),
        ("failureThreshold", probe.failure_threshold, 1),
    ):
        if value < least:
            check.fault(f"{at}.{name}", f"{value} is too small", f"use {least} or more")


def _action(check: Checker, at: str, action: Probe | Handler) -> None:
    own = "grpc" if isinstance(action, Probe) else "sleep"
    given = (action.exec, action.http_get, action.tcp_socket, getattr(action, own))
    if sum(one is not None for one in given) != 1:
        remedy = f"give one of exec, httpGet, tcpSocket and {own}"
        check.fault(at, "must name one handler", remedy)
    if isinstance(action, Probe) and action.grpc is not None:
        check.port_or_name(f"{at}.grpc.port", action.grpc.port)
    if action.exec is not None and not action.exec.command:
        check.fault(f"{at}.exec.command", "is missing", "give the command")
    for name, target in (("httpGet", action.http_get), ("tcpSocket", action.tcp_socket)):
        if target is not None:
            check.port_or_name(f"{at}.{name}.port", target.port)

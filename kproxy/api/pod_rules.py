"""What the ``spec`` of a Pod, or of a template of pods, must fulfil."""

from . import checks
from .checks import Checker
from .pods import Container, Handler, PodSpec, Probe

RESTART_POLICIES = ("Always", "OnFailure", "Never")
PROBES = ("readinessProbe", "livenessProbe", "startupProbe")


def check_pod_spec(check: Checker, at: str, spec: PodSpec) -> None:
    """Check a pod's ``spec``, whose path is ``at``."""
    if not spec.containers:
        check.fault(f"{at}.containers", "is missing", "list at least one container")
    names = []
    for field, containers in (
        ("containers", spec.containers),
        ("initContainers", spec.init_containers or []),
    ):
        for index, container in enumerate(containers):
            place = f"{at}.{field}[{index}]"
            _container(check, place, container)
            if container.restart_policy is not None:
                check.fault(
                    f"{place}.restartPolicy",
                    "restart policies of single containers (sidecars) are not supported",
                    "list the container under containers",
                )
            names.append((f"{place}.name", container.name))
    check.unique(names, "name")
    check.one_of(f"{at}.restartPolicy", spec.restart_policy, RESTART_POLICIES)
    check.labels(f"{at}.nodeSelector", spec.node_selector)
    grace = spec.termination_grace_period_seconds
    if grace is not None and grace < 0:
        field = f"{at}.terminationGracePeriodSeconds"
        check.fault(field, f"{grace} is negative", "use 0 or more seconds")


def _container(check: Checker, at: str, container: Container) -> None:
    check.name(f"{at}.name", container.name)
    for number, port in enumerate(container.ports or ()):
        field = f"{at}.ports[{number}]"
        check.port(f"{field}.containerPort", port.container_port)
        check.one_of(f"{field}.protocol", port.protocol, checks.PROTOCOLS)
        if port.name:
            check.port_name(f"{field}.name", port.name)
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

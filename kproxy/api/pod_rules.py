"""What the ``spec`` of a Pod, or of a template of pods, must fulfil."""

from collections.abc import Collection, Sequence

from . import checks
from .checks import Checker
from .container_rules import check_container
from .pods import Container, PodDNSConfig, PodSpec, Toleration

RESTART_POLICIES = ("Always", "OnFailure", "Never")
DNS_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
"""Of taints, and of what tolerates them."""
MOST_NAMESERVERS = 3
MOST_SEARCHES = 32


def check_pod_spec(check: Checker, at: str, spec: PodSpec, claims: Collection[str] = ()) -> None:
    """Check a pod's ``spec``, whose path is ``at``; ``claims``: further volumes of its pods."""
    if not spec.containers:
        check.fault(f"{at}.containers", "is missing", "list at least one container")
    volumes = {*_volumes(check, f"{at}.volumes", spec), *claims}
    names = []
    for field, containers in (
        ("containers", spec.containers),
        ("initContainers", spec.init_containers or []),
    ):
        for index, container in enumerate(containers):
            place = f"{at}.{field}[{index}]"
            check_container(check, place, container, volumes)
            names.append((f"{place}.name", container.name))
            if field == "initContainers":
                _init_container(check, place, container)
            _restart_policy(check, place, container)
    check.unique(names, "name")
    check.one_of(f"{at}.restartPolicy", spec.restart_policy, RESTART_POLICIES)
    check.labels(f"{at}.nodeSelector", spec.node_selector)
    _host_ports(check, at, spec)
    _names(check, at, spec)
    _tolerations(check, f"{at}.tolerations", spec.tolerations or ())
    grace = spec.termination_grace_period_seconds
    if grace is not None and grace < 0:
        field = f"{at}.terminationGracePeriodSeconds"
        check.fault(field, f"{grace} is negative", "use 0 or more seconds")
    deadline = spec.active_deadline_seconds
    if deadline is not None and deadline < 1:
        field = f"{at}.activeDeadlineSeconds"
        check.fault(field, f"{deadline} is too small", "use 1 or more seconds")


def _init_container(check: Checker, at: str, container: Container) -> None:
    """Check that an init container has nothing that waits for it or looks after it."""
    for field, value in (
        ("lifecycle", container.lifecycle),
        ("livenessProbe", container.liveness_probe),
        ("readinessProbe", container.readiness_probe),
        ("startupProbe", container.startup_probe),
    ):
        if value is not None and container.restart_policy is None:
            problem = "may not be set for init containers without restartPolicy=Always"
            check.fault(f"{at}.{field}", problem, "remove it")


def _restart_policy(check: Checker, at: str, container: Container) -> None:
    if container.restart_policy is not None:
        check.fault(
            f"{at}.restartPolicy",
            "restart policies of single containers (sidecars) are not supported",
            "list the container under containers",
        )


def _volumes(check: Checker, at: str, spec: PodSpec) -> list[str]:
    """Check volumes; return their names."""
    names = []
    for index, volume in enumerate(spec.volumes or ()):
        name = str(volume.get("name") or "")
        check.name(f"{at}[{index}].name", name)
        names.append(name)
        sources = [key for key, value in volume.items() if key != "name" and value is not None]
        if len(sources) > 1:
            problem = "may not specify more than 1 volume type"
            check.fault(f"{at}[{index}].{sources[1]}", problem, "give one of them")
    check.unique(((f"{at}[{index}].name", name) for index, name in enumerate(names)), "name")
    return names


def _host_ports(check: Checker, at: str, spec: PodSpec) -> None:
    wanted = []
    for index, container in enumerate(spec.containers):
        for number, port in enumerate(container.ports or ()):
            if not port.host_port:
                continue
            field = f"{at}.containers[{index}].ports[{number}]"
            wanted.append((f"{field}.hostPort", (port.host_port, port.protocol, port.host_ip)))
            if spec.host_network and port.host_port != port.container_port:
                problem = "must match `hostPort` when `hostNetwork` is true"
                check.fault(f"{field}.containerPort", problem, "make both the same")
    check.unique(wanted, "host port")


def _names(check: Checker, at: str, spec: PodSpec) -> None:
    """Check what a pod is called, and what it asks for names."""
    for field, name in (("hostname", spec.hostname), ("subdomain", spec.subdomain)):
        if name:
            check.name(f"{at}.{field}", name)
    for field, name in (
        ("nodeName", spec.node_name),
        ("serviceAccountName", spec.service_account_name),
    ):
        if name:
            check.name(f"{at}.{field}", name, checks.DNS_SUBDOMAIN, 253)
    if spec.dns_policy:
        check.one_of(f"{at}.dnsPolicy", spec.dns_policy, DNS_POLICIES)
    config = spec.dns_config or PodDNSConfig()
    servers, searches = config.nameservers or [], config.searches or []
    at = f"{at}.dnsConfig"
    if spec.dns_policy == "None" and not servers:
        check.fault(f"{at}.nameservers", "is missing", "dnsPolicy None needs at least one")
    if len(servers) > MOST_NAMESERVERS:
        problem = f"must not have more than {MOST_NAMESERVERS} nameservers"
        check.fault(f"{at}.nameservers", problem, "keep the first")
    for index, text in enumerate(servers):
        check.address(f"{at}.nameservers[{index}]", text)
    if len(searches) > MOST_SEARCHES:
        problem = f"must not have more than {MOST_SEARCHES} search paths"
        check.fault(f"{at}.searches", problem, "keep the first")


def _tolerations(check: Checker, at: str, tolerations: Sequence[Toleration]) -> None:
    for index, one in enumerate(tolerations):
        place = f"{at}[{index}]"
        if one.key:
            check.qualified(f"{place}.key", one.key, "a taint's key")
        elif one.operator != "Exists":
            problem = "must be Exists when `key` is empty"
            check.fault(f"{place}.operator", problem, "name a key, or set operator: Exists")
        if one.operator:
            check.one_of(f"{place}.operator", one.operator, ("Equal", "Exists"))
        if one.operator == "Exists" and one.value:
            problem = "must be empty when `operator` is 'Exists'"
            check.fault(f"{place}.value", problem, "remove it")
        if one.effect:
            check.one_of(f"{place}.effect", one.effect, EFFECTS)
        if one.toleration_seconds is not None and one.effect != "NoExecute":
            problem = "must be 'NoExecute' when `tolerationSeconds` is set"
            check.fault(f"{place}.effect", problem, "set it, or remove tolerationSeconds")

"""What Pods, Nodes, label selectors, and the objects that make pods must fulfil."""

from collections.abc import Mapping, Sequence
from typing import Any

from .apps import DaemonSet, Deployment, ReplicaSet, StatefulSet, UpdateStrategy
from .checks import LABEL_VALUE, Checker
from .core import Node, Taint
from .meta import OPERATORS, LabelSelector, selects
from .pod_rules import EFFECTS, check_pod_spec
from .pods import Pod, PodTemplate

WHEN_UPDATED = ("RollingUpdate", "OnDelete")
"""Update strategies of DaemonSets and StatefulSets."""


def check_pod(check: Checker, pod: Pod) -> None:
    """Check a Pod."""
    check_pod_spec(check, "spec", pod.spec)
    check_pod_status(check, pod)


def check_pod_status(check: Checker, pod: Pod) -> None:
    """Check ``status`` of a Pod."""
    if pod.status is not None and pod.status.pod_ip:
        check.address("status.podIP", pod.status.pod_ip)


def check_deployment(check: Checker, deployment: Deployment) -> None:
    """Check ``spec`` of a Deployment."""
    spec = deployment.spec
    _natural(check, "spec.replicas", spec.replicas)
    _natural(check, "spec.minReadySeconds", spec.min_ready_seconds)
    _natural(check, "spec.revisionHistoryLimit", spec.revision_history_limit)
    deadline = spec.progress_deadline_seconds
    _natural(check, "spec.progressDeadlineSeconds", deadline)
    if deadline is not None and 0 <= deadline <= spec.min_ready_seconds:
        problem, remedy = "must be greater than minReadySeconds", "make it longer"
        check.fault("spec.progressDeadlineSeconds", problem, remedy)
    _template(check, spec.selector, spec.template)
    _strategy(check, "spec.strategy", spec.strategy, ("RollingUpdate", "Recreate"))


def check_daemon_set(check: Checker, daemon_set: DaemonSet) -> None:
    """Check ``spec`` of a DaemonSet."""
    spec = daemon_set.spec
    _natural(check, "spec.minReadySeconds", spec.min_ready_seconds)
    _natural(check, "spec.revisionHistoryLimit", spec.revision_history_limit)
    _template(check, spec.selector, spec.template)
    _strategy(check, "spec.updateStrategy", spec.update_strategy, WHEN_UPDATED)
    limits = spec.update_strategy.rolling_update
    if limits is not None and not {limits.max_surge, limits.max_unavailable} & {0, "0%", None}:
        field = "spec.updateStrategy.rollingUpdate.maxSurge"
        problem = "may not be set when maxUnavailable is non-zero"
        check.fault(field, problem, "set one of them to 0")


def check_replica_set(check: Checker, replica_set: ReplicaSet) -> None:
    """Check ``spec`` of a ReplicaSet."""
    spec = replica_set.spec
    _natural(check, "spec.replicas", spec.replicas)
    _natural(check, "spec.minReadySeconds", spec.min_ready_seconds)
    _template(check, spec.selector, spec.template)


def check_stateful_set(check: Checker, stateful_set: StatefulSet) -> None:
    """Check ``spec`` of a StatefulSet."""
    spec = stateful_set.spec
    _natural(check, "spec.replicas", spec.replicas)
    _natural(check, "spec.minReadySeconds", spec.min_ready_seconds)
    _natural(check, "spec.revisionHistoryLimit", spec.revision_history_limit)
    if spec.ordinals is not None:
        _natural(check, "spec.ordinals.start", spec.ordinals.start)
    claims = _claims(check, spec.volume_claim_templates or [])
    _template(check, spec.selector, spec.template, claims)
    policies = ("OrderedReady", "Parallel")
    check.one_of("spec.podManagementPolicy", spec.pod_management_policy, policies)
    check.one_of("spec.updateStrategy.type", spec.update_strategy.type, WHEN_UPDATED)
    limits = spec.update_strategy.rolling_update
    if limits is not None and spec.update_strategy.type == "OnDelete":
        problem = "only allowed for updateStrategy 'RollingUpdate'"
        check.fault("spec.updateStrategy.rollingUpdate", problem, "remove it")
    elif limits is not None:
        _natural(check, "spec.updateStrategy.rollingUpdate.partition", limits.partition)


def _claims(check: Checker, templates: Sequence[Mapping[str, Any]]) -> list[str]:
    """Check templates of claims; return their names."""
    names = []
    for index, claim in enumerate(templates):
        meta = claim.get("metadata")
        name = meta.get("name") if isinstance(meta, dict) else None
        names.append(name if isinstance(name, str) else "")
        check.name(f"spec.volumeClaimTemplates[{index}].metadata.name", names[-1])
    return names


def check_node(check: Checker, node: Node) -> None:
    """Check a Node."""
    spec = node.spec
    if spec.pod_cidr:
        check.network("spec.podCIDR", spec.pod_cidr)
    listed = spec.pod_cidrs or []
    for index, text in enumerate(listed):
        check.network(f"spec.podCIDRs[{index}]", text)
    if listed and spec.pod_cidr and listed[0] != spec.pod_cidr:
        check.fault("spec.podCIDRs[0]", "does not match spec.podCIDR", "make both the same")
    _taints(check, spec.taints or ())
    check_node_status(check, node)


def check_node_status(check: Checker, node: Node) -> None:
    """Check ``status`` of a Node."""
    for index, address in enumerate((node.status.addresses if node.status else None) or ()):
        if address.type in ("InternalIP", "ExternalIP"):
            check.address(f"status.addresses[{index}].address", address.address)


def _taints(check: Checker, taints: Sequence[Taint]) -> None:
    for index, one in enumerate(taints):
        at = f"spec.taints[{index}]"
        check.qualified(f"{at}.key", one.key, "a taint's key")
        if not one.effect:
            check.fault(f"{at}.effect", "is missing", f"use one of {', '.join(EFFECTS)}")
        else:
            check.one_of(f"{at}.effect", one.effect, EFFECTS)
        if len(one.value) > 63 or not LABEL_VALUE.fullmatch(one.value):
            remedy = "use up to 63 letters, digits, '-', '_' and '.'"
            check.fault(f"{at}.value", f"{one.value!r} is not a taint's value", remedy)
    keys = ((f"spec.taints[{index}]", (one.key, one.effect)) for index, one in enumerate(taints))
    check.unique(keys, "key and effect")


def check_selector(check: Checker, at: str, selector: LabelSelector) -> None:
    """Check a label selector, whose path is ``at``."""
    check.labels(f"{at}.matchLabels", selector.match_labels)
    for index, rule in enumerate(selector.match_expressions or ()):
        place = f"{at}.matchExpressions[{index}]"
        operator, values = str(rule.get("operator", "")), rule.get("values") or []
        if not isinstance(rule.get("key"), str) or not rule["key"]:
            check.fault(f"{place}.key", "is missing", "name a label")
        if not check.one_of(f"{place}.operator", operator, OPERATORS):
            continue
        if operator in ("In", "NotIn") and not values:
            problem = "must be specified when `operator` is 'In' or 'NotIn'"
            check.fault(f"{place}.values", problem, "list at least one value")
        elif not isinstance(values, list) or not all(isinstance(one, str) for one in values):
            check.fault(f"{place}.values", "is no list of texts", "list values of the label")
        elif operator not in ("In", "NotIn") and values:
            problem = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            check.fault(f"{place}.values", problem, "remove them")


def _natural(check: Checker, field: str, value: int | None) -> None:
    if value is not None and value < 0:
        check.fault(field, f"{value} is negative", "use 0 or more")


def _template(
    check: Checker, selector: LabelSelector, template: PodTemplate, claims: Sequence[str] = ()
) -> None:
    check_selector(check, "spec.selector", selector)
    if not selector.match_labels and not selector.match_expressions:
        check.fault("spec.selector", "is missing", "set matchLabels")
    elif not selects(selector, template.metadata.labels):
        problem = "selector does not match template labels"
        check.fault("spec.template.metadata.labels", problem, "make it match spec.selector")
    check.labels("spec.template.metadata.labels", template.metadata.labels)
    check.annotations("spec.template.metadata.annotations", template.metadata.annotations)
    check_pod_spec(check, "spec.template.spec", template.spec, claims)
    if template.spec.restart_policy != "Always":
        field = "spec.template.spec.restartPolicy"
        problem = f"unsupported value {template.spec.restart_policy!r}"
        check.fault(field, problem, "use Always: controllers replace pods, pods do not end")


def _strategy(check: Checker, at: str, strategy: UpdateStrategy, known: tuple[str, ...]) -> None:
    if not check.one_of(f"{at}.type", strategy.type, known) or strategy.rolling_update is None:
        return
    if strategy.type == "Recreate":
        problem = "may not be specified when strategy `type` is 'Recreate'"
        check.fault(f"{at}.rollingUpdate", problem, "remove it (a patch: set it to null)")
        return
    limits = {
        "maxUnavailable": strategy.rolling_update.max_unavailable,
        "maxSurge": strategy.rolling_update.max_surge,
    }
    for name, value in limits.items():
        if value is None:
            continue
        digits = value.removesuffix("%") if isinstance(value, str) else ""
        percent = isinstance(value, str) and value.endswith("%") and digits.isdecimal()
        if not percent and not (isinstance(value, int) and value >= 0):
            remedy = "use a number of pods, or a percentage such as 25%"
            check.fault(f"{at}.rollingUpdate.{name}", f"{value!r} is not valid", remedy)
        elif name == "maxUnavailable" and percent and int(digits) > 100:
            field = f"{at}.rollingUpdate.{name}"
            check.fault(field, "must not be greater than 100%", "use 100% or less")
    if all(value in (0, "0%") for value in limits.values()):
        problem = "may not be 0 when maxSurge is 0"
        check.fault(f"{at}.rollingUpdate.maxUnavailable", problem, "set one of them to 1 or more")

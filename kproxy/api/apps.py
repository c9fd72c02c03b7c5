"""Objects of ``apps/v1``: DaemonSet, Deployment, ReplicaSet, StatefulSet, ControllerRevision."""

from typing import Any

from .core import Condition
from .meta import LabelSelector, Object, ObjectMeta
from .pods import PodTemplate


class RollingUpdate(Object, frozen=True, kw_only=True, rename="camel"):
    """Limits of a rolling update: numbers, or percentages as text (``"25%"``)."""

    max_unavailable: int | str | None = None
    max_surge: int | str | None = None
    partition: int | None = None
    """Of a StatefulSet: ordinals below it keep the old revision."""


class UpdateStrategy(Object, frozen=True, kw_only=True, rename="camel"):
    """How pods are replaced when the template changes."""

    type: str = "RollingUpdate"
    rolling_update: RollingUpdate | None = None


class DaemonSetSpec(Object, frozen=True, kw_only=True, rename="camel"):
    """What a user wants of a DaemonSet."""

    selector: LabelSelector = LabelSelector()
    template: PodTemplate = PodTemplate()
    update_strategy: UpdateStrategy = UpdateStrategy()
    min_ready_seconds: int = 0
    revision_history_limit: int | None = None


class DaemonSetStatus(Object, frozen=True, kw_only=True, rename="camel"):
    """What the controller reports of a DaemonSet."""

    observed_generation: int = 0
    desired_number_scheduled: int = 0
    current_number_scheduled: int = 0
    updated_number_scheduled: int = 0
    number_ready: int = 0
    number_available: int = 0
    number_unavailable: int = 0
    number_misscheduled: int = 0
    last_pod_number: int = 0
    """Highest number that a pod's name has had (ours): names are not used again."""


class DaemonSet(Object, frozen=True, kw_only=True, rename="camel"):
    """One pod on every node."""

    metadata: ObjectMeta
    spec: DaemonSetSpec = DaemonSetSpec()
    status: DaemonSetStatus | None = None


class DeploymentSpec(Object, frozen=True, kw_only=True, rename="camel"):
    """What a user wants of a Deployment."""

    replicas: int = 1
    selector: LabelSelector = LabelSelector()
    template: PodTemplate = PodTemplate()
    strategy: UpdateStrategy = UpdateStrategy()
    min_ready_seconds: int = 0
    revision_history_limit: int | None = None
    paused: bool = False
    progress_deadline_seconds: int | None = None


class DeploymentStatus(Object, frozen=True, kw_only=True, rename="camel"):
    """What the controller reports of a Deployment."""

    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    unavailable_replicas: int = 0
    conditions: list[Condition] | None = None


class Deployment(Object, frozen=True, kw_only=True, rename="camel"):
    """A number of like pods."""

    metadata: ObjectMeta
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus | None = None


class ReplicaSetSpec(Object, frozen=True, kw_only=True, rename="camel"):
    """What a user, or a Deployment, wants of a ReplicaSet."""

    replicas: int = 1
    min_ready_seconds: int = 0
    selector: LabelSelector = LabelSelector()
    template: PodTemplate = PodTemplate()


class ReplicaSetStatus(Object, frozen=True, kw_only=True, rename="camel"):
    """What the controller reports of a ReplicaSet."""

    observed_generation: int = 0
    replicas: int = 0
    fully_labeled_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    last_pod_number: int = 0
    """Highest number that a pod's name has had (ours): names are not used again."""


class ReplicaSet(Object, frozen=True, kw_only=True, rename="camel"):
    """A number of pods of one template; usually one revision of a Deployment."""

    metadata: ObjectMeta
    spec: ReplicaSetSpec = ReplicaSetSpec()
    status: ReplicaSetStatus | None = None


class StatefulSetOrdinals(Object, frozen=True, kw_only=True, rename="camel"):
    """How the pods of a StatefulSet are numbered."""

    start: int = 0
    """The lowest ordinal."""


class StatefulSetSpec(Object, frozen=True, kw_only=True, rename="camel"):
    """What a user wants of a StatefulSet."""

    replicas: int = 1
    service_name: str = ""
    pod_management_policy: str = "OrderedReady"
    ordinals: StatefulSetOrdinals | None = None
    volume_claim_templates: list[dict[str, Any]] | None = None
    """Their pods name the claims; there are no volumes behind them."""
    min_ready_seconds: int = 0
    revision_history_limit: int | None = None
    selector: LabelSelector = LabelSelector()
    template: PodTemplate = PodTemplate()
    update_strategy: UpdateStrategy = UpdateStrategy()


class StatefulSetStatus(Object, frozen=True, kw_only=True, rename="camel"):
    """What the controller reports of a StatefulSet."""

    observed_generation: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    current_replicas: int = 0
    updated_replicas: int = 0
    current_revision: str = ""
    update_revision: str = ""


class StatefulSet(Object, frozen=True, kw_only=True, rename="camel"):
    """Pods with ordinals and names that stay."""

    metadata: ObjectMeta
    spec: StatefulSetSpec = StatefulSetSpec()
    status: StatefulSetStatus | None = None


class ControllerRevision(Object, frozen=True, kw_only=True, rename="camel"):
    """A template that a DaemonSet or StatefulSet once had, for ``kubectl rollout undo``."""

    metadata: ObjectMeta
    revision: int = 0
    data: dict[str, Any] | None = None

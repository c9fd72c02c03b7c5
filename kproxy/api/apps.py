"""Objects of ``apps/v1``: DaemonSet, Deployment."""

from .core import Condition, PodTemplate
from .meta import LabelSelector, Object, ObjectMeta


class RollingUpdate(Object, frozen=True, kw_only=True, rename="camel"):
    """Limits of a rolling update: numbers, or percentages as text (``"25%"``)."""

    max_unavailable: int | str | None = None
    max_surge: int | str | None = None


class UpdateStrategy(Object, frozen=True, kw_only=True, rename="camel"):
    """How pods are replaced when the template changes."""

    type: str = "RollingUpdate"
    rolling_update: RollingUpdate | None = None


class DaemonSetSpec(Object, frozen=True, kw_only=True, rename="camel"):
    """What a user wants of a DaemonSet."""

    selector: LabelSelector = LabelSelector()
    template: PodTemplate = PodTemplate()
    update_strategy: UpdateStrategy = UpdateStrategy()


class DaemonSetStatus(Object, frozen=True, kw_only=True, rename="camel"):
    """What the controller reports of a DaemonSet."""

    observed_generation: int = 0
    desired_number_scheduled: int = 0
    current_number_scheduled: int = 0
    updated_number_scheduled: int = 0
    number_ready: int = 0


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


class DeploymentStatus(Object, frozen=True, kw_only=True, rename="camel"):
    """What the controller reports of a Deployment."""

    observed_generation: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    conditions: list[Condition] | None = None


class Deployment(Object, frozen=True, kw_only=True, rename="camel"):
    """A number of like pods."""

    metadata: ObjectMeta
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus | None = None

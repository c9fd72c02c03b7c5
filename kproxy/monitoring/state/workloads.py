"""``kube_daemonset_*``, ``kube_deployment_*``, ``kube_statefulset_*``. Pure."""

from collections.abc import Iterator, Mapping

from kproxy.api.apps import (
    DaemonSet,
    DaemonSetStatus,
    Deployment,
    DeploymentStatus,
    StatefulSet,
    StatefulSetStatus,
)
from kproxy.api.meta import ObjectMeta

from .telling import Told, conditions, time

_GENERATION = "Version of what is wanted; the controller has seen it when it has observed it."
_OBSERVED = "The generation that the controller has seen."

DAEMON_SET_WORDS = {
    "kube_daemonset_created": "When it was created, in seconds since 1970.",
    "kube_daemonset_metadata_generation": _GENERATION,
    "kube_daemonset_status_observed_generation": _OBSERVED,
    "kube_daemonset_status_desired_number_scheduled": "Nodes that should run the pod.",
    "kube_daemonset_status_current_number_scheduled": "Such nodes that have one.",
    "kube_daemonset_status_updated_number_scheduled": "Such nodes that have the newest one.",
    "kube_daemonset_status_number_ready": "Such nodes whose pod is ready.",
    "kube_daemonset_status_number_available": "Such nodes whose pod has been ready long enough.",
    "kube_daemonset_status_number_unavailable": "Such nodes without an available pod.",
    "kube_daemonset_status_number_misscheduled": "Nodes that run the pod but should not.",
}

DEPLOYMENT_WORDS = {
    "kube_deployment_created": "When it was created, in seconds since 1970.",
    "kube_deployment_metadata_generation": _GENERATION,
    "kube_deployment_status_observed_generation": _OBSERVED,
    "kube_deployment_spec_replicas": "Pods that are wanted.",
    "kube_deployment_spec_paused": "Whether changes of its template are not acted on.",
    "kube_deployment_status_replicas": "Pods that there are.",
    "kube_deployment_status_replicas_ready": "Pods that are ready.",
    "kube_deployment_status_replicas_available": "Pods that have been ready long enough.",
    "kube_deployment_status_replicas_unavailable": "Pods that are missing.",
    "kube_deployment_status_replicas_updated": "Pods of the newest template.",
    "kube_deployment_status_condition": "A condition; of its three statuses one is 1.",
}

STATEFUL_SET_WORDS = {
    "kube_statefulset_created": "When it was created, in seconds since 1970.",
    "kube_statefulset_metadata_generation": _GENERATION,
    "kube_statefulset_status_observed_generation": _OBSERVED,
    "kube_statefulset_replicas": "Pods that are wanted.",
    "kube_statefulset_status_replicas": "Pods that there are.",
    "kube_statefulset_status_replicas_ready": "Pods that are ready.",
    "kube_statefulset_status_replicas_available": "Pods that have been ready long enough.",
    "kube_statefulset_status_replicas_updated": "Pods of the newest template.",
}


def tell_daemon_set(one: DaemonSet) -> Iterator[Told]:
    """Yield what is told of a DaemonSet."""
    meta, status = one.metadata, one.status or DaemonSetStatus()
    labels = {"namespace": meta.namespace, "daemonset": meta.name}
    yield from time("kube_daemonset_created", labels, meta.creation_timestamp)
    yield Told("kube_daemonset_metadata_generation", labels, meta.generation)
    for name, value in (
        ("observed_generation", status.observed_generation),
        ("desired_number_scheduled", status.desired_number_scheduled),
        ("current_number_scheduled", status.current_number_scheduled),
        ("updated_number_scheduled", status.updated_number_scheduled),
        ("number_ready", status.number_ready),
        ("number_available", status.number_available),
        ("number_unavailable", status.number_unavailable),
        ("number_misscheduled", status.number_misscheduled),
    ):
        yield Told(f"kube_daemonset_status_{name}", labels, value)


def tell_deployment(one: Deployment) -> Iterator[Told]:
    """Yield what is told of a Deployment."""
    meta, status = one.metadata, one.status or DeploymentStatus()
    labels = {"namespace": meta.namespace, "deployment": meta.name}
    yield from _scaled("kube_deployment", labels, meta, status)
    yield Told("kube_deployment_spec_replicas", labels, one.spec.replicas)
    yield Told("kube_deployment_spec_paused", labels, one.spec.paused)
    missing = status.unavailable_replicas
    yield Told("kube_deployment_status_replicas_unavailable", labels, missing)
    for condition in status.conditions or ():
        yield from conditions(
            "kube_deployment_status_condition", labels, condition.type, condition.status
        )


def tell_stateful_set(one: StatefulSet) -> Iterator[Told]:
    """Yield what is told of a StatefulSet."""
    meta, status = one.metadata, one.status or StatefulSetStatus()
    labels = {"namespace": meta.namespace, "statefulset": meta.name}
    yield from _scaled("kube_statefulset", labels, meta, status)
    yield Told("kube_statefulset_replicas", labels, one.spec.replicas)


def _scaled(
    kind: str,
    labels: Mapping[str, str],
    meta: ObjectMeta,
    status: DeploymentStatus | StatefulSetStatus,
) -> Iterator[Told]:
    """Yield what is told of both kinds that keep a number of pods."""
    yield from time(f"{kind}_created", labels, meta.creation_timestamp)
    for name, value in (
        ("metadata_generation", meta.generation),
        ("status_observed_generation", status.observed_generation),
        ("status_replicas", status.replicas),
        ("status_replicas_ready", status.ready_replicas),
        ("status_replicas_available", status.available_replicas),
        ("status_replicas_updated", status.updated_replicas),
    ):
        yield Told(f"{kind}_{name}", labels, value)

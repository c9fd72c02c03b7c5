"""``kube_pod_*``. Pure."""

from collections.abc import Iterator

from kproxy.api.pods import ContainerStatus, Pod, PodStatus

from .telling import Told, time

PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")

WORDS = {
    "kube_pod_info": "A pod, with its node and addresses.",
    "kube_pod_owner": "The object that a pod belongs to.",
    "kube_pod_created": "When a pod was created, in seconds since 1970.",
    "kube_pod_deletion_timestamp": "When a pod is to be gone, in seconds since 1970.",
    "kube_pod_status_phase": "The phase of a pod; one of all is 1.",
    "kube_pod_status_ready": "Whether a pod is ready; one of the three conditions is 1.",
    "kube_pod_container_status_restarts_total": "How often a container was started again.",
    "kube_pod_container_status_ready": "Whether a container is ready.",
    "kube_pod_container_status_running": "Whether a container is running.",
    "kube_pod_container_status_waiting_reason": "Why a container waits.",
    "kube_pod_container_status_last_terminated_reason": "Why a container ended last time.",
}


def tell(pod: Pod) -> Iterator[Told]:
    """Yield what is told of a pod."""
    meta, status = pod.metadata, pod.status or PodStatus()
    labels = {"namespace": meta.namespace, "pod": meta.name, "uid": meta.uid}
    owner = next((one for one in meta.owner_references or () if one.controller), None)
    info = {
        **labels,
        "host_ip": status.host_ip,
        "pod_ip": status.pod_ip,
        "node": pod.spec.node_name,
        "created_by_kind": owner.kind if owner else "",
        "created_by_name": owner.name if owner else "",
        "host_network": str(pod.spec.host_network).lower(),
    }
    yield Told("kube_pod_info", info, 1)
    for one in meta.owner_references or ():
        about = {"owner_kind": one.kind, "owner_name": one.name}
        controls = {"owner_is_controller": str(bool(one.controller)).lower()}
        yield Told("kube_pod_owner", {**labels, **about, **controls}, 1)
    yield from time("kube_pod_created", labels, meta.creation_timestamp)
    yield from time("kube_pod_deletion_timestamp", labels, meta.deletion_timestamp)
    for phase in PHASES:
        yield Told(
            "kube_pod_status_phase", {**labels, "phase": phase}, float(phase == status.phase)
        )
    ready = next((one.status for one in status.conditions or () if one.type == "Ready"), "")
    if ready:
        for condition in ("true", "false", "unknown"):
            told = {**labels, "condition": condition}
            yield Told("kube_pod_status_ready", told, float(ready.lower() == condition))
    for container in status.container_statuses or ():
        yield from _container({**labels, "container": container.name}, container)


def _container(labels: dict[str, str], one: ContainerStatus) -> Iterator[Told]:
    state, last = one.state or {}, one.last_state or {}
    for name, value in (
        ("restarts_total", one.restart_count),
        ("ready", one.ready),
        ("running", "running" in state),
    ):
        yield Told(f"kube_pod_container_status_{name}", labels, float(value))
    for name, found in (
        ("waiting_reason", state.get("waiting")),
        ("last_terminated_reason", last.get("terminated")),
    ):
        reason = str((found or {}).get("reason") or "")
        if reason:
            yield Told(f"kube_pod_container_status_{name}", {**labels, "reason": reason}, 1)

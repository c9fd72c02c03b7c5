"""What a kubelet reports of a pod: the ``status`` of the Pod object. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerState:
    """What is known of one container. Times are RFC 3339."""

    name: str
    image: str = ""
    running_since: str | None = None
    ready: bool = False
    restarts: int = 0
    exit_code: int | None = None
    """Of the last end; minus the signal's number if a signal ended it."""
    finished_at: str | None = None
    pid: int | None = None
    """Process id on the lab's machine, told as the container's id."""


def status(
    *,
    phase: str,
    containers: Sequence[ContainerState],
    addresses: Sequence[str],
    host_ip: str,
    started: str | None,
    reason: str = "",
    message: str = "",
    ready_since: str | None = None,
) -> Object:
    """Return the status; ``ready_since`` is when the Ready condition last changed."""
    ready = phase == "Running" and bool(containers) and all(state.ready for state in containers)
    result: Object = {
        "phase": phase,
        "conditions": [
            _condition("PodScheduled", True, started),
            _condition("Initialized", True, started),
            _condition("ContainersReady", ready, ready_since),
            _condition("Ready", ready, ready_since),
        ],
        "containerStatuses": [_container(state) for state in containers],
    }
    if reason:
        result["reason"] = reason
    if message:
        result["message"] = message
    if host_ip:
        result["hostIP"] = host_ip
        result["hostIPs"] = [{"ip": host_ip}]
    if addresses:
        result["podIP"] = addresses[0]
        result["podIPs"] = [{"ip": address} for address in addresses]
    if started:
        result["startTime"] = started
    return result


def _condition(name: str, value: bool, since: str | None) -> Object:
    return {
        "type": name,
        "status": "True" if value else "False",
        **({"lastTransitionTime": since} if since else {}),
    }


def _container(state: ContainerState) -> Object:
    result: Object = {
        "name": state.name,
        "image": state.image,
        "imageID": "",
        "ready": state.ready,
        "started": state.running_since is not None,
        "restartCount": state.restarts,
    }
    if state.pid is not None:
        result["containerID"] = f"process://{state.pid}"
    ended: Object | None = None
    if state.finished_at is not None:
        ended = {"exitCode": _exit_code(state.exit_code), "finishedAt": state.finished_at}
        if state.exit_code is not None and state.exit_code < 0:
            ended["signal"] = -state.exit_code
    if state.running_since is not None:
        result["state"] = {"running": {"startedAt": state.running_since}}
    elif ended is not None:
        result["state"] = {"waiting": {"reason": "CrashLoopBackOff"}}
    else:
        result["state"] = {"waiting": {"reason": "ContainerCreating"}}
    if ended is not None:
        result["lastState"] = {"terminated": ended}
    return result


def _exit_code(code: int | None) -> int:
    """Return an exit code as shells and Kubernetes tell it: 128 + signal; unknown is 255."""
    if code is None:
        return 255
    return code if code >= 0 else 128 - code

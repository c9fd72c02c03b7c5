"""What a kubelet reports of a pod: the ``status`` of the Pod object, as kubectl shows it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kproxy.api.core import Condition

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminated:
    """How a container ended. Times are RFC 3339."""

    code: int | None
    """Exit code, or minus the signal that ended it; None: unknown, nobody was there to see."""
    reason: str = ""
    """Empty: Completed or Error, by the code."""
    message: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    id: str = ""

    @property
    def exit_code(self) -> int:
        """Return it as shells and Kubernetes tell it: 128 + signal; unknown is 137."""
        if self.code is None:
            return 137
        return self.code if self.code >= 0 else 128 - self.code

    def told(self) -> Object:
        """Return it as Kubernetes writes it."""
        unknown = "ContainerStatusUnknown" if self.code is None else "Error"
        result: Object = {
            "exitCode": self.exit_code,
            "reason": self.reason or ("Completed" if self.code == 0 else unknown),
        }
        if self.code is not None and self.code < 0:
            result["signal"] = -self.code
        for name, value in (
            ("message", self.message),
            ("startedAt", self.started_at),
            ("finishedAt", self.finished_at),
            ("containerID", self.id),
        ):
            if value:
                result[name] = value
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerState:
    """What is known of one container: running, ended, or waiting, in this order."""

    name: str
    image: str = ""
    id: str = ""
    running_since: str | None = None
    terminated: Terminated | None = None
    waiting: str = "ContainerCreating"
    message: str = ""
    """Why it waits, in words."""
    last: Terminated | None = None
    ready: bool = False
    started: bool = False
    restarts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that a pod's status is made of."""

    phase: str
    init: Sequence[ContainerState]
    containers: Sequence[ContainerState]
    addresses: Sequence[str]
    sandbox: bool = True
    """Whether there is one (still)."""
    host_ips: Sequence[str]
    started: str | None
    reason: str = ""
    message: str = ""


def phase(policy: str, init: Sequence[ContainerState], main: Sequence[ContainerState]) -> str:
    """Return a pod's phase (kubelet's getPhase; Kubernetes docs, "Pod phase")."""
    ends = [one.terminated or (one.last if one.running_since is None else None) for one in init]
    if policy == "Never" and any(end and end.exit_code for end in ends):
        return "Failed"
    if any(not (one.terminated and one.terminated.exit_code == 0) for one in init):
        return "Pending"
    running = sum(one.running_since is not None for one in main)
    stopped = [one.terminated or one.last for one in main if one.running_since is None]
    if not main or None in stopped:
        return "Pending"
    if running or policy == "Always":
        return "Running"
    if all(end is not None and end.exit_code == 0 for end in stopped):
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


class Conditions:
    """A pod's conditions, which remember since when they are as they are."""

    OWN = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady")

    def __init__(self, known: Sequence[Condition]) -> None:
        self._since = {one.type: (one.status, one.last_transition_time) for one in known}

    def told(self, facts: Facts, now: str) -> list[Object]:
        """Return them as they are now."""
        initialized = _initialized(facts)
        ready = _ready(facts)
        sandbox: Object = {"status": facts.sandbox}
        scheduled = self._since.get("PodScheduled", ("True", facts.started or now))[1] or now
        return [
            self._one("PodReadyToStartContainers", sandbox, now),
            self._one("Initialized", initialized, now),
            self._one("Ready", ready, now),
            self._one("ContainersReady", ready, now),
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": scheduled},
        ]

    def _one(self, name: str, value: Object, now: str) -> Object:
        status = "True" if value["status"] else "False"
        before, since = self._since.get(name, ("", ""))
        if before != status or not since:
            since = now
        self._since[name] = (status, since)
        return {"type": name, **value, "status": status, "lastTransitionTime": since}


def _initialized(facts: Facts) -> Object:
    if facts.phase in ("Succeeded", "Failed") and not facts.init:
        return {"status": True}
    left = [one.name for one in facts.init if not one.ready]
    if not left:
        return {"status": True}
    message = f"containers with incomplete status: [{' '.join(left)}]"
    return {"status": False, "reason": "ContainersNotInitialized", "message": message}


def _ready(facts: Facts) -> Object:
    if facts.phase == "Succeeded":
        return {"status": False, "reason": "PodCompleted"}
    if facts.phase == "Failed":
        return {"status": False, "reason": "PodFailed"}
    left = [one.name for one in facts.containers if not one.ready]
    if not left and facts.containers and facts.phase == "Running":
        return {"status": True}
    message = f"containers with unready status: [{' '.join(left)}]"
    return {"status": False, "reason": "ContainersNotReady", "message": message}


def status(facts: Facts, conditions: Sequence[Object]) -> Object:
    """Return the status."""
    result: Object = {
        "phase": facts.phase,
        "conditions": list(conditions),
        "containerStatuses": [_container(state) for state in facts.containers],
    }
    if facts.init:
        result["initContainerStatuses"] = [_container(state) for state in facts.init]
    if facts.reason:
        result["reason"] = facts.reason
    if facts.message:
        result["message"] = facts.message
    if facts.host_ips:
        result["hostIP"] = facts.host_ips[0]
        result["hostIPs"] = [{"ip": address} for address in facts.host_ips]
    if facts.addresses:
        result["podIP"] = facts.addresses[0]
        result["podIPs"] = [{"ip": address} for address in facts.addresses]
    if facts.started:
        result["startTime"] = facts.started
    return result


def _container(state: ContainerState) -> Object:
    result: Object = {
        "name": state.name,
        "image": state.image,
        "imageID": "",
        "ready": state.ready,
        "started": state.started,
        "restartCount": state.restarts,
        "lastState": {"terminated": state.last.told()} if state.last else {},
    }
    if state.id:
        result["containerID"] = state.id
    if state.running_since is not None:
        result["state"] = {"running": {"startedAt": state.running_since}}
    elif state.terminated is not None:
        result["state"] = {"terminated": state.terminated.told()}
    else:
        waiting = {"reason": state.waiting}
        if state.message:
            waiting["message"] = state.message
        result["state"] = {"waiting": waiting}
    return result


def terminated(state: Object | None) -> Terminated | None:
    """Read the ``terminated`` of a container's ``state`` or ``lastState``, if it is there."""
    told = (state or {}).get("terminated")
    if not isinstance(told, dict):
        return None
    code = told.get("exitCode")
    number = told.get("signal")
    known: int | None = int(code) if isinstance(code, int) else None
    if number:
        known = -int(number)
    return Terminated(
        code=None if told.get("reason") == "ContainerStatusUnknown" else known,
        reason=str(told.get("reason", "")),
        message=str(told.get("message", "")),
        started_at=told.get("startedAt"),
        finished_at=told.get("finishedAt"),
        id=str(told.get("containerID", "")),
    )

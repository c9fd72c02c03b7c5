"""What ``kubectl get pods`` shows of a pod: the rules of its STATUS are kubectl's own."""

from collections.abc import Sequence
from typing import Any

from . import cells

Object = dict[str, Any]


def row(pod: Object, now: float) -> list[Any]:
    """Return ready, status, restarts, age, and (wide) IP, node, nominated node, gates."""
    statuses = cells.at(pod, "status", "containerStatuses") or []
    ready = sum(bool(one.get("ready")) for one in statuses)
    restarts = sum(one.get("restartCount", 0) for one in statuses)
    addresses = cells.at(pod, "status", "podIPs") or []
    ip = addresses[0].get("ip") if addresses else cells.at(pod, "status", "podIP")
    return [
        f"{ready}/{len(cells.containers(pod))}",
        status(pod),
        _restarts(restarts, statuses, now),
        cells.age(pod["metadata"].get("creationTimestamp"), now),
        ip or "<none>",
        cells.at(pod, "spec", "nodeName") or "<none>",
        cells.at(pod, "status", "nominatedNodeName") or "<none>",
        "<none>",
    ]


def _restarts(count: int, statuses: Sequence[Object], now: float) -> str:
    finished = [cells.at(one, "lastState", "terminated", "finishedAt") for one in statuses]
    last = max((text for text in finished if text), default=None)
    return f"{count} ({cells.age(last, now)} ago)" if count and last else str(count)


def status(pod: Object) -> str:
    """Return the word that sums a pod up."""
    reason = cells.at(pod, "status", "reason") or cells.at(pod, "status", "phase") or "Unknown"
    if cells.condition(pod, "PodScheduled").get("reason") == "SchedulingGated":
        reason = "SchedulingGated"
    initializing, found = _initializing(pod)
    if not initializing:
        found, running = _containers(pod)
        if found == "Completed" and running:
            is_ready = cells.condition(pod, "Ready").get("status") == "True"
            found = "Running" if is_ready else "NotReady"
    if found:
        reason = found
    if pod["metadata"].get("deletionTimestamp"):
        lost = cells.at(pod, "status", "reason") == "NodeLost"
        finished = cells.at(pod, "status", "phase") in ("Succeeded", "Failed")
        return "Unknown" if lost else reason if finished else "Terminating"
    return str(reason)


def _initializing(pod: Object) -> tuple[bool, str]:
    wanted = len(cells.at(pod, "spec", "initContainers") or ())
    for index, one in enumerate(cells.at(pod, "status", "initContainerStatuses") or ()):
        state = one.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting") or {}
        if ended is not None and ended.get("exitCode", 0) == 0:
            continue
        if ended is not None:
            return True, "Init:" + _ended(ended)
        word = waiting.get("reason")
        if word and word != "PodInitializing":
            return True, f"Init:{word}"
        return True, f"Init:{index}/{wanted}"
    return False, ""


def _containers(pod: Object) -> tuple[str, bool]:
    """Return the word of the first container that has one, and whether any is running."""
    reason, running = "", False
    for one in reversed(cells.at(pod, "status", "containerStatuses") or []):
        state = one.get("state") or {}
        if word := (state.get("waiting") or {}).get("reason"):
            reason = word
        elif (ended := state.get("terminated")) is not None:
            reason = _ended(ended)
        elif one.get("ready") and state.get("running") is not None:
            running = True
    return reason, running


def _ended(ended: Object) -> str:
    if ended.get("reason"):
        return str(ended["reason"])
    if ended.get("signal"):
        return f"Signal:{ended['signal']}"
    return f"ExitCode:{ended.get('exitCode', 0)}"

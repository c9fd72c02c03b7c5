"""The end of a node's proxy, in place: its kubelet starts the container again.

The way that needs no controller: for when none could make a new pod. SIGKILL, because one that is
stopped hears nothing else; the kernel keeps all rules.
"""

from collections.abc import Callable
from signal import SIGKILL

from . import process
from .process import Process
from .seen import RESTART, Care


def kill(
    lock: str,
    node: str,
    *,
    dry_run: bool = False,
    find: Callable[[str], Process | None] = process.find,
    send: Callable[[Process, int], bool] = process.send,
) -> Care:
    """Kill the process that writes on this node. ``node``: for the answer."""
    one = find(lock)
    refused = _why_not(one)
    if refused or one is None:
        return Care(care=RESTART, node=node, dry_run=dry_run, refused=refused)
    found = (f"{one.kind}, process {one.pid}, {one.state}",)
    done = (f"SIGKILL to process {one.pid}",)
    if dry_run:
        return Care(care=RESTART, node=node, dry_run=True, found=found, done=done)
    try:
        if not send(one, SIGKILL):
            done = ("it has ended by itself",)
    except PermissionError:
        why = f"process {one.pid} may not be killed by us: run as root"
        return Care(care=RESTART, node=node, found=found, left=found, refused=why)
    return Care(care=RESTART, node=node, found=found, done=done)


def _why_not(one: Process | None) -> str:
    if one is None:
        return "no proxy runs on this node: the kubelet must start it, delete its pod"
    if one.state is process.State.ZOMBIE:
        return f"process {one.pid} has ended already, and its parent does not take note of it"
    if process.is_namespace_init(one):
        return (
            "it is process 1 of its pod's PID namespace, which nobody inside may kill: delete the "
            "pod, or run the proxy's pod with hostPID"
        )
    return ""

"""Processes of pods that nobody knows any more, found by a mark in their environment.

A kubelet may be killed after it has started a program and before it has written that down; and
what it has started beside a container, for a probe say, it never writes down. Its successor must
find both, or a container would run twice, and a program for ever.
"""

import contextlib
import os
import signal
from collections.abc import Collection
from pathlib import Path

from netns.errors import NetnsError
from netns.process import ProcessId, kill_all

MARK = "KPROXY_POD_PROCESS"
"""The variable by which a process and its children are known to belong to a pod."""


def container(uid: str, name: str, attempt: int) -> str:
    """Return the mark of a start of a container."""
    return f"{uid}/{name}/{attempt}"


def beside(uid: str) -> str:
    """Return the mark of what runs beside a pod's containers."""
    return f"{uid}//"


def end(uids: Collection[str], known: Collection[str] = ()) -> None:
    """Kill what bears a mark of these pods, but for the marks that are known; wait for the ends.

    What cannot be killed (stuck in the kernel) is left.
    """
    found = []
    for path in Path("/proc").iterdir():
        if not path.name.isdigit():
            continue
        pid = int(path.name)
        identity = ProcessId.of(pid)
        mark = _mark_of(pid)
        if identity is not None and mark not in known and mark.partition("/")[0] in uids:
            found.append(identity)
    with contextlib.suppress(NetnsError):
        kill_all(found)


def _mark_of(pid: int) -> str:
    """Return the mark of a process; empty: it has none, or has ended."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    start = f"{MARK}=".encode()
    found = next((one for one in variables if one.startswith(start)), start)
    return found.removeprefix(start).decode(errors="replace")


def end_group(pid: int) -> None:
    """Kill what a container's process left in its group, as a container's end would.

    Its number is still its own (it has not been waited for), or nobody's; so it is no stranger's.
    """
    if ProcessId.of(pid) is None or _is_zombie(pid):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def _is_zombie(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return text.rpartition(")")[2].split()[0] in ("Z", "X")

"""What a result file says of where and how it was made: kernel, host, clock, seed, costs.

Inside an embedded kernel one sees the guest's CPU and memory; the machine around it, whose load
and noise matter (RFC 8172), is told through the environment by who boots the guest.
"""

import datetime
import importlib.metadata
import json
import os
import platform
from typing import Any

import msgspec
import psutil

from kproxy.lab import costmodel
from netns.kernels import base

HOST_VARIABLE = "KPROXY_HOST_FACTS"


def tell_guest() -> None:
    """Leave this machine's facts to a guest that is booted from here."""
    if not base.inside_guest():
        os.environ[HOST_VARIABLE] = json.dumps(_machine())


def kernel() -> dict[str, Any]:
    """Return the kernel that the packets went through, and its clock."""
    name = platform.uname()
    return {
        "release": name.release,
        "version": name.version,
        "machine": name.machine,
        "provider": "uml" if base.inside_guest() else "native",
        "clock": str(base.clock()),
    }


def host() -> dict[str, Any]:
    """Return the machine: the one around the guest, where there is a guest."""
    told = os.environ.get(HOST_VARIABLE)
    if base.inside_guest() and told:
        machine: dict[str, Any] = json.loads(told)
        guest = {"cpus": os.cpu_count(), "memory_bytes": psutil.virtual_memory().total}
        return {**machine, "guest": guest}
    return {**_machine(), "guest": None}


def _machine() -> dict[str, Any]:
    return {
        "kernel": platform.release(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average": list(os.getloadavg()),
        "python": platform.python_version(),
        "kproxy": importlib.metadata.version("kproxy"),
    }


def run(started: datetime.datetime) -> dict[str, Any]:
    """Return when the run began, and what made it what it is beside its parameters."""
    return {
        "started": started.isoformat(timespec="seconds"),
        "seed": base.seed(),
        "costs": _costs(),
    }


def _costs() -> dict[str, Any] | None:
    """Return the cost model whole: a file that can be reproduced must not depend on another."""
    model = costmodel.applied()
    if model is None:
        return None
    described = costmodel.described(model) or {}
    return {**described, "model": msgspec.json.decode(model.read_bytes())}

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
    """Leave this machine's facts, and the time, to a guest that is booted from here.

    They are as long whatever they are: what is in the environment is in the memory of every
    process of the guest, whose layout is part of what a run in virtual time depends on.
    """
    if not base.inside_guest():
        machine = _machine()
        loads = [f"{load:07.2f}" for load in machine["load_average"]]
        told = {**machine, "load_average": loads, "started": _now()}
        os.environ[HOST_VARIABLE] = json.dumps(told)


def tell_kernel(name: str | None, memory: int) -> None:
    """Add to what a guest is told which kernel it runs on, and the memory (bytes) it was given."""
    if HOST_VARIABLE in os.environ:
        os.environ[HOST_VARIABLE] = json.dumps({**_told(), "embedded": [name, memory]})


def started() -> str:
    """Return when the run began, by the world's clock: a guest's may be any."""
    if base.inside_guest():
        return str(_told().get("started", _now()))
    return _now()


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _told() -> dict[str, Any]:
    return dict(json.loads(os.environ.get(HOST_VARIABLE, "{}")))


def kernel() -> dict[str, Any]:
    """Return the kernel that the packets went through, and its clock.

    ``name`` is what ``kproxy kernel list`` calls it: of our own ones it tells source and
    configuration. It and the memory it was given are None on a machine's own kernel.
    """
    name = platform.uname()
    embedded = _told().get("embedded", [None, None]) if base.inside_guest() else [None, None]
    return {
        "name": embedded[0],
        "memory_limit_bytes": embedded[1],
        "release": name.release,
        "version": name.version,
        "machine": name.machine,
        "provider": "uml" if base.inside_guest() else "native",
        "clock": str(base.clock()),
    }


def host() -> dict[str, Any]:
    """Return the machine: the one around the guest, where there is a guest."""
    if not base.inside_guest():
        return {**_machine(), "guest": None}
    guest = {"cpus": os.cpu_count(), "memory_bytes": psutil.virtual_memory().total}
    machine = _told() or _machine()
    for other in ("started", "embedded"):
        machine.pop(other, None)
    loads = [float(load) for load in machine["load_average"]]
    return {**machine, "load_average": loads, "guest": guest}


def _machine() -> dict[str, Any]:
    return {
        "kernel": platform.release(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "kproxy": importlib.metadata.version("kproxy"),
    }


def run() -> dict[str, Any]:
    """Return when the run began, and what made it what it is beside its parameters."""
    return {
        "started": started(),
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

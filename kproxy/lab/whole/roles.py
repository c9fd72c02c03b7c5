"""What the processes of a whole cluster are, and which one is meant. Pure."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a process is for."""

    ETCD = "etcd"
    API_SERVER = "apiserver"
    MANAGER = "manager"
    SCHEDULER = "scheduler"
    BALANCER = "balancer"
    KUBELET = "kubelet"
    INIT = "init"
    """Who starts the others of a host again."""
    PROXY = "proxy"
    DNS = "dns"


ELECTED = (Role.MANAGER, Role.SCHEDULER, Role.ETCD)
"""Roles of which one replica leads."""
PODS = (Role.PROXY, Role.DNS)
"""Roles whose processes are containers of pods: a kubelet starts them again, not the init."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A process as it is now. ``start_time`` is in clock ticks since boot, as in ``/proc``.

    ``starts``: how often it was started in this lab up to now. ``pod``: of a container's process,
    ``namespace/name``; empty: it is none's.
    """

    host: str
    role: Role
    pid: int
    start_time: int
    starts: int = 1
    pod: str = ""

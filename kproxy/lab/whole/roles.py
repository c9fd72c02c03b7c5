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
    PROMETHEUS = "prometheus"
    ALERTMANAGER = "alertmanager"
    STATE = "state"
    """Who tells the states of objects as metrics."""
    DISCOVERY = "discovery"
    """Who finds targets for a Prometheus."""
    REMEDIATION = "remediation"
    NODE_EXPORTER = "node-exporter"
    PROBER = "prober"
    PAGER = "pager"
    """Who is told what people are to know, and misses the dead man's switch."""


ELECTED = (Role.MANAGER, Role.SCHEDULER, Role.ETCD)
"""Roles of which one replica leads."""
FOREIGN = (Role.ETCD, Role.PROMETHEUS, Role.ALERTMANAGER, Role.NODE_EXPORTER)
"""Roles of programs that are not ours, nor the lines that they write."""
PODS = (Role.PROXY, Role.DNS, Role.PROBER)
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

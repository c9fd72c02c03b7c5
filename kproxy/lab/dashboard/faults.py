"""What the page's buttons do to a lab: the faults of `kproxy chain`, one at a time, by hand."""

import time

from kproxy import errors
from kproxy.api import catalog
from kproxy.lab.dashboard.messages import Event, Fault, Order
from kproxy.lab.whole.cluster import WholeCluster
from kproxy.lab.whole.roles import Role
from netns.errors import NetnsError

_OF_HOSTS = (Fault.UNPLUG, Fault.PLUG, Fault.POWER_OFF, Fault.POWER_ON)
REASON = "Fault"


def do(cluster: WholeCluster, order: Order) -> Event:
    """Do what was ordered; return what happened, for the list of events.

    Raises UsageError for what cannot be done to that, KproxyError if it was not done.
    """
    try:
        about, text = _done(cluster, order)
    except NetnsError as error:
        raise errors.KproxyError(error.message, remedy=error.remedy) from None
    return Event(at=time.time(), kind="Fault", reason=REASON, about=about, text=text)


def _done(cluster: WholeCluster, order: Order) -> tuple[str, str]:
    if order.fault is Fault.DELETE:
        namespace, slash, name = order.pod.partition("/")
        if not (namespace and slash and name) or "/" in name:
            raise errors.UsageError(f"{order.pod!r} is no pod", remedy="NAMESPACE/NAME is meant")
        cluster.api.delete(catalog.POD, namespace, name)
        return f"pod {order.pod}", "deleted"
    if order.fault in _OF_HOSTS:
        if order.host not in breakable(cluster):
            raise errors.UsageError(f"host {order.host!r} has no such button")
        return f"host {order.host}", _to_host(cluster, order)
    role = _role(cluster, order)
    return f"{role} on {order.host}", _to_process(cluster, order, role)


def breakable(cluster: WholeCluster) -> set[str]:
    """Return the hosts that may be cut off or switched off: those by which nobody looks on."""
    site = cluster.site
    return {host for host, _ in cluster.wanted()} & {
        *site.control,
        *site.etcd,
        *site.monitors,
        *(node.name for node in site.nodes),
    }


def _role(cluster: WholeCluster, order: Order) -> Role:
    for host, role in cluster.wanted():
        if (host, str(role)) == (order.host, order.role):
            return role
    raise errors.UsageError(f"there is no {order.role!r} on {order.host!r}")


def _to_host(cluster: WholeCluster, order: Order) -> str:
    match order.fault:
        case Fault.UNPLUG:
            cluster.unplug(order.host)
            return "cable pulled"
        case Fault.PLUG:
            cluster.plug(order.host)
            return "cable plugged in again"
        case Fault.POWER_OFF:
            cluster.power_off(order.host)
            return "switched off"
        case _:
            cluster.power_on(order.host)
            return "switched on"


def _to_process(cluster: WholeCluster, order: Order, role: Role) -> str:
    processes = cluster.processes
    match order.fault:
        case Fault.KILL:
            return f"killed (SIGKILL, process {processes.kill(order.host, role)[0].pid})"
        case Fault.HANG:
            return f"stopped (SIGSTOP, process {processes.pause(order.host, role).pid})"
        case _:
            return f"goes on (SIGCONT, process {processes.resume(order.host, role).pid})"

"""Which schedulers the kernel's IPVS has.

The kernel does not list them; it says whether it has one when a virtual service is to use it, and
loads its module then. So one is made for a moment, at an address for documentation which nobody
uses, as kube-proxy does at every start. Here it is done only when there is reason to doubt.
"""

import errno
import ipaddress
from collections.abc import Iterable

from kproxy.errors import KernelError
from kproxy.kernel import inet
from kproxy.kernel.ipvs.types import (
    AddService,
    DelService,
    IPVSClient,
    Operation,
    ServiceConfig,
    ServiceKey,
)

KNOWN = (
    *("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh"),
    "twos",
)
"""All that there are in Linux 6."""

PROBE = ServiceKey(inet.Protocol.TCP, ipaddress.IPv4Address("198.51.100.0"), 20000)


def available(ipvs: IPVSClient, names: Iterable[str] = KNOWN) -> list[str]:
    """Return those of the schedulers that this kernel has. Leaves nothing behind."""
    # What is left of one who was killed while it asked goes first.
    ipvs.run([DelService(PROBE)])
    return [name for name in names if _has(ipvs, name)]


def unknown(ipvs: IPVSClient, name: str) -> KernelError | None:
    """Return None, or that this kernel has no such scheduler, and which it has."""
    if available(ipvs, [name]):
        return None
    return KernelError(
        f"use IPVS scheduler {name!r}",
        errno.ENOENT,
        "this kernel has no such scheduler",
        remedy=f"it has: {', '.join(available(ipvs))}",
    )


def _has(ipvs: IPVSClient, name: str) -> bool:
    operations: list[Operation] = [AddService(PROBE, ServiceConfig(name)), DelService(PROBE)]
    return ipvs.run(operations)[0] is None

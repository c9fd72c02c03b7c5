"""The part that needs all rights of root: ``kproxy proxy --init-only``.

It sets the kernel's switches under ``/proc/sys`` and loads the modules of the mode; afterwards the
proxy may run in a container that has only CAP_NET_ADMIN, as with kube-proxy. An init container
does this.
"""

import os
import re

from kproxy.agent import tuning
from kproxy.agent.settings import Settings
from kproxy.backends import base
from kproxy.backends.ipvs.switches import FORWARDING, Switches
from kproxy.desired.model import Family
from kproxy.errors import KernelError, NotFound, Unsupported
from kproxy.kernel import sysctl as sysctls
from kproxy.kernel.ipvs.client import IPVS
from kproxy.logs import Log


def initialise(settings: Settings, log: Log, sysctl: sysctls.SysctlClient | None = None) -> None:
    """Set all that is wrong, and tell what that was.

    Raises Unsupported if the kernel cannot do the mode, and at the end KernelError for the first
    switch that could not be set.
    """
    with_modules(settings)
    sysctl = sysctl or sysctls.Sysctl()
    failures: list[KernelError] = []
    for key, value in switches(settings).items():
        try:
            if sysctls.ensure(sysctl, key, value):
                log.info("kernel switch set", key=key, value=value)
        except NotFound:
            log.debug("no such switch in this kernel", key=key)
        except KernelError as error:
            if not tuning.belongs_to_machine(key, error):
                failures.append(error)
    base.raise_all("initialise", failures)


def with_modules(settings: Settings) -> None:
    """Let the kernel load what the mode needs. Raises Unsupported if it has not got it."""
    backend = base.loader(settings.mode)(settings.families[0].family, settings.options)
    try:
        if (reason := backend.supported()) is not None:
            raise Unsupported(f"mode {settings.mode}: {reason}")
    finally:
        backend.close()


def switches(settings: Settings) -> dict[str, str]:
    """Return all kernel switches that the proxy would set with these settings.

    IPv6 is forwarded only if there are pods with IPv6: a node that forwards it does not listen to
    router advertisements any more.
    """
    wanted = {}
    for own in settings.families:
        if own.family is Family.IPV4 or own.cluster_cidrs:
            wanted.update(_of_mode(settings, own.family))
    if settings.mode == "iptables" and any(policy.localhost for policy in settings.node_ports):
        from kproxy.backends.iptables.backend import ROUTE_LOCALNET

        wanted[ROUTE_LOCALNET] = "1"
    return {**wanted, **{key: str(value) for key, value in settings.sysctls}}


def _of_mode(settings: Settings, family: Family) -> dict[str, str]:
    ip = base.FAMILIES[family]
    if settings.mode != "ipvs":
        return dict([FORWARDING[ip]])
    major, minor = map(int, re.findall(r"\d+", os.uname().release)[:2])
    own = Switches(sysctls.Sysctl(), IPVS(), ip, settings.options, (major, minor))
    return own.wanted()

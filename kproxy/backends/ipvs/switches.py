"""The kernel's switches and time-outs that ipvs mode sets, as kube-proxy does."""

import contextlib
from collections.abc import Iterator, Mapping

from kproxy.backends.base import Options
from kproxy.errors import KernelError, NotFound
from kproxy.kernel import sysctl as sysctls
from kproxy.kernel.inet import Family
from kproxy.kernel.ipvs.types import IPVSClient, Timeouts
from kproxy.kernel.sysctl import SysctlClient

SYSCTLS: Mapping[str, str] = {
    "net/ipv4/vs/conntrack": "1",  # masquerading is done by rules, which need tracked connections
    "net/ipv4/vs/expire_nodest_conn": "1",  # flows of an endpoint that is gone end or move
    "net/ipv4/vs/expire_quiescent_template": "1",
}
FORWARDING = {
    Family.IPV4: ("net/ipv4/ip_forward", "1"),
    Family.IPV6: ("net/ipv6/conf/all/forwarding", "1"),
}
STRICT_ARP = {"net/ipv4/conf/all/arp_ignore": "1", "net/ipv4/conf/all/arp_announce": "2"}
REUSE_MODE = "net/ipv4/vs/conn_reuse_mode"
REUSE_MODE_BROKEN = ((4, 1), (5, 9))
"""In kernels from the first to before the second, a connection from a reused port was delayed by a
second unless the mode is 0; from 5.9 the kernel's own 1 is right."""


class Switches:
    """Sets the switches of one family. ``release`` is the kernel's version: major, minor."""

    def __init__(
        self,
        sysctl: SysctlClient,
        ipvs: IPVSClient,
        family: Family,
        options: Options,
        release: tuple[int, int],
    ) -> None:
        self._sysctl = sysctl
        self._ipvs = ipvs
        self._family = family
        self._options = options
        self._release = release

    def set(self) -> tuple[int, list[KernelError]]:
        """Set all; return how many switches were wrong, and what was refused.

        Where /proc/sys is read-only, as in a container, somebody else sees to it.
        """
        count = 0
        refused = []
        for key, value in self.wanted().items():
            try:
                count += sysctls.ensure(self._sysctl, key, value)
            except KernelError as error:
                refused.append(error)
        try:
            if any(self._wrong_timeouts()):
                self._ipvs.set_timeouts(self._timeouts())
                count += 1
        except KernelError as error:
            refused.append(error)
        return count, refused

    def wanted(self) -> dict[str, str]:
        """Return the value of each switch."""
        switches = dict(SYSCTLS)
        first_broken, first_good = REUSE_MODE_BROKEN
        if first_broken <= self._release < first_good:
            switches[REUSE_MODE] = "0"
        switches.update([FORWARDING[self._family]])
        if self._options.strict_arp:
            switches |= STRICT_ARP
        return switches

    def wrong(self) -> Iterator[tuple[str, str, str]]:
        """Yield name, wanted and actual value of what is set otherwise. Raises KernelError."""
        for key, value in self.wanted().items():
            # A switch that this kernel lacks is told by a sync.
            with contextlib.suppress(NotFound):
                found = self._sysctl.get(key)
                if found != value:
                    yield key, value, found
        yield from self._wrong_timeouts()

    def _wrong_timeouts(self) -> Iterator[tuple[str, str, str]]:
        want = self._timeouts()
        if want == Timeouts(0, 0, 0):
            return
        have = self._ipvs.timeouts()
        for name in ("tcp", "tcp_fin", "udp"):
            value, found = getattr(want, name), getattr(have, name)
            if value not in (0, found):
                yield f"IPVS time-out {name}", str(value), str(found)

    def _timeouts(self) -> Timeouts:
        options = self._options
        return Timeouts(
            tcp=options.tcp_timeout_s, tcp_fin=options.tcp_fin_timeout_s, udp=options.udp_timeout_s
        )

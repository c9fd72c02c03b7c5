"""Has the fronts programmed by the proxies' own backends, on the kernel of the edge.

The mode is ipvs where the kernel has it, else nftables, else iptables.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from kproxy import logs
from kproxy.api import core, discovery
from kproxy.backends.base import Options, loader
from kproxy.desired.build import NodeSettings
from kproxy.desired.model import Family, Prefix
from kproxy.errors import KernelError, UsageError
from kproxy.lab import modes
from kproxy.proxier import DualStack, Proxier

from . import dead, fronts
from .addresses import Key
from .fronts import Front, Objects, Server
from .health import Probe

MODES = ("ipvs", "nftables", "iptables")


class Judge(Protocol):
    """Who knows how servers are."""

    def is_well(self, probe: Probe) -> bool:
        """Return whether a server may be given connections."""
        ...

    def is_dead(self, probe: Probe) -> bool:
        """Return whether a server's connections lead nowhere."""
        ...


def choose_mode(log: logs.Log, wanted: str = "") -> str:
    """Return the first mode that this kernel can do, or ``wanted`` if that one can.

    Raises UsageError that says why none can.
    """
    reasons = []
    for mode in (wanted,) if wanted else MODES:
        reason = modes.unsupported(mode)
        if reason is None:
            return mode
        log.info("this kernel cannot do a mode", mode=mode, reason=reason)
        reasons.append(f"{mode}: {reason}")
    raise UsageError(f"this kernel can do no mode: {'; '.join(reasons)}")


class Forwarder:
    """Keeps the kernel as the fronts and the health of their servers want it. For one thread.

    ``beyond``: networks by family from which clients keep their address.
    """

    def __init__(
        self,
        mode: str,
        edge: str,
        beyond: Mapping[Family, tuple[Prefix, ...]],
        log: logs.Log,
        undertaker: dead.Undertaker | None = None,
        proxier: DualStack | None = None,
    ) -> None:
        self._edge = edge
        self._log = log
        self._undertaker = undertaker or dead.Undertaker(mode)
        load = loader(mode)
        self._proxier = proxier or DualStack(
            [
                Proxier(
                    NodeSettings(family=family, node=edge, cluster_cidrs=beyond.get(family, ())),
                    lambda one: load(one, Options()),
                )
                for family in Family
            ]
        )
        self._given: dict[Key, Objects] = {}
        self._used: set[Probe] = set()
        """Servers that may have connections."""

    def begin(self) -> None:
        """Look for what an earlier process left, so that it is taken over or taken away."""
        try:
            self._proxier.find_left_over()
        except KernelError as error:
            self._log.warning("looking for earlier rules failed", error=str(error))

    def reread(self) -> None:
        """Read the kernel anew before the next sync, to mend what others did."""
        try:
            self._proxier.reread()
        except KernelError as error:
            self._log.warning("reading the kernel failed", error=str(error))

    def sync(self, wanted: Mapping[Key, Front], judge: Judge) -> float | None:
        """Program the fronts; end connections to dead servers. Raises KernelError, at last.

        Return in how many seconds to sync again even if nothing changes; None: no need.
        """
        self._note(wanted, judge.is_well)
        reports = self._proxier.sync()
        for disabled in self._proxier.take_disabled():
            self._log.warning("family not served", reason=disabled)
        for problem in self._proxier.take_problems():
            self._log.warning("bad object", error=str(problem))
        failures = [failure for report in reports for failure in report.result.failures]
        self._bury(wanted.values(), judge)
        writes = sum(report.result.writes for report in reports)
        if writes:
            self._log.info("synced", writes=writes)
        if failures:
            raise failures[0]
        asked = [
            seconds
            for report in reports
            for seconds in (report.result.again_in, report.result.flows_again_in)
            if seconds is not None
        ]
        return min(asked, default=None)

    def close(self) -> None:
        """Give sockets back; the kernel keeps its rules."""
        self._proxier.close()
        self._undertaker.close()

    def _note(self, wanted: Mapping[Key, Front], is_well: Callable[[Probe], bool]) -> None:
        now = {key: fronts.objects(front, is_well, self._edge) for key, front in wanted.items()}
        services: list[tuple[core.Service | None, core.Service | None]] = []
        slices: list[tuple[discovery.EndpointSlice | None, discovery.EndpointSlice | None]] = []
        for key in sorted(now.keys() | self._given.keys()):
            old, new = self._given.get(key), now.get(key)
            if old == new:
                continue
            services.append((old.service if old else None, new.service if new else None))
            for before, after in _pairs(old, new):
                if before != after:
                    slices.append((before, after))
        self._proxier.on_slices(slices)
        self._proxier.on_services(services)
        self._given = now

    def _bury(self, wanted: Iterable[Front], judge: Judge) -> None:
        """End connections to those who were well once and are dead now."""
        servers = [(front, server) for front in wanted if front.cut for server in front.servers]
        self._used |= {server.probe for _, server in servers if judge.is_well(server.probe)}
        gone = [
            (front, server)
            for front, server in servers
            if server.probe in self._used and judge.is_dead(server.probe)
        ]
        if gone:
            self._log.info("ending connections", servers=[server.name for _, server in gone])
        places = {place for front, server in gone for place in _places(front, server)}
        for error in self._undertaker.end(sorted(places)):
            self._log.warning("ending connections failed", error=str(error))
        self._used -= {server.probe for _, server in gone}


def _places(front: Front, server: Server) -> Iterator[dead.Place]:
    for address in front.addresses:
        for port in front.ports:
            yield from dead.places(address, port.port, server.addresses, port.target)


def _pairs(
    old: Objects | None, new: Objects | None
) -> Iterator[tuple[discovery.EndpointSlice | None, discovery.EndpointSlice | None]]:
    """Yield a front's slices before and after; there is one for each family."""
    before = old.slices if old is not None else (None,) * len(Family)
    after = new.slices if new is not None else (None,) * len(Family)
    yield from zip(before, after, strict=True)

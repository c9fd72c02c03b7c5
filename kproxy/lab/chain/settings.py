"""What a run of the chain is told: which links, how often, which cluster, which traffic."""

import dataclasses
import shutil
from dataclasses import dataclass, field

from kproxy import errors
from kproxy.lab import generators
from kproxy.lab.chain import table
from kproxy.lab.chain.watched import Variant
from kproxy.lab.clusterfile import (
    ETCD_SIZES,
    ClusterFile,
    ControlPlane,
    Monitoring,
    NodeFile,
    Profile,
    Store,
)
from kproxy.lab.modes import MODES
from kproxy.lab.site import Site
from kproxy.lab.whole import goprograms
from netns.uplink import Uplink

ETCD_MISSING = "etcd is not installed (scripts/install --etcd)"
MONITORING_MISSING = "Prometheus is not installed (scripts/install --monitoring)"
_WATCHED = {
    Variant.REMEDIATED: (Monitoring(remediation=True), Profile.LAB),
    Variant.MIXIN: (Monitoring(remediation=False), Profile.PRODUCTION),
}
"""Who watches the variants of a fault, and how fast."""
RATES = generators.Rates(
    udp_pps=100.0, quantum_ms=40.0, connections=4, request_interval_s=1.0, connects_per_s=5.0
)
"""Of each vantage point. A flow has a packet every 160 ms: failover times are within ± 0.32 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long the parts of a trial last, in seconds.

    ``before``: what is usual is learnt; ``after``: traffic after everything goes on again;
    ``again``: how long that may take; ``tmax``: later packets count as lost; ``hand``: until
    somebody repairs by hand what nobody else repairs.
    """

    before: float = 12.0
    after: float = 2.0
    again: float = 60.0
    tmax: float = 1.0
    hand: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What is broken, and how. ``left_out``: links that cannot be, and why."""

    links: tuple[str, ...] = field(default_factory=lambda: table.names(monitoring=False))
    left_out: dict[str, str] = field(default_factory=dict)
    trials: int = 1
    first: int = 1
    """The number of the first trial."""
    mode: str = "ipvs"
    nodes: int = 2
    members: int = 3
    """Of etcd; 0: objects are kept by SQLite."""
    profile: Profile = Profile.PRODUCTION
    uplinks: dict[str, Uplink] = field(default_factory=dict)
    """The hosts that are on network cards."""
    take_default_route: bool = False
    """Whether a card may be taken that carries the machine's default route."""
    rates: generators.Rates = RATES
    timing: Timing = field(default_factory=Timing)

    def check(self) -> None:
        """Raise ``UsageError`` for what cannot be; the message names the option."""
        for name in self.links:
            table.by_name(name)
        if self.mode not in MODES:
            raise errors.UsageError(
                f"--mode {self.mode}: there is no such mode", remedy=f"known: {', '.join(MODES)}"
            )
        if not self.links:
            raise errors.UsageError("nothing to break", remedy="name a link")
        if self.members and self.members not in ETCD_SIZES:
            sizes = ", ".join(map(str, ETCD_SIZES))
            raise errors.UsageError(f"--members {self.members}: etcd has 0 or {sizes} members")
        if self.trials < 1:
            raise errors.UsageError(f"--trials {self.trials}: at least one is needed")
        if not 2 <= self.nodes <= 8:
            raise errors.UsageError(f"--nodes {self.nodes}: the chain has 2 to 8 nodes")
        if not 0 < self.rates.udp_pps <= generators.FASTEST_PPS:
            raise errors.UsageError(
                f"--rate {self.rates.udp_pps:g}: the sender can do more than 0 and up to "
                f"{generators.FASTEST_PPS:,.0f} packets/s"
            )
        Site(self.file()).check("--uplinks")

    def file(self, variant: str = "") -> ClusterFile:
        """Return the file of the cluster, for one variant of what only monitoring catches.

        Those clusters are small: what is broken there is a proxy, or is broken as a whole.
        """
        plane = ControlPlane(
            replicas=1 if variant else 3,
            store=Store.ETCD if self.members and not variant else Store.SQLITE,
            etcd_members=self.members or 1,
        )
        watched: bool | Monitoring = False
        profile = self.profile
        if variant in _WATCHED:
            watched, profile = _WATCHED[Variant(variant)]
        return ClusterFile(
            name="chain",
            mode=self.mode,
            nodes=[NodeFile(name=f"node{number}") for number in range(1, self.nodes + 1)],
            control_plane=plane,
            outside=1,
            uplinks={host: one.described() for host, one in self.uplinks.items()},
            dns=False,
            monitoring=watched,
            profile=profile,
        )


def has_etcd() -> bool:
    """Return whether etcd is installed."""
    return shutil.which("etcd") is not None


def has_monitoring() -> bool:
    """Return whether Prometheus and what belongs to it are installed."""
    try:
        for program in goprograms.MONITORS:
            goprograms.installed(program)
    except errors.Unsupported:
        return False
    return True


def able(parameters: Parameters, *, named: bool) -> Parameters:
    """Return what this machine and this mode can do of it; the rest is left out, with the reason.

    Raises UsageError if nothing is left, or if what cannot be done was ``named``.
    """
    etcd, monitoring = bool(parameters.members) and has_etcd(), has_monitoring()
    lacking: dict[str, str] = {}
    for link in map(table.by_name, parameters.links):
        if link.etcd and not etcd:
            lacking[link.name] = ETCD_MISSING
        elif link.variant in _WATCHED and not monitoring:
            lacking[link.name] = MONITORING_MISSING
        elif link.modes and parameters.mode not in link.modes:
            lacking[link.name] = f"there is no such thing in mode {parameters.mode}"
    left = tuple(name for name in parameters.links if name not in lacking)
    if not left or (lacking and named):
        whys = dict.fromkeys(lacking.values())
        told = "; ".join(
            f"{', '.join(name for name in lacking if lacking[name] == why)}: {why}" for why in whys
        )
        raise errors.UsageError(told)
    members = parameters.members if etcd else 0
    return dataclasses.replace(parameters, links=left, left_out=lacking, members=members)

"""What every backend promises, and how one is found by the name that users write.

A backend is imported only when its mode was chosen: the others would lengthen each restart.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import ClassVar, NamedTuple, Protocol, cast

import msgspec

from kproxy.api.addresses import with_port
from kproxy.desired.model import Family, Prefix, ServicePort, ServicePortName, State
from kproxy.errors import InvalidObject, KernelError, UsageError
from kproxy.kernel import inet


class Swept(NamedTuple):
    """What looking for stale UDP flows came to (see :mod:`kproxy.backends.udpflows`)."""

    deleted: int
    duration_ns: int


class RuleCount(NamedTuple):
    """How many iptables rules are in chains of the proxy's own, in one table.

    As kube-proxy counts them: without the rules of built-in chains that lead there.
    """

    table: str
    total: int
    written: int
    """So many of them the sync wrote."""


class SyncResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a sync did.

    ``writes`` counts the kernel objects added, changed and removed: 0 means that the kernel was
    right already. ``failures`` are the objects with which something went wrong; all others were
    dealt with, and the next sync tries these again. ``refused`` is what the kernel takes for
    invalid and will refuse again, such as an endpoint that it cannot send to or a switch that
    nobody may write: it is told, but no change waits for it. ``invalid`` are objects that were
    left out because they contradict others. ``again_in`` (seconds) asks for another sync by then
    even if nothing changes; None: no need. ``swept`` tells of stale flows, whose number is part of
    ``writes``; None: none were looked for. ``flows_again_in`` (seconds) asks for another sync to
    look for stale flows once more; unlike after ``again_in`` nothing else is expected to change.
    ``rules`` is told in iptables mode, where services are rules. ``uncleaned`` says that chains
    without use cannot be deleted yet, in nftables mode.
    """

    writes: int
    failures: tuple[KernelError, ...] = ()
    refused: tuple[KernelError, ...] = ()
    invalid: tuple[InvalidObject, ...] = ()
    again_in: float | None = None
    swept: Swept | None = None
    flows_again_in: float | None = None
    rules: tuple[RuleCount, ...] = ()
    uncleaned: bool = False


class Deviation(StrEnum):
    """In which way the kernel is not as wanted."""

    MISSING = "missing"
    DIFFERENT = "different"
    UNEXPECTED = "unexpected"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One object of ours that the kernel holds otherwise than wanted, in words for a user.

    ``kind`` is the field's name of such an object (``virtual server``, ``real server``,
    ``address``, ``ipset entry``, ``rule``, ``chain``, ``map element`` …), ``name`` which one it
    is. ``want`` and ``have`` are what it should be and is; empty where it should not be or is not.
    """

    deviation: Deviation
    kind: str
    name: str
    want: str = ""
    have: str = ""
    service: ServicePortName | None = None
    """Whose it is, where that can be told."""


Planned = Callable[[int], None]
"""Is told how many kernel objects a sync is about to write, before it writes the first."""


def untold(writes: int) -> None:
    """Be told what nobody wants to know."""


def taken(
    service: ServicePort,
    owner: ServicePortName,
    address: str | None = "",
    port: int = 0,
) -> InvalidObject:
    """Return the problem of a service port that claims what an other one has already.

    That is its ClusterIP, unless ``address`` is another one of its addresses, or None: the node
    port ``port``.
    """
    same = (owner.namespace, owner.name) == (service.name.namespace, service.name.name)
    own = f"spec.ports[{service.name.port!r}]"
    address = service.cluster_ip if address == "" else address
    if address is None:
        field, place, another = f"{own}.nodePort", f"node port {port}", "port"
    else:
        field = own if same else _field_of(service, address)
        place, another = with_port(address, service.port), "address or port"
    return InvalidObject(
        f"Service {service.name.namespace}/{service.name.name}",
        field,
        f"{service.protocol} {place} belongs to Service {owner} already",
        remedy=f"give one of them another {another}",
    )


def _field_of(service: ServicePort, address: str) -> str:
    if address == service.cluster_ip:
        return "spec.clusterIP"
    return "spec.externalIPs" if address in service.external_ips else "status.loadBalancer"


class Backend(Protocol):
    """One way of programming a node's kernel, for one IP family."""

    name: ClassVar[str]

    def supported(self) -> str | None:
        """Return None, or why this kernel or machine cannot do it, in words for the user."""

    def sync(self, want: State, planned: Planned = untold) -> SyncResult:
        """Make the kernel hold the wanted state: idempotent, adopts what is right, never flushes.

        ``planned`` is called once, when the kernel has been read and compared, also if nothing is
        to be written. Raises KernelError where the kernel's state cannot even be read.
        """

    def differences(self, want: State) -> Sequence[Difference]:
        """Return in what the kernel now differs from the wanted state. Writes nothing.

        Empty: a sync that rereads would write nothing. Raises KernelError.
        """

    def reread(self) -> None:
        """Read the kernel's state now; the next sync compares with it.

        Between two syncs a backend may trust what it wrote itself. This is called at the start,
        while the API server is still being asked, and at every full sync, to notice what others
        did to our objects. Raises KernelError.
        """

    def left_over(self) -> bool:
        """Return whether the kernel holds anything of this mode in this family, cheaply.

        Raises KernelError.
        """

    def cleanup(self, *, keep_chains: bool = False) -> int:
        """Remove all that this mode ever writes, and nothing else; absent is fine.

        ``keep_chains``: leave iptables chains, whose names several modes share, to another mode.
        Return how many objects were removed. Raises KernelError.
        """

    def close(self) -> None:
        """Give sockets back. The kernel keeps its rules."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a user may set of a backend beside the State; the names are kube-proxy's."""

    scheduler: str = "rr"
    strict_arp: bool = False
    exclude_cidrs: tuple[Prefix, ...] = ()
    """Virtual services with addresses in these networks are not ours."""
    tcp_timeout_s: int = 0
    tcp_fin_timeout_s: int = 0
    udp_timeout_s: int = 0
    """IPVS time-outs; 0 leaves the kernel's as they are."""
    tcp_be_liberal: bool = False
    """Whether TCP packets out of window are let through (``--conntrack-tcp-be-liberal``), so that
    iptables mode need not drop what conntrack cannot place."""
    clean_last: bool = False
    """Whether flows of UDP services whose last endpoint is gone are forgotten, too
    (``--conntrack-clean-last``); ipvs mode always does."""


class Loader(Protocol):
    """What makes a backend: a function ``load`` in the backend's module."""

    def __call__(self, family: Family, options: Options) -> Backend:
        """Return a backend on the kernel of the current network namespace."""


FAMILIES: Mapping[Family, inet.Family] = {
    Family.IPV4: inet.Family.IPV4,
    Family.IPV6: inet.Family.IPV6,
}
"""The kernel's word for each IP family."""

BACKENDS: Mapping[str, str] = {
    "ipvs": "kproxy.backends.ipvs.backend",
    "iptables": "kproxy.backends.iptables.backend",
    "nftables": "kproxy.backends.nftables.backend",
}
"""Mode → module that has a :class:`Loader` named ``load``."""


def loader(mode: str) -> Loader:
    """Return the loader of a mode. Raises UsageError for a mode that does not exist."""
    try:
        module = BACKENDS[mode]
    except KeyError:
        known = ", ".join(BACKENDS)
        raise UsageError(
            f"--proxy-mode: there is no mode {mode!r}", remedy=f"use one of: {known}"
        ) from None
    return cast(Loader, importlib.import_module(module).load)


def raise_all(operation: str, failures: Sequence[KernelError]) -> None:
    """Raise the failures of a cleanup as one error; nothing if there are none."""
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        first = failures[0]
        raise KernelError(operation, first.errno, f"{first.message}{more}", remedy=first.remedy)

"""What two iptables rules have counted: kube-proxy's counters of packets, in iptables mode.

kube-proxy counts by nfacct objects, which not every kernel has, because its restores set the
counters of rules back. Here the two rules are in chains that no change of services replaces, so
the kernel's own counters of these rules last, over restarts of the proxy, too. They are read when
somebody asks: no sync waits for it.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping

from kproxy.backends.base import FAMILIES
from kproxy.backends.iptables import base_rules
from kproxy.desired.model import State
from kproxy.errors import KernelError, Unsupported
from kproxy.exposition import Family, Kind, Sample
from kproxy.kernel import inet
from kproxy.kernel.iptables.types import IptablesClient, Rule
from kproxy.logs import Log

REST = 100
"""So many times as long as a reading took, what it said is told again. ip_tables, which gives its
tables as a whole only, would be read all the time where there are very many services."""

COUNTED = (
    (
        "kubeproxy_iptables_ct_state_invalid_dropped_packets_total",
        "Packets that conntrack could not place and that were dropped for that.",
        ("filter", "KUBE-FORWARD"),
        base_rules.DROPPED_INVALID,
    ),
    (
        "kubeproxy_iptables_localhost_nodeports_accepted_packets_total",
        "First packets of connections to node ports on the loopback interface.",
        ("nat", "KUBE-POSTROUTING"),
        base_rules.FROM_LOCALHOST,
    ),
)
"""Name and help, table and chain, rule."""

Place = tuple[str, str]
Chains = Mapping[Place, tuple[Rule, ...]]


class IptablesMetrics:
    """Reads counters by clients of its own. May be asked by several threads.

    ``states`` returns the newest wanted state of each family in use. A counter is left out while
    its chain is not in the kernel as wanted.
    """

    def __init__(
        self,
        make: Callable[[inet.Family], IptablesClient],
        states: Callable[[], Iterable[State]],
        log: Log,
        *,
        liberal: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._states = states
        self._log = log
        self._liberal = liberal
        self._clock = clock
        self._lock = threading.Lock()
        self._clients: dict[inet.Family, IptablesClient] = {}
        self._read: dict[tuple[inet.Family, Place], tuple[float, tuple[int, ...]]] = {}

    def collect(self) -> Iterable[Family]:
        """Yield what has been counted, in both IP families together as kube-proxy tells it."""
        states = tuple(self._states())  # at once: the main thread may add one
        with self._lock:
            for name, words, place, rule in COUNTED:
                total = self._total(states, place, rule)
                samples = [] if total is None else [Sample({}, total)]
                yield Family(name, Kind.COUNTER, words, samples)

    def _total(self, states: Iterable[State], place: Place, rule: Rule) -> int | None:
        total = 0
        for state in states:
            rules = base_rules.chains(state, liberal=self._liberal)[place]
            if rule not in rules:
                continue  # Nothing is counted, because nothing of the kind can happen.
            packets = self._packets(FAMILIES[state.family], place)
            if len(packets) != len(rules):
                return None
            total += packets[rules.index(rule)]
        return total

    def _packets(self, family: inet.Family, place: Place) -> tuple[int, ...]:
        """Return the counters of a chain, read now or lately; none if they cannot be read."""
        began = self._clock()
        until, packets = self._read.get((family, place), (began, ()))
        if began < until:
            return packets
        if family not in self._clients:
            self._clients[family] = self._make(family)
        try:
            packets = self._clients[family].packets(*place)
        except (KernelError, Unsupported) as error:
            self._log.warning("reading iptables counters failed", error=str(error))
            packets = ()
        ended = self._clock()
        self._read[family, place] = ended + REST * (ended - began), packets
        return packets

"""The rules for a state, in iptables mode, as ``iptables-save`` would print them. Pure.

Chains, names and order are those of kube-proxy, so that a node where it ran is adopted. What was
made of each service port is kept from one state to the next: a change costs what it touches.
"""

import itertools
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

import msgspec

from kproxy.backends.chains import Wanted, WantedTable
from kproxy.backends.claims import Claims
from kproxy.backends.iptables import base_rules
from kproxy.backends.iptables.fragment import NONE, Fragment, FragmentRenderer, Rules, Setting
from kproxy.desired.diff import diff
from kproxy.desired.model import (
    Family,
    NodePorts,
    ServicePort,
    ServicePortName,
    ServiceState,
    State,
)
from kproxy.errors import InvalidObject
from kproxy.kernel.iptables.types import Chain, KnownRules, Rule, RuleSet

SHARED = {
    "portals": ("nat", "KUBE-SERVICES"),
    "node_ports": ("nat", "KUBE-NODEPORTS"),
    "refused": ("filter", "KUBE-SERVICES"),
    "refused_external": ("filter", "KUBE-EXTERNAL-SERVICES"),
    "firewall": ("filter", "KUBE-PROXY-FIREWALL"),
    "health": ("filter", "KUBE-NODEPORTS"),
}
"""Field of a Fragment → the chain that consists of these of all service ports, by name."""

_NOBODY: frozenset[ServicePortName] = frozenset()


@dataclass(frozen=True, slots=True)
class Delta:
    """The chains that were touched since the kernel held what was wanted, and nothing else."""

    before: RuleSet
    after: Wanted


class Owners:
    """Whose a chain or a rule is."""

    def __init__(self, fragments: Mapping[ServicePortName, Fragment]) -> None:
        self._chains: dict[str, ServicePortName] = {}
        self._rules: dict[tuple[str, Rule], ServicePortName] = {}
        for name, fragment in fragments.items():
            self._chains.update((chain, name) for chain, _ in fragment.chains)
            for part, (table, _chain) in SHARED.items():
                self._rules.update(((table, rule), name) for rule in getattr(fragment, part))

    def of(self, table: str, chain: str, rule: Rule) -> ServicePortName | None:
        """Return the service port; None: it is nobody's. ``rule`` empty: the chain itself."""
        own = self._chains.get(chain) if table == "nat" else None
        return own or self._rules.get((table, rule))


class Renderer:
    """Turns states into rules, and tells what of them is new."""

    def __init__(self, *, tcp_be_liberal: bool = False) -> None:
        self._liberal = tcp_be_liberal
        self._one = FragmentRenderer(Setting.of(State(family=Family.IPV4, services={})))
        self._services: Mapping[ServicePortName, ServiceState] = {}
        self._confirmed: Mapping[ServicePortName, ServiceState] = {}
        self._left_out: Set[ServicePortName] = _NOBODY
        self._node_ports = NodePorts()
        self._claims = Claims()
        self._fragments: dict[ServicePortName, Fragment] = {}
        self._order: list[ServicePortName] | None = None
        self._chains: dict[str, dict[str, Rules]] = {"filter": {}, "nat": {}}
        self._links: Mapping[str, base_rules.Links] = base_rules.NO_LINKS
        self._before: dict[str, dict[str, Rules | None]] = {"filter": {}, "nat": {}}
        self._counts = {"filter": 0, "nat": 0}

    @property
    def invalid(self) -> tuple[InvalidObject, ...]:
        """Return who claims an address and port that the first by name has; the rest it has."""
        return self._claims.problems()

    def render(
        self,
        state: State,
        *,
        left_out: Set[ServicePortName] = _NOBODY,
        held: Set[ServicePortName] = _NOBODY,
    ) -> None:
        """Take over a state, without those ``left_out``; those ``held`` stay as last confirmed.

        :meth:`wanted` and :meth:`delta` tell the outcome.
        """
        services = self._with_held(state.services, held)
        changes = diff(self._services, services)
        touched = {*changes.add, *changes.change, *changes.remove} | (left_out ^ self._left_out)
        if (setting := Setting.of(state)) != self._one.setting:
            self._one = FragmentRenderer(setting)
            touched |= services.keys()
        parts: set[str] = set(SHARED) if self._links is base_rules.NO_LINKS else set()
        if state.node_ports != self._node_ports:
            self._node_ports = state.node_ports
            parts.add("portals")
            touched |= {name for name, one in services.items() if one.service.source_ranges}
        self._services, self._left_out = services, left_out
        touched |= self._claims.update([(name, self._claimant(name)) for name in touched])
        # By name, so that the same changes are always written in the same order.
        parts |= self._refresh(sorted(touched))
        self._links = base_rules.links(state)
        for (table, chain), rules in base_rules.chains(state, liberal=self._liberal).items():
            self._put(table, chain, rules)
        for part in SHARED:
            if part in parts:
                self._assemble(part, state)

    @property
    def chains(self) -> KnownRules:
        """Return the rules of all chains of ours. Not to be changed."""
        return self._chains

    @property
    def counts(self) -> Mapping[str, int]:
        """Return how many rules are in chains of ours, by table. Kept up, not counted."""
        return self._counts

    def wanted(self) -> Wanted:
        """Return all chains of ours, and the rules that lead to them. Not to be changed."""
        return {table: self._table(table, chains) for table, chains in self._chains.items()}

    def delta(self) -> Delta:
        """Return what was touched since the last :meth:`confirm`."""
        before: dict[str, dict[str, Chain]] = {}
        after: dict[str, WantedTable] = {}
        for table, touched in self._before.items():
            now = self._chains[table]
            before[table] = {n: Chain(rules) for n, rules in touched.items() if rules is not None}
            after[table] = self._table(table, {n: now[n] for n in touched if n in now})
        return Delta(before, after)

    def confirm(self) -> None:
        """Note that the kernel holds what is wanted now."""
        self._confirmed = self._services
        for touched in self._before.values():
            touched.clear()

    def owners(self) -> Owners:
        """Return whose the chains and rules are."""
        return Owners(self._fragments)

    def _table(self, table: str, chains: Mapping[str, Rules]) -> WantedTable:
        links = self._links[table]
        return WantedTable(chains=chains, jumps=links.jumps, shared=links.shared)

    def _with_held(
        self, services: Mapping[ServicePortName, ServiceState], held: Set[ServicePortName]
    ) -> Mapping[ServicePortName, ServiceState]:
        if not held:
            return services
        others = {name: one for name, one in services.items() if name not in held}
        known = self._confirmed
        others.update((name, known[name]) for name in held if name in known)
        return others

    def _claimant(self, name: ServicePortName) -> ServicePort | None:
        known = self._services.get(name)
        return None if known is None or name in self._left_out else known.service

    def _refresh(self, names: Iterable[ServicePortName]) -> set[str]:
        """Render service ports anew; return which parts of shared chains are others now."""
        parts: set[str] = set()
        for name in names:
            old, new = self._fragments.get(name, NONE), self._fragment(name)
            self._replace(old.chains, new.chains)
            parts.update(part for part in SHARED if getattr(old, part) != getattr(new, part))
            if new is NONE:
                if self._fragments.pop(name, None) is not None:
                    self._order = None
                continue
            if name not in self._fragments:
                self._order = None
            self._fragments[name] = new
        return parts

    def _replace(
        self, old: tuple[tuple[str, Rules], ...], new: tuple[tuple[str, Rules], ...]
    ) -> None:
        now = dict(new)
        if not old:  # the many of a first state
            for chain in now:
                self._before["nat"].setdefault(chain, None)
            self._chains["nat"].update(now)
            self._counts["nat"] += sum(map(len, now.values()))
            return
        for chain, _rules in old:
            if chain not in now:
                self._put("nat", chain, None)
        for chain, rules in now.items():
            self._put("nat", chain, rules)

    def _fragment(self, name: ServicePortName) -> Fragment:
        wanted = self._services.get(name)
        if wanted is None or name in self._left_out:
            return NONE
        granted = self._claims.granted(wanted.service)
        if granted is not wanted.service:
            wanted = msgspec.structs.replace(wanted, service=granted)
        return self._one.render(wanted, self._node_ports.addresses)

    def _assemble(self, part: str, state: State) -> None:
        if self._order is None:
            self._order = sorted(self._fragments)
        pieces: Iterable[Rules] = [getattr(self._fragments[name], part) for name in self._order]
        rules = tuple(itertools.chain.from_iterable(pieces))
        if part == "portals":
            rules += base_rules.to_node_ports(state)
        self._put(*SHARED[part], rules)

    def _put(self, table: str, chain: str, rules: Rules | None) -> None:
        chains = self._chains[table]
        old = chains.get(chain)
        if old == rules:
            return
        self._before[table].setdefault(chain, old)
        self._counts[table] += len(rules or ()) - len(old or ())
        if rules is None:
            del chains[chain]
        else:
            chains[chain] = rules


def rendered(state: State) -> Renderer:
    """Return a renderer that has taken over one state."""
    renderer = Renderer()
    renderer.render(state)
    return renderer


def render(state: State) -> Wanted:
    """Return all chains of ours for one state (see :class:`Renderer`)."""
    return rendered(state).wanted()

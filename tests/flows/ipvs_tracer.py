"""A node in ipvs mode, as the packet tracer knows it."""

from packet_tracer import Node

from kproxy.backends import chains
from kproxy.backends.base import FAMILIES
from kproxy.backends.ipvs.render import Context
from kproxy.backends.ipvs.rules import rules
from kproxy.backends.ipvs.sets import SETS
from kproxy.backends.ipvs.wanted import Wanted
from kproxy.desired.model import State
from kproxy.kernel.inet import unpacked


def ipvs_node(state: State) -> Node:
    """Return what a node's kernel holds for a state."""
    family = FAMILIES[state.family]
    sets, wanted = SETS[family], Wanted(SETS[family])
    addresses = state.node_ports.addresses
    context = Context(family, "rr", addresses, frozenset(addresses), state.cluster_cidrs)
    wanted.update(state.services, context)
    return Node(
        rules=with_jumps(rules(state, family, wanted.denied)),
        device=frozenset(str(unpacked(address)) for address in wanted.addresses),
        services={
            (str(key.protocol), str(key.address), key.port): [*map(str, place.real_servers)]
            for key, place in wanted.places.items()
        },
        sets={name: frozenset(map(str, wanted.members(name))) for name in sets.specs()},
    )


def with_jumps(wanted: chains.Wanted) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return all chains of the tables, built-in ones with our rules in them."""
    return {
        name: {
            chain: tuple(rules)
            for group in (table.chains, table.jumps, table.shared)
            for chain, rules in group.items()
        }
        for name, table in wanted.items()
    }

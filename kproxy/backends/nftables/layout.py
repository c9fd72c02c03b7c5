"""The table of nftables mode but for its services: sets, chains, and the rules in them. Pure.

How a packet goes through these chains is drawn in this package's README. All rules are made here;
what is made for a service is nothing but elements, which lead to chains by the number of its
endpoints. The exception is client affinity, which needs chains and sets of its own.

No rule looks up what a map gave as a part of a key, though the kernel can do it: ``nft list``
before version 1.1 would end with a failed assertion, on all tables of the node.
"""

import ipaddress
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kproxy.desired import model
from kproxy.desired.model import Prefix, State
from kproxy.kernel.nft.expressions import (
    DROP,
    WORD,
    Base,
    Bitwise,
    ChangeSet,
    Compare,
    Constant,
    Ct,
    CtKey,
    Decide,
    Expression,
    FibType,
    Lookup,
    LookupData,
    LookupVerdict,
    Masquerade,
    Meta,
    MetaKey,
    Payload,
    Random,
    Reject,
    Rule,
    SetMeta,
    SetOp,
    Translate,
    Verdict,
    goto,
)
from kproxy.kernel.nft.types import BaseChain, Chain, Field, Fields, Hook, SetSpec

TABLE = "kube-proxy"
"""kube-proxy's own name: a node has one proxy, and whichever comes takes over its table."""

SERVICE_IPS = "service-ips"
SERVICE_NODEPORTS = "service-nodeports"
NO_ENDPOINT_SERVICES = "no-endpoint-services"
NO_ENDPOINT_NODEPORTS = "no-endpoint-nodeports"
ENDPOINTS = "endpoints"
NODEPORT_ENDPOINTS = "nodeport-endpoints"
CLUSTER_IPS = "cluster-ips"
NODEPORT_IPS = "nodeport-ips"
FIREWALL_IPS = "firewall-ips"
FIREWALL_SOURCES = "firewall-sources"
HAIRPIN = "hairpin"

SERVICES = "services"
REJECT = "reject-packets"

LOCAL_FIRST = 1 << 16
"""Index of the first endpoint for the policy Local; those for the policy Cluster begin at 0."""

AFFINITY_SECONDS_MAX = 86_400
"""The longest time-out that an API server takes; the kernel refuses what is absurd."""

AFFINITY_MAX = 1 << 16
"""Clients that one endpoint with affinity remembers, as many as in kube-proxy."""

_DSTNAT, _SRCNAT = -100, 100
_BEFORE_DSTNAT = _DSTNAT - 10
_AFTER_DSTNAT = _DSTNAT + 10
_CT_NEW = 1 << 3
_CT_DNAT = 1 << 5
_ADDRESS_LOCAL = 2
_LOOPBACK = {model.Family.IPV4: Prefix("127.0.0.0/8"), model.Family.IPV6: Prefix("::1/128")}


def number(value: int) -> bytes:
    """Return a number as registers hold it: in the machine's byte order."""
    return value.to_bytes(WORD, sys.byteorder)


class Words(NamedTuple):
    """What the two families have different."""

    ipv6: bool
    address: Field
    words: int
    """Registers that an address takes."""
    source: int
    """Offset of the source address in the IP header."""
    destination: int


WORDS = {
    model.Family.IPV4: Words(False, Field.IPV4, 1, 12, 16),
    model.Family.IPV6: Words(True, Field.IPV6, 4, 8, 24),
}


def set_specs(family: model.Family) -> Mapping[str, SetSpec]:
    """Return the sets and maps that are always there."""
    address = WORDS[family].address
    place: Fields = (Field.PROTOCOL, address, Field.PORT)
    node_port: Fields = (Field.PROTOCOL, Field.PORT)
    endpoint: Fields = (address, Field.PORT)
    return {
        SERVICE_IPS: SetSpec(place, verdicts=True),
        SERVICE_NODEPORTS: SetSpec(node_port, verdicts=True),
        NO_ENDPOINT_SERVICES: SetSpec(place, verdicts=True),
        NO_ENDPOINT_NODEPORTS: SetSpec(node_port, verdicts=True),
        ENDPOINTS: SetSpec((*place, Field.NUMBER), endpoint),
        NODEPORT_ENDPOINTS: SetSpec((*node_port, Field.NUMBER), endpoint),
        CLUSTER_IPS: SetSpec((address,)),
        NODEPORT_IPS: SetSpec((address,)),
        FIREWALL_IPS: SetSpec(place),
        FIREWALL_SOURCES: SetSpec((*place, address), interval=True),
        HAIRPIN: SetSpec((address, address)),
    }


class Layout:
    """Makes the rules of one state's family, masquerading and detection of local pods."""

    def __init__(self, state: State) -> None:
        self.words = WORDS[state.family]
        self._state = state
        size = self.words.words
        # Protocol, address, port, and whatever comes next in a key.
        self._next = 2 + size
        self._place = (
            Meta(MetaKey.L4PROTO, 0),
            self._load(self.words.destination, 1),
            Payload(Base.TRANSPORT, 2, 2, 1 + size),
        )
        self._node_port = (Meta(MetaKey.L4PROTO, 0), Payload(Base.TRANSPORT, 2, 2, 1))
        bit = 1 << state.masquerade_bit
        self._mark = (
            Meta(MetaKey.MARK, 0),
            Bitwise(0, 0, number(bit ^ 0xFFFFFFFF), number(bit)),
            SetMeta(MetaKey.MARK, 0),
        )

    def chains(self) -> dict[str, Chain]:
        """Return the chains that are always there."""
        unanswered = self._unanswered()
        after = (*unanswered, *self._cluster_ips_check())
        to_services = ((Decide(goto(SERVICES)),),)
        firewall = (self._firewall(),)
        return {
            REJECT: Chain(((Reject(self.words.ipv6),),)),
            SERVICES: Chain(
                (
                    (*self._place, LookupVerdict(SERVICE_IPS, 0)),
                    (*self._to_node(), *self._node_port, LookupVerdict(SERVICE_NODEPORTS, 0)),
                )
            ),
            "nat-prerouting": _base("nat", Hook.PREROUTING, _DSTNAT, to_services),
            "nat-output": _base("nat", Hook.OUTPUT, _DSTNAT, to_services),
            "nat-postrouting": _base("nat", Hook.POSTROUTING, _SRCNAT, self._masquerading()),
            "firewall-prerouting": _base("filter", Hook.PREROUTING, _BEFORE_DSTNAT, firewall),
            "firewall-output": _base("filter", Hook.OUTPUT, _BEFORE_DSTNAT, firewall),
            "filter-input": _base(
                "filter", Hook.INPUT, _BEFORE_DSTNAT, (self._unanswered_node_port(), *unanswered)
            ),
            "filter-forward": _base("filter", Hook.FORWARD, _BEFORE_DSTNAT, after),
            "filter-output": _base("filter", Hook.OUTPUT, _AFTER_DSTNAT, after),
        }

    def pick(self, count: int, *, node_port: bool, local: bool) -> tuple[Rule, ...]:
        """Return the rules that translate to one of ``count`` endpoints of this place."""
        place: Rule = self._node_port if node_port else self._place
        key, name = (2, NODEPORT_ENDPOINTS) if node_port else (self._next, ENDPOINTS)
        draw = Random(count, key, LOCAL_FIRST if local else 0)
        translate = Translate(self.words.ipv6, key, key + self.words.words)
        return ((*place, draw, LookupData(name, 0, key), translate),)

    def sticky(
        self, endpoints: Sequence[tuple[bytes, bytes, str]], seconds: int
    ) -> tuple[Rule, ...]:
        """Return the rules that keep clients where they are: (address, port, set of clients)."""
        timeout_ms = min(max(seconds, 1), AFFINITY_SECONDS_MAX) * 1000
        size = self.words.words
        client = self._load(self.words.source, 0)
        known, new = [], []
        for left, (address, port, clients) in zip(
            range(len(endpoints), 0, -1), endpoints, strict=True
        ):
            chosen: Rule = (
                ChangeSet(SetOp.UPDATE, clients, 0, timeout_ms=timeout_ms),
                Constant(address, size),
                Constant(port, 2 * size),
                Translate(self.words.ipv6, size, 2 * size),
            )
            known.append((client, Lookup(clients, 0), *chosen))
            draw: Rule = (Random(left, size), Compare(size, number(0))) if left > 1 else ()
            new.append((client, *draw, *chosen))
        # Should a set of clients be full: a connection without affinity is better than none.
        last = endpoints[-1]
        unremembered = (
            Constant(last[0], size),
            Constant(last[1], 2 * size),
            Translate(self.words.ipv6, size, 2 * size),
        )
        return (*known, *new, unremembered)

    def cluster_entry(self, target: str) -> tuple[Rule, ...]:
        """Return the rules that packets to a ClusterIP pass on their way to a choice."""
        state = self._state
        entry: Rule = (Decide(goto(target)),)
        if state.masquerade_all:
            return (self._mark, entry)
        if state.cluster_cidrs:
            outside = [self._from(cidr, negated=True) for cidr in state.cluster_cidrs]
            return ((*sum(outside, ()), *self._mark), entry)
        if state.local_interface:
            return ((*self._by_interface(negated=True), *self._mark), entry)
        return (entry,)

    def external_entry(self, target: str) -> tuple[Rule, ...]:
        """Return the rules of other addresses, policy Cluster: answers must come back here."""
        return ((*self._mark, Decide(goto(target))),)

    def local_entry(self, here: str, anywhere: str) -> tuple[Rule, ...]:
        """Return the rules of other addresses, policy Local.

        Pods and the node itself choose as if they had asked for the ClusterIP. Either target may
        be empty: there are no such endpoints.
        """
        rules: list[Rule] = []
        if anywhere:
            verdict = Decide(goto(anywhere))
            for pods in self._from_pods():
                rules.append((*pods, verdict))
            rules.append(
                (
                    FibType(destination=False, to=0),
                    Compare(0, number(_ADDRESS_LOCAL)),
                    *self._mark,
                    verdict,
                )
            )
        if here:
            rules.append((Decide(goto(here)),))
        return tuple(rules)

    def _load(self, offset: int, to: int) -> Payload:
        return Payload(Base.NETWORK, offset, self.words.words * WORD, to)

    def _network(self, offset: int, prefix: str, *, negated: bool = False) -> Rule:
        """Return the condition that an address is (or is not) in a network."""
        network = ipaddress.ip_network(prefix)
        mask = network.netmask.packed
        return (
            self._load(offset, 0),
            Bitwise(0, 0, mask, bytes(len(mask))),
            Compare(0, network.network_address.packed, negated),
        )

    def _from(self, prefix: str, *, negated: bool = False) -> Rule:
        return self._network(self.words.source, prefix, negated=negated)

    def _by_interface(self, *, negated: bool = False) -> Rule:
        name = self._state.local_interface
        value = name[:-1].encode() if name.endswith("+") else name.encode().ljust(16, b"\0")
        return (Meta(MetaKey.IIFNAME, 0), Compare(0, value[:16], negated))

    def _from_pods(self) -> list[Rule]:
        """Return the conditions of which one holds for packets of this cluster's pods."""
        if self._state.cluster_cidrs:
            return [self._from(cidr) for cidr in self._state.cluster_cidrs]
        return [self._by_interface()] if self._state.local_interface else []

    def _to_node(self) -> Rule:
        """Return the condition that a packet goes to an address with node ports."""
        if not self._state.node_ports.everywhere:
            return (self._load(self.words.destination, 0), Lookup(NODEPORT_IPS, 0))
        loopback = _LOOPBACK[self._state.family]
        return (
            FibType(destination=True, to=0),
            Compare(0, number(_ADDRESS_LOCAL)),
            *self._network(self.words.destination, loopback, negated=True),
        )

    def _unanswered(self) -> tuple[Rule, ...]:
        return ((*_NEW, *self._place, LookupVerdict(NO_ENDPOINT_SERVICES, 0)),)

    def _unanswered_node_port(self) -> Rule:
        lookup = LookupVerdict(NO_ENDPOINT_NODEPORTS, 0)
        return (*_NEW, *self._to_node(), *self._node_port, lookup)

    def _cluster_ips_check(self) -> tuple[Rule, ...]:
        """Return the rules for what is still on its way to a ClusterIP: no such port."""
        destination = self._load(self.words.destination, 0)
        refuse = (*_NEW, destination, Lookup(CLUSTER_IPS, 0), Decide(goto(REJECT)))
        unused = [
            (*_NEW, *self._network(self.words.destination, cidr), Decide(DROP))
            for cidr in self._state.service_cidrs
        ]
        return (refuse, *unused)

    def _firewall(self) -> Rule:
        return (
            *_NEW,
            *self._place,
            Lookup(FIREWALL_IPS, 0),
            self._load(self.words.source, self._next),
            Lookup(FIREWALL_SOURCES, 0, negated=True),
            Decide(DROP),
        )

    def _masquerading(self) -> tuple[Rule, ...]:
        bit = number(1 << self._state.masquerade_bit)
        marked = (
            Meta(MetaKey.MARK, 0),
            Bitwise(0, 0, bit, bytes(WORD)),
            Compare(0, bytes(WORD), negated=True),
            # Taken away again, so that no tunnel masquerades the packet a second time.
            Meta(MetaKey.MARK, 0),
            Bitwise(0, 0, number(0xFFFFFFFF), bit),
            SetMeta(MetaKey.MARK, 0),
            Masquerade(),
        )
        # An endpoint that reaches itself through the service would answer itself directly.
        itself = (
            *_bits(CtKey.STATUS, _CT_DNAT),
            self._load(self.words.source, 0),
            self._load(self.words.destination, self.words.words),
            Lookup(HAIRPIN, 0),
            Masquerade(),
        )
        return (marked, itself)


def _bits(key: CtKey, bit: int) -> tuple[Expression, ...]:
    zero = bytes(WORD)
    return (Ct(key, 0), Bitwise(0, 0, number(bit), zero), Compare(0, zero, negated=True))


_NEW = _bits(CtKey.STATE, _CT_NEW)


def _base(kind: str, hook: Hook, priority: int, rules: tuple[Rule, ...]) -> Chain:
    return Chain(rules, BaseChain(kind, hook, priority))


REFUSED = goto(REJECT)
DROPPED: Verdict = DROP

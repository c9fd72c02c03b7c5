"""What happens to the first packet of a connection: a walk through rendered rules and tables.

The tracer knows netfilter's hooks as far as the proxy uses them, and nothing of how rules came to
be. A form of rule that it does not know is an error: a rule nobody traces is a rule nobody tests.
"""

import functools
import ipaddress
import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

NODE_ADDRESS = "192.168.1.1"
NODE_ADDRESSES = frozenset({NODE_ADDRESS, "10.20.0.1", "127.0.0.1", "fd00:1::1", "::1"})


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a connection, as it is at some place."""

    source: str
    protocol: str
    destination: str
    port: int
    mark: int = 0
    interface: str = ""
    """By which interface it came in; empty: the node itself sends it."""
    translated: bool = False
    original: str = ""
    """Its destination before it was translated."""
    virtual: tuple[str, str, int] | None = None
    """The virtual server by which IPVS has translated it."""
    remembered: frozenset[str] = frozenset()
    """The lists of ``-m recent`` that its source is in."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where it ended: ``10.0.0.1:80``, ``refused``, ``dropped``, ``passes`` or ``node``.

    ``passes``: it leaves the node as it came; ``node``: a port of the node itself gets it.
    """

    end: str
    masqueraded: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """A node's kernel: rules by table and chain, and what ipvs mode has beside them."""

    rules: Mapping[str, Mapping[str, Sequence[str]]]
    device: frozenset[str] = frozenset()
    services: Mapping[tuple[str, str, int], Sequence[str]] = field(default_factory=dict)
    """(protocol, address, port) → real servers that take new connections."""
    sets: Mapping[str, frozenset[str]] = field(default_factory=dict)
    addresses: frozenset[str] = NODE_ADDRESSES


class UnknownRule(AssertionError):
    """The tracer does not know what this rule does."""


@dataclass(frozen=True, slots=True)
class _Verdict:
    """How a chain was left: ``""`` is its end."""

    name: str
    packet: Packet


class _Rule:
    """One rule taken apart: conditions, and a target."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.conditions: list[tuple[str, bool, list[str]]] = []
        self.remembers = ""
        """The list of ``-m recent`` that it puts the source into."""
        self.asks = ""
        """The one in which it must be."""
        self.target = ""
        self.arguments: list[str] = []
        words = shlex.split(text)
        if words[:1] != ["-A"]:
            raise UnknownRule(text)
        words = words[2:]
        while words:
            negated = words[0] == "!"
            option, *words = words[negated:]
            if option == "-j":
                self.target, *self.arguments = words
                return
            if option == "--set":
                self.remembers = words[words.index("--name") + 1]
            elif option == "--rcheck":
                self.asks = words[words.index("--name") + 1]
            count = _OPTIONS.get(option)
            if count is None:
                raise UnknownRule(f"{option} in {text}")
            self.conditions.append((option, negated, words[:count]))
            words = words[count:]

    def remembering(self, packet: Packet) -> Packet:
        """Return the packet as it is when the rule has matched."""
        if not self.remembers:
            return packet
        return replace(packet, remembered=packet.remembered | {self.remembers})


_OPTIONS = {
    "-s": 1, "-d": 1, "-p": 1, "-m": 1, "--comment": 1, "--dport": 1, "--mark": 1,
    "--ctstate": 1, "--match-set": 2, "--mode": 1, "--probability": 1, "-i": 1,
    "--dst-type": 1, "--src-type": 1, "--rcheck": 0, "--set": 0, "--seconds": 1, "--reap": 0,
    "--name": 1, "--mask": 1, "--rsource": 0, "--vproto": 1, "--vaddr": 1, "--vport": 1,
    "--ctorigdst": 1,
}  # fmt: skip
_WITHOUT_CONDITION = {"--comment", "--seconds", "--name", "--mask", "--set", "--reap", "--rsource"}
_MODULES = {
    "comment", "tcp", "udp", "sctp", "mark", "conntrack", "set", "statistic", "addrtype", "recent",
    "ipvs",
}  # fmt: skip


class Tracer:
    """Follows packets through one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._parsed = {
            table: {name: [_Rule(text) for text in rules] for name, rules in chains.items()}
            for table, chains in node.rules.items()
        }

    def trace(self, packet: Packet, *, from_node: bool = False, after: str = "") -> set[Outcome]:
        """Return every outcome that is possible: endpoints are picked at random.

        ``after``: the same client was served by this endpoint just before.
        """
        if after:
            packet = replace(packet, remembered=self._memory(packet, after, from_node=from_node))
        hook = "OUTPUT" if from_node else "PREROUTING"
        outcomes = set()
        for verdict in self._walk("nat", hook, packet):
            outcomes |= self._route(verdict.packet, from_node=from_node)
        return outcomes

    def _memory(self, packet: Packet, after: str, *, from_node: bool) -> frozenset[str]:
        """Return in which lists a client is that was served by an endpoint."""
        hook = "OUTPUT" if from_node else "PREROUTING"
        for verdict in self._walk("nat", hook, packet):
            if place(verdict.packet) == after:
                return verdict.packet.remembered
        raise AssertionError(f"{after} cannot have served {packet}")

    def _route(self, packet: Packet, *, from_node: bool) -> set[Outcome]:
        key = (packet.protocol, packet.destination, packet.port)
        if packet.destination in self._node.device or key in self._node.services:
            return self._service_address(packet, from_node=from_node)
        outcomes: set[Outcome] = set()
        filtered = [packet]
        local = packet.destination in self._node.addresses
        for hook in self._hooks(local=local, from_node=from_node):
            filtered = [one for p in filtered for one in self._filter(hook, p, outcomes)]
        for passed in filtered:
            if local and not from_node:
                outcomes.add(Outcome(place(passed) if passed.translated else "node"))
            elif local and not passed.translated:
                outcomes.add(Outcome("node"))
            else:  # also over the loopback device
                outcomes |= self._leave(passed)
        return outcomes

    def _hooks(self, *, local: bool, from_node: bool) -> list[str]:
        """Return the filter hooks on the way of a packet."""
        if from_node:
            return ["OUTPUT", "INPUT"] if local else ["OUTPUT"]
        return ["INPUT"] if local else ["FORWARD"]

    def _filter(self, hook: str, packet: Packet, outcomes: set[Outcome]) -> Iterator[Packet]:
        """Yield the packet for each way it gets through; add the others to the outcomes."""
        for verdict in self._walk("filter", hook, packet):
            if verdict.name in ("REJECT", "DROP"):
                outcomes.add(Outcome("refused" if verdict.name == "REJECT" else "dropped"))
            else:
                yield verdict.packet

    def _service_address(self, packet: Packet, *, from_node: bool) -> set[Outcome]:
        key = (packet.protocol, packet.destination, packet.port)
        outcomes = set()
        # The node's own packets meet IPVS before any filter does.
        filtered = [_Verdict("", packet)]
        if not (from_node and key in self._node.services):
            filtered = list(self._walk("filter", "INPUT", packet))
        for verdict in filtered:
            if verdict.name in ("REJECT", "DROP"):
                outcomes.add(Outcome("refused" if verdict.name == "REJECT" else "dropped"))
            elif key not in self._node.services:
                outcomes.add(Outcome("node"))
            elif not self._node.services[key]:
                outcomes.add(Outcome("refused"))
            else:
                for server in self._node.services[key]:
                    address, _, port = server.rpartition(":")
                    sent = replace(
                        packet, destination=address, port=int(port), translated=True, virtual=key
                    )
                    # IPVS hands what comes in for the node itself up, past all other rules.
                    here = address in self._node.addresses and not from_node
                    for passed in self._filter("OUTPUT" if from_node else "", sent, outcomes):
                        outcomes |= {Outcome(place(sent))} if here else self._leave(passed)
        return outcomes

    def _leave(self, packet: Packet) -> set[Outcome]:
        end = place(packet) if packet.translated else "passes"
        return {
            Outcome(end, masqueraded=verdict.name == "MASQUERADE")
            for verdict in self._walk("nat", "POSTROUTING", packet)
        }

    def _walk(self, table: str, chain: str, packet: Packet) -> list[_Verdict]:
        return list(self._follow(table, chain, packet))

    def _follow(self, table: str, chain: str, packet: Packet, at: int = 0) -> Iterator[_Verdict]:
        """Yield every way through a chain from its rule number ``at`` on."""
        rules = self._parsed[table].get(chain, [])
        for number in range(at, len(rules)):
            rule = rules[number]
            chance = self._matches(rule, packet)
            if chance == 0:
                continue
            if chance < 1:
                yield from self._follow(table, chain, packet, number + 1)
            result = self._act(table, rule, rule.remembering(packet))
            if result is None:  # a chain
                for verdict in self._follow(table, rule.target, rule.remembering(packet)):
                    if verdict.name:
                        yield verdict
                    else:
                        yield from self._follow(table, chain, verdict.packet, number + 1)
                return
            if result.name in ("MARK", "COUNTED"):
                yield from self._follow(table, chain, result.packet, number + 1)
                return
            yield replace(result, name="") if result.name == "RETURN" else result
            return
        yield _Verdict("", packet)

    def _act(self, table: str, rule: _Rule, packet: Packet) -> _Verdict | None:
        if rule.target in self._parsed[table]:
            return None
        if not rule.target:
            return _Verdict("COUNTED", packet)
        match rule.target, rule.arguments:
            case (("ACCEPT" | "DROP" | "RETURN"), []):
                return _Verdict(rule.target, packet)
            case "REJECT", ["--reject-with", ("icmp-port-unreachable" | "icmp6-port-unreachable")]:
                return _Verdict("REJECT", packet)
            case "MASQUERADE", ([] | ["--random-fully"]):
                return _Verdict("MASQUERADE", packet)
            case "MARK", ["--set-xmark", value]:
                bits, mask = (int(number, 16) for number in value.split("/"))
                return _Verdict("MARK", replace(packet, mark=(packet.mark & ~mask) ^ bits))
            case "DNAT", ["--to-destination", to]:
                address, _, port = to.rpartition(":")
                where = address.strip("[]")
                sent = replace(
                    packet,
                    destination=where,
                    port=int(port),
                    translated=True,
                    original=packet.destination,
                )
                return _Verdict("DNAT", sent)
        raise UnknownRule(rule.text)

    def _is_local(self, address: str) -> bool:
        if address in self._node.addresses or address in self._node.device:
            return True
        return _within(address, "127.0.0.0/8")

    def _matches(self, rule: _Rule, packet: Packet) -> float:
        """Return the probability with which the rule matches: 0, 1 or between."""
        chance = 1.0
        for option, negated, values in rule.conditions:
            if option == "--probability":
                chance = float(values[0])
            elif self._holds(option, values, packet, rule) == negated:
                return 0.0
        return chance

    def _holds(self, option: str, values: list[str], packet: Packet, rule: _Rule) -> bool:
        if option in _WITHOUT_CONDITION or (option == "-m" and values[0] in _MODULES):
            return True
        match option, values:
            case "--dst-type", ["LOCAL"]:
                return self._is_local(packet.destination)
            case "--src-type", ["LOCAL"]:
                return self._is_local(packet.source)
            case "--rcheck", []:
                return rule.asks in packet.remembered
            case "--mode", ["random"]:
                return True
            case "--match-set", [name, directions]:
                return _in_set(packet, directions, self._node.sets[name])
        holds = _header_holds(option, values, packet)
        if holds is None:
            raise UnknownRule(f"{option} {values} in {rule.text}")
        return holds


def _header_holds(option: str, values: list[str], packet: Packet) -> bool | None:
    """Return whether a condition on the packet itself holds; None: unknown."""
    match option, values:
        case "-s", [network]:
            return _within(packet.source, network)
        case "-d", [network]:
            return _within(packet.destination, network)
        case "-i", [name]:
            return _by_interface(packet.interface, name)
        case "-p", [protocol]:
            return packet.protocol == protocol
        case "--dport", [port]:
            return packet.port == int(port)
        case "--mark", [value]:
            bits, mask = (int(number, 16) for number in value.split("/"))
            return packet.mark & mask == bits
        case (("--vproto" | "--vaddr" | "--vport"), [value]):
            return packet.virtual is not None and value == _virtual(option, packet.virtual)
        case "--ctorigdst", [network]:
            return _within(packet.original or packet.destination, network)
        case "--ctstate", [states]:
            return _in_state(packet, states)
    return None


def place(packet: Packet) -> str:
    """Return where a packet goes, as an Outcome names it."""
    host = f"[{packet.destination}]" if ":" in packet.destination else packet.destination
    return f"{host}:{packet.port}"


def _virtual(option: str, server: tuple[str, str, int]) -> str:
    protocol, address, port = server
    number = {"tcp": 6, "udp": 17, "sctp": 132}[protocol]
    return {"--vproto": f"{number}", "--vaddr": address, "--vport": f"{port}"}[option]


def _by_interface(interface: str, pattern: str) -> bool:
    if pattern.endswith("+"):
        return interface.startswith(pattern[:-1])
    return interface == pattern


def _in_state(packet: Packet, states: str) -> bool:
    now = {"NEW", "DNAT"} if packet.translated else {"NEW"}
    return not now.isdisjoint(states.split(","))


def _within(address: str, network: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network)


def _in_set(packet: Packet, directions: str, entries: frozenset[str]) -> bool:
    ends = directions.split(",")
    return any(
        all(itertools.starmap(functools.partial(_is_part, packet), zip(parts, ends, strict=False)))
        for parts in (entry.split(",") for entry in entries)
    )


def _is_part(packet: Packet, part: str, direction: str) -> bool:
    """Return whether one part of a set's entry is what is at that end of the packet."""
    if part.isdigit():  # of a set of ports alone
        return packet.port == int(part)
    if part.partition(":")[0] in ("tcp", "udp", "sctp"):
        return part == f"{packet.protocol}:{packet.port}"
    return _within(packet.source if direction == "src" else packet.destination, part)

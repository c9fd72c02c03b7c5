"""The rules of one service port. Pure.

Every rule is said exactly as ``iptables-save`` prints it: otherwise it would never compare equal
with what the kernel holds, and would be written again at every sync.
"""

import functools
import ipaddress
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from kproxy.backends.iptables import names
from kproxy.desired.model import Endpoint, Family, Prefix, ServicePort, ServiceState, State

PROBABILITY_UNIT = 1 << 31
"""In such parts the kernel keeps the probability of ``-m statistic``."""

Rules = tuple[str, ...]


class Fragment(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one service port puts into chains of its own, and into those that all share."""

    portals: Rules = ()
    """nat KUBE-SERVICES: what leads from its addresses to its chains."""
    node_ports: Rules = ()
    """nat KUBE-NODEPORTS: what leads from its node port to them."""
    refused: Rules = ()
    """filter KUBE-SERVICES: its ClusterIP, if nobody serves there."""
    refused_external: Rules = ()
    """filter KUBE-EXTERNAL-SERVICES: its other addresses and node port, if nobody serves there."""
    firewall: Rules = ()
    """filter KUBE-PROXY-FIREWALL: what its source ranges have not let through."""
    health: Rules = ()
    """filter KUBE-NODEPORTS: its health check node port is to be accepted."""
    chains: tuple[tuple[str, Rules], ...] = ()
    """Its own chains in the table nat."""


NONE = Fragment()
"""What a service port has that is left out."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What the rules of every service port depend on beside itself."""

    family: Family
    cluster_cidrs: tuple[Prefix, ...]
    masquerade_all: bool
    local_interface: str

    @classmethod
    def of(cls, state: State) -> "Setting":
        """Return those of a state."""
        return cls(state.family, state.cluster_cidrs, state.masquerade_all, state.local_interface)


class FragmentRenderer:
    """Renders service ports under one setting."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        v4 = setting.family is Family.IPV4
        self._bits = 32 if v4 else 128
        self._masquerade_all = setting.masquerade_all
        self._reject = f"REJECT --reject-with icmp{'' if v4 else '6'}-port-unreachable"
        mask = "255.255.255.255" if v4 else "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
        self._source = f"--mask {mask} --rsource"
        self._from_pods, self._to_service_not_from_pods = _local_detection(setting)

    def render(self, wanted: ServiceState, node_addresses: Sequence[str]) -> Fragment:
        """Return the rules of a service port; addresses it does not have are empty in it."""
        return _Rendering(self, wanted).fragment(node_addresses)

    # What follows is for _Rendering.

    def to_address(self, address: str) -> str:
        """Return the match of a destination."""
        return f"-d {address}/{self._bits}"

    @property
    def reject(self) -> str:
        """Return the target that refuses."""
        return self._reject

    def masqueraded(self, destination: str) -> str | None:
        """Return the match of what goes to a ClusterIP and must be answered by way of this node.

        None: nothing must.
        """
        if self._masquerade_all:
            return destination
        if self._to_service_not_from_pods is None:
            return None
        return self._to_service_not_from_pods.format(destination)

    @property
    def from_pods(self) -> str | None:
        """Return the match of pods of this node; None: they cannot be told."""
        return self._from_pods

    def endpoint_rules(self, service: ServicePort, label: str) -> Callable[[str, str, str], Rules]:
        """Return what makes the rules that translate to an endpoint: chain, address, place."""
        # Of this there are a hundred thousand, so all that can be is done before.
        protocol = service.protocol.lower()
        comment = f'-m comment --comment "{label}"'
        # An endpoint that reaches itself through the service would answer itself directly.
        itself = f"/{self._bits} {comment} -j KUBE-MARK-MASQ"
        translated = f"-p {protocol} {comment}"
        to = f"-m {protocol} -j DNAT --to-destination"
        if not service.affinity_seconds:
            translated = f"{translated} {to}"
            return lambda chain, address, place: (
                f"-A {chain} -s {address}{itself}",
                f"-A {chain} {translated} {place}",
            )
        return lambda chain, address, place: (
            f"-A {chain} -s {address}{itself}",
            f"-A {chain} {translated} -m recent --set --name {chain} {self._source} {to} {place}",
        )

    def remembered(self, service: ServicePort, endpoint: str) -> str:
        """Return the match of clients that were served by this endpoint's chain lately."""
        return (
            f"-m recent --rcheck --seconds {service.affinity_seconds} --reap"
            f" --name {endpoint} {self._source}"
        )


def _local_detection(setting: Setting) -> tuple[str | None, str | None]:
    """Return the match of pods of this node, and that of others, with a place for ``-d``."""
    if setting.local_interface:
        return f"-i {setting.local_interface}", f"{{}} ! -i {setting.local_interface}"
    if not setting.cluster_cidrs:
        return None, None
    # kube-proxy, too, knows one range a family.
    cidr = setting.cluster_cidrs[0]
    if cidr.endswith("/0"):
        return "", None
    return f"-s {cidr}", f"! -s {cidr} {{}}"


class _Rendering:
    """The rendering of one service port."""

    def __init__(self, renderer: FragmentRenderer, wanted: ServiceState) -> None:
        service = self._service = wanted.service
        self._renderer = renderer
        self._wanted = wanted
        self._protocol = service.protocol.lower()
        self._label = names.label(service)
        self._hash = names.service_hash(service)
        self._chains: dict[str, Rules] = {}
        self._external = bool(
            service.node_port or service.external_ips or service.load_balancer_vips
        )
        self._internal_endpoints = wanted.local if service.internal_local else wanted.cluster
        self._external_endpoints = wanted.local if service.external_local else wanted.cluster

    def fragment(self, node_addresses: Sequence[str]) -> Fragment:
        """Return all rules."""
        service, label = self._service, self._label
        portals: list[str] = []
        refused: list[str] = []
        if service.cluster_ip:
            if self._internal_endpoints:
                chain = self._cluster_ip_chain()
                portals.append(self._portal(service.cluster_ip, "cluster IP", chain))
            else:
                refused.append(self._refusal("KUBE-SERVICES", service.cluster_ip, external=False))
        external, node_ports, firewall = self._external_rules(portals, node_addresses)
        health: Rules = ()
        if service.health_check_node_port:
            # Whether or not there are endpoints here: the load balancer asks just that.
            health = (
                "-A KUBE-NODEPORTS -p tcp -m comment --comment"
                f' "{label} health check node port"'
                f" -m tcp --dport {service.health_check_node_port} -j ACCEPT",
            )
        return Fragment(
            portals=tuple(portals),
            node_ports=node_ports,
            refused=tuple(refused),
            refused_external=external,
            firewall=firewall,
            health=health,
            chains=tuple(self._chains.items()),
        )

    def _external_rules(
        self, portals: list[str], node_addresses: Sequence[str]
    ) -> tuple[Rules, Rules, Rules]:
        """Add to ``portals``; return what is refused, node ports, and the firewall's rules."""
        service = self._service
        if not self._external:
            return (), (), ()
        addresses = (*service.external_ips, *service.load_balancer_vips)
        refused: list[str] = []
        if not self._external_endpoints:
            # Also where the policy is Local and there are endpoints elsewhere: what KUBE-EXT-
            # has not led to those (pods and the node itself may) is dropped.
            refused = [self._refusal("KUBE-EXTERNAL-SERVICES", to) for to in addresses]
            if service.node_port:
                refused.append(self._refusal_of_node_port())
        if not self._wanted.anywhere:
            return tuple(refused), (), ()
        chain = self._external_chain()
        portals += [self._portal(ip, "external IP", chain) for ip in service.external_ips]
        balanced, firewall = self._load_balancer(chain, node_addresses)
        portals += balanced
        node_ports: Rules = ()
        if service.node_port:
            node_ports = (
                f'-A KUBE-NODEPORTS -p {self._protocol} -m comment --comment "{self._label}"'
                f" -m {self._protocol} --dport {service.node_port} -j {chain}",
            )
        return tuple(refused), node_ports, firewall

    def _portal(self, address: str, kind: str, chain: str) -> str:
        return (
            f"-A KUBE-SERVICES {self._renderer.to_address(address)} -p {self._protocol}"
            f' -m comment --comment "{self._label} {kind}"'
            f" -m {self._protocol} --dport {self._service.port} -j {chain}"
        )

    def _refusal(self, chain: str, address: str, *, external: bool = True) -> str:
        why, target = self._why_refused()
        return (
            f"-A {chain} {self._renderer.to_address(address)} -p {self._protocol}"
            f' -m comment --comment "{self._label} {why}"'
            f" -m {self._protocol} --dport {self._service.port} -j {target}"
        )

    def _refusal_of_node_port(self) -> str:
        why, target = self._why_refused()
        return (
            f"-A KUBE-EXTERNAL-SERVICES -p {self._protocol}"
            f' -m comment --comment "{self._label} {why}" -m addrtype --dst-type LOCAL'
            f" -m {self._protocol} --dport {self._service.node_port} -j {target}"
        )

    def _why_refused(self) -> tuple[str, str]:
        # Endpoints elsewhere, none here, policy Local: dropped, so that the client tries again.
        if self._wanted.anywhere:
            return "has no local endpoints", "DROP"
        return "has no endpoints", self._renderer.reject

    def _cluster_ip_chain(self) -> str:
        service, renderer = self._service, self._renderer
        destination = f"{renderer.to_address(service.cluster_ip)}"
        match = renderer.masqueraded(destination)
        prefix = names.LOCAL if service.internal_local else names.CLUSTER
        first: Rules = ()
        if match is not None:
            first = (
                f"-A {prefix}{self._hash} {match} -p {self._protocol}"
                f' -m comment --comment "{self._label} cluster IP"'
                f" -m {self._protocol} --dport {service.port} -j KUBE-MARK-MASQ",
            )
        return self._picking_chain(local=service.internal_local, first=first)

    def _picking_chain(self, *, local: bool, first: Rules = ()) -> str:
        """Return the chain that picks an endpoint; make it, and theirs, if that is still to do."""
        chain = (names.LOCAL if local else names.CLUSTER) + self._hash
        if chain not in self._chains:
            self._chains[chain] = ()  # first in order, as kube-proxy has it
            endpoints = self._wanted.local if local else self._wanted.cluster
            self._chains[chain] = (*first, *self._picks(chain, endpoints))
        return chain

    def _picks(self, chain: str, endpoints: Sequence[Endpoint]) -> list[str]:
        """Return the rules that choose each endpoint equally often; make the endpoints' chains."""
        service, label, renderer = self._service, self._label, self._renderer
        chains, identity = self._chains, f"{service.name}{self._protocol}"
        rules_of = renderer.endpoint_rules(service, label)
        start = f'-A {chain} -m comment --comment "{label} -> '
        sticky, rules = [], []
        left = len(endpoints)
        for endpoint in sorted(endpoints, key=_by_address):
            place = names.place(endpoint)
            target = names.ENDPOINT + names.hashed(identity, place)
            if target not in chains:
                chains[target] = rules_of(target, endpoint.address, place)
            if service.affinity_seconds:
                recent = renderer.remembered(service, target)
                sticky.append(f'{start}{place}" {recent} -j {target}')
            rules.append(f'{start}{place}"{probability(left)} -j {target}')
            left -= 1
        return sticky + rules

    def _external_chain(self) -> str:
        """Return the chain of what comes from outside; make it, and what it leads to."""
        service = self._service
        chain = names.EXTERNAL + self._hash
        rule = f"-A {chain}"
        where = f"{self._label} external destinations"
        if not service.external_local:
            # The endpoint may be on another node, and has to answer by way of this one.
            rules = [f'{rule} -m comment --comment "masquerade traffic for {where}"'
                     " -j KUBE-MARK-MASQ"]  # fmt: skip
        else:
            rules = self._short_cuts(rule, where)
        if self._external_endpoints:
            target = self._picking_chain(local=service.external_local)
            rules.append(f"{rule} -j {target}")
        self._chains[chain] = tuple(rules)
        return chain

    def _short_cuts(self, rule: str, where: str) -> list[str]:
        """Return the rules for clients of this node itself, for whom the policy Local is not.

        They go as if by a load balancer outside and back: to any endpoint of the cluster.
        """
        if not self._wanted.cluster:
            return []
        target = self._picking_chain(local=False)
        rules = []
        pods = self._renderer.from_pods
        if pods is not None:
            match = f" {pods}" if pods else ""
            rules.append(
                f'{rule}{match} -m comment --comment "pod traffic for {where}" -j {target}'
            )
        own = "-m addrtype --src-type LOCAL"
        return [
            *rules,
            # The service address may be one of the node's, and then be its source, too.
            f'{rule} -m comment --comment "masquerade LOCAL traffic for {where}" {own}'
            " -j KUBE-MARK-MASQ",
            f'{rule} -m comment --comment "route LOCAL traffic for {where}" {own} -j {target}',
        ]

    def _load_balancer(
        self, external: str, node_addresses: Sequence[str]
    ) -> tuple[list[str], Rules]:
        """Return the rules that lead from load balancer addresses, and those of the firewall."""
        service, label = self._service, self._label
        chain = external
        firewall: Rules = ()
        if service.source_ranges and service.load_balancer_vips:
            chain = names.FIREWALL + self._hash
            rule, comment = f"-A {chain}", f'-m comment --comment "{label} loadbalancer IP"'
            sources = [*service.source_ranges]
            if _any_inside(node_addresses, service.source_ranges):
                # Where the address is one of the node's, it is the source of what the node sends.
                bits = self._renderer.to_address("").removeprefix("-d ")
                sources += [Prefix(f"{one}{bits}") for one in service.load_balancer_vips]
            self._chains[chain] = (
                *(f"{rule} {_from(one)}{comment} -j {external}" for one in sources),
                f'{rule} -m comment --comment "other traffic to {label} will be dropped by'
                ' KUBE-PROXY-FIREWALL"',
            )
            firewall = tuple([
                f"-A KUBE-PROXY-FIREWALL {self._renderer.to_address(vip)} -p {self._protocol}"
                f' -m comment --comment "{label} traffic not accepted by {chain}"'
                f" -m {self._protocol} --dport {service.port} -j DROP"
                for vip in service.load_balancer_vips
            ])  # fmt: skip
        vips = service.load_balancer_vips
        return [self._portal(vip, "loadbalancer IP", chain) for vip in vips], firewall


@functools.cache
def probability(choices: int) -> str:
    """Return the match that is true once in so many times, with a space before it."""
    if choices == 1:
        return ""
    share = round(PROBABILITY_UNIT / choices) / PROBABILITY_UNIT
    return f" -m statistic --mode random --probability {share:.11f}"


_by_address = operator.attrgetter("address", "port")


def _from(source: Prefix) -> str:
    # Of every source is no condition, and not printed.
    return "" if source.endswith("/0") else f"-s {source} "


def _any_inside(addresses: Sequence[str], ranges: Sequence[Prefix]) -> bool:
    networks = [ipaddress.ip_network(one) for one in ranges]
    parsed = [ipaddress.ip_address(address) for address in addresses]
    return any(address in network for address in parsed for network in networks)

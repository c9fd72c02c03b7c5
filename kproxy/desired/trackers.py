"""Services and EndpointSlices of one IP family, taken apart into what a proxy needs of them.

A tracker is given whole objects and keeps, per Service, the parts that :mod:`kproxy.desired.build`
puts together. An object that is wrong in part loses that part only, and the part is reported.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from kproxy.api import addresses, core, discovery
from kproxy.errors import InvalidObject

from .model import Address, Endpoint, Family, Prefix, Protocol, ServicePort, ServicePortName

PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
DEFAULT_AFFINITY_SECONDS = 10800

Report = Callable[[InvalidObject], None]
Endpoints = dict["PortKey", tuple[Endpoint, ...]]
_PROTOCOLS = {protocol.value: protocol for protocol in Protocol}
_FAMILIES = {4: Family.IPV4, 6: Family.IPV6}


class ObjectKey(NamedTuple):
    """Identity of a namespaced object of a known kind."""

    namespace: str
    name: str


class PortKey(NamedTuple):
    """Identity of a port within one Service, and what joins it with ports of EndpointSlices."""

    name: str
    protocol: Protocol


class ServiceTracker:
    """The ports of all Services that have a ClusterIP of one family."""

    def __init__(self, family: Family, report: Report, proxy_name: str = "") -> None:
        self._proxy_name = proxy_name
        self._family = family
        self._report = report
        self._ports: dict[ObjectKey, dict[PortKey, ServicePort]] = {}

    def update(self, key: ObjectKey, service: core.Service | None) -> bool:
        """Take a Service's newest version, or None if it is gone; return whether that matters."""
        ports = self._parse(key, service) if service is not None else {}
        if ports == self._ports.get(key, {}):
            return False
        if ports:
            self._ports[key] = ports
        else:
            self._ports.pop(key, None)
        return True

    def ports(self, key: ObjectKey) -> dict[PortKey, ServicePort]:
        """Return the ports of a Service; none if it is unknown."""
        return self._ports.get(key, {})

    def keys(self) -> Iterable[ObjectKey]:
        """Return all Services that have ports."""
        return self._ports.keys()

    def _parse(self, key: ObjectKey, service: core.Service) -> dict[PortKey, ServicePort]:
        if not _is_ours(service, self._proxy_name):
            return {}
        reader = _ServiceReader(key, service, self._family, self._report)
        cluster_ip = reader.cluster_ip()
        if cluster_ip is None:
            return {}
        common = reader.common(cluster_ip)
        ports: dict[PortKey, ServicePort] = {}
        for index, port in enumerate(service.spec.ports or ()):
            protocol = reader.protocol_of(index, port)
            if protocol is None:
                continue
            port_key = PortKey(port.name, protocol)
            if port_key in ports:
                reader.report(f"spec.ports[{index}].name", f"{port.name!r} is there twice")
                continue
            ports[port_key] = common(
                name=ServicePortName(key.namespace, key.name, port.name, protocol),
                port=port.port,
                node_port=port.node_port,
            )
        return ports


def _is_ours(service: core.Service, proxy_name: str) -> bool:
    """Return whether a Service is for this proxy: not headless, ExternalName or another's."""
    spec = service.spec
    if spec.type == "ExternalName":
        return False
    wanted = (service.metadata.labels or {}).get(PROXY_NAME_LABEL)
    if wanted != (proxy_name or None):
        return False
    # Without an address it is headless ("None") or has not been given one yet.
    first = spec.cluster_ips[0] if spec.cluster_ips else spec.cluster_ip
    return first not in ("", "None")


class _ServiceReader:
    """Reads one Service for one family, and reports what is wrong in it."""

    def __init__(
        self, key: ObjectKey, service: core.Service, family: Family, report: Report
    ) -> None:
        self._key = key
        self._service = service
        self._spec = service.spec
        self._family = family
        self._report = report

    def report(self, field: str, problem: str, remedy: str = "correct the Service") -> None:
        """Report a problem, unless the proxier of the Service's first family does."""
        families = self._spec.ip_families
        if not families or families[0] == self._family:
            label = f"Service {self._key.namespace}/{self._key.name}"
            self._report(InvalidObject(label, field, problem, remedy=remedy))

    def cluster_ip(self) -> Address | None:
        """Return the ClusterIP of this family."""
        plain = self._spec.cluster_ips or [self._spec.cluster_ip]
        if len(plain) == 1 and addresses.is_ordinary_ipv4(plain[0]):  # nearly every Service
            return Address(plain[0]) if self._family is Family.IPV4 else None
        single = [("spec.clusterIP", self._spec.cluster_ip)]
        listed = _numbered("spec.clusterIPs", self._spec.cluster_ips)
        found = self._addresses(listed or single)
        if found and (use := addresses.special_use(found[0])):
            self.report("spec.clusterIP", f"{found[0]!r} is {use}: no service has such an address")
            return None
        return found[0] if found else None

    def common(self, cluster_ip: Address) -> Callable[..., ServicePort]:
        """Return a constructor for the Service's ports that knows what they share."""
        spec = self._spec
        external_ips = self._addresses(_numbered("spec.externalIPs", spec.external_ips))
        ranges = self._prefixes(
            _numbered("spec.loadBalancerSourceRanges", spec.load_balancer_source_ranges)
        )
        balanced = spec.type == "LoadBalancer"
        exposed = balanced or spec.type == "NodePort" or bool(spec.external_ips)
        external_local = exposed and spec.external_traffic_policy == "Local"
        vips = self._vips()
        check_port = spec.health_check_node_port if balanced and external_local else 0

        def make(*, name: ServicePortName, port: int, node_port: int) -> ServicePort:
            return ServicePort(
                name=name,
                cluster_ip=cluster_ip,
                port=port,
                node_port=node_port if balanced or spec.type == "NodePort" else 0,
                external_ips=external_ips,
                load_balancer_vips=vips,
                source_ranges=ranges,
                affinity_seconds=_affinity(spec),
                external_local=external_local,
                internal_local=spec.internal_traffic_policy == "Local",
                health_check_node_port=check_port,
            )

        return make

    def protocol_of(self, index: int, port: core.ServicePort) -> Protocol | None:
        """Return the protocol of a port, or None if the port cannot be used."""
        if not 0 < port.port < 65536:
            remedy = "give a port between 1 and 65535"
            self.report(f"spec.ports[{index}].port", f"{port.port} is out of range", remedy)
            return None
        protocol = _PROTOCOLS.get(port.protocol)
        if protocol is None:
            problem = f"unknown protocol {port.protocol!r}"
            self.report(f"spec.ports[{index}].protocol", problem, "use TCP, UDP or SCTP")
        return protocol

    def _vips(self) -> tuple[Address, ...]:
        status = self._service.status
        balancer = status.load_balancer if status else None
        ingress = balancer.ingress if balancer else None
        # A balancer of mode Proxy delivers to node ports; its address must not be short cut.
        return self._addresses(
            [
                (f"status.loadBalancer.ingress[{index}].ip", one.ip)
                for index, one in enumerate(ingress or ())
                if one.ip and one.ip_mode in (None, "VIP")
            ]
        )

    def _addresses(self, texts: Iterable[tuple[str, str]]) -> tuple[Address, ...]:
        """Return the addresses of this family among pairs of field and text."""
        found: dict[Address, None] = {}
        for field, text in texts:
            parsed = addresses.parse_address(text)
            if parsed is None:
                self.report(field, f"{text!r} is not an IP address")
            elif _FAMILIES[parsed.version] is self._family:
                found[Address(parsed.text)] = None
        return tuple(found)

    def _prefixes(self, texts: Iterable[tuple[str, str]]) -> tuple[Prefix, ...]:
        found: dict[Prefix, None] = {}
        for field, text in texts:
            parsed = addresses.parse_network(text.strip())
            if parsed is None:
                self.report(field, f"{text!r} is not a network (CIDR)")
            elif _FAMILIES[parsed.version] is self._family:
                found[Prefix(parsed.text)] = None
        return tuple(found)


def _numbered(field: str, texts: list[str] | None) -> list[tuple[str, str]]:
    return [(f"{field}[{index}]", text) for index, text in enumerate(texts or ())]


def _affinity(spec: core.ServiceSpec) -> int | None:
    if spec.session_affinity != "ClientIP":
        return None
    config = spec.session_affinity_config
    seconds = config.client_ip.timeout_seconds if config and config.client_ip else None
    return DEFAULT_AFFINITY_SECONDS if seconds is None else seconds


class EndpointSliceTracker:
    """The endpoints of all Services in one family, merged from their EndpointSlices."""

    def __init__(self, family: Family, node: str, report: Report) -> None:
        self._family = family
        self._node = node
        self._report = report
        # Per Service and slice, so that a changed slice costs no more than its Service.
        self._slices: dict[ObjectKey, dict[str, Endpoints]] = {}
        self._owner: dict[ObjectKey, ObjectKey] = {}

    def update(self, key: ObjectKey, item: discovery.EndpointSlice | None) -> set[ObjectKey]:
        """Take a slice's newest version, or None if it is gone; return the Services affected."""
        affected: set[ObjectKey] = set()
        owner = self._owner_of(key, item)
        before = self._owner.get(key)
        if before is not None and before != owner:
            self._forget(key, before)
            affected.add(before)
        if owner is None or item is None:
            return affected
        parsed = self._parse(key, item)
        slices = self._slices.setdefault(owner, {})
        if slices.get(key.name) != parsed:
            slices[key.name] = parsed
            affected.add(owner)
        self._owner[key] = owner
        return affected

    def endpoints(self, service: ObjectKey) -> Endpoints:
        """Return the endpoints of a Service by port, each address and port once, in order."""
        slices = self._slices.get(service)
        if not slices:
            return {}
        if len(slices) == 1:
            return next(iter(slices.values()))
        ports: dict[PortKey, list[Endpoint]] = {}
        for name in sorted(slices):
            for port, endpoints in slices[name].items():
                ports.setdefault(port, []).extend(endpoints)
        return {port: _each_once(endpoints) for port, endpoints in ports.items()}

    def _owner_of(self, key: ObjectKey, item: discovery.EndpointSlice | None) -> ObjectKey | None:
        if item is None or item.address_type != self._family:
            return None
        service = (item.metadata.labels or {}).get(discovery.SERVICE_NAME_LABEL)
        return ObjectKey(key.namespace, service) if service else None

    def _forget(self, key: ObjectKey, owner: ObjectKey) -> None:
        del self._owner[key]
        slices = self._slices[owner]
        del slices[key.name]
        if not slices:
            del self._slices[owner]

    def _parse(self, key: ObjectKey, item: discovery.EndpointSlice) -> Endpoints:
        usable = self._usable(key, item)
        parsed: dict[PortKey, list[Endpoint]] = {}
        for index, port in enumerate(item.ports or ()):
            protocol = _PROTOCOLS.get(port.protocol or "TCP")
            # No port number means "all ports", which has no meaning for a Service.
            if port.port is None:
                continue
            if protocol is None:
                problem = f"unknown protocol {port.protocol!r}"
                self._complain(key, f"ports[{index}].protocol", problem)
                continue
            if not 0 < port.port < 65536:
                self._complain(key, f"ports[{index}].port", f"{port.port} is out of range")
                continue
            made = [self._endpoint(address, port.port, known) for address, known in usable]
            parsed.setdefault(PortKey(port.name or "", protocol), []).extend(made)
        return {port: _each_once(endpoints) for port, endpoints in parsed.items()}

    def _usable(
        self, key: ObjectKey, item: discovery.EndpointSlice
    ) -> list[tuple[Address, discovery.Endpoint]]:
        """Return the endpoints with an address of this family that a pod may have, canonical."""
        usable = []
        ordinary = addresses.is_ordinary_ipv4 if self._family is Family.IPV4 else _never
        for index, endpoint in enumerate(item.endpoints or ()):
            if endpoint.addresses and ordinary(endpoint.addresses[0]):  # nearly all of 100,000
                usable.append((Address(endpoint.addresses[0]), endpoint))
                continue
            if not endpoint.addresses:
                self._complain(key, f"endpoints[{index}].addresses", "is empty")
                continue
            text = endpoint.addresses[0]
            parsed = addresses.parse_address(text)
            if parsed is None or _FAMILIES[parsed.version] is not self._family:
                field = f"endpoints[{index}].addresses[0]"
                self._complain(key, field, f"{text!r} is not an {self._family} address")
                continue
            if use := addresses.special_use(parsed.text):
                field = f"endpoints[{index}].addresses[0]"
                self._complain(key, field, f"{text!r} is {use}: no pod has such an address")
                continue
            usable.append((Address(parsed.text), endpoint))
        return usable

    def _endpoint(self, address: Address, port: int, known: discovery.Endpoint) -> Endpoint:
        conditions = known.conditions or _NO_CONDITIONS
        hints = known.hints
        ready, serving = conditions.ready is not False, conditions.serving is not False
        if ready and serving and hints is None and not conditions.terminating:
            # Nearly all of 100,000: the fewer fields are named, the faster one is made.
            return Endpoint(address=address, port=port, local=known.node_name == self._node)
        return Endpoint(
            address=address,
            port=port,
            ready=ready,
            serving=serving,
            terminating=conditions.terminating is True,
            local=known.node_name == self._node,
            zone_hints=_names(hints.for_zones) if hints else _NO_NAMES,
            node_hints=_names(hints.for_nodes) if hints else _NO_NAMES,
        )

    def _complain(self, key: ObjectKey, field: str, problem: str) -> None:
        label = f"EndpointSlice {key.namespace}/{key.name}"
        self._report(InvalidObject(label, field, problem, remedy="correct the EndpointSlice"))


_NO_CONDITIONS = discovery.EndpointConditions()
_NO_NAMES: frozenset[str] = frozenset()


def _never(text: str) -> bool:
    return False


def _names(hints: Sequence[discovery.ForZone | discovery.ForNode] | None) -> frozenset[str]:
    return frozenset([hint.name for hint in hints]) if hints else _NO_NAMES


def _each_once(endpoints: list[Endpoint]) -> tuple[Endpoint, ...]:
    """Return endpoints in the order of their addresses, of doubles the preferred one."""
    if len({endpoint.port for endpoint in endpoints}) == 1:
        by_address = {endpoint.address: endpoint for endpoint in endpoints}
        if len(by_address) == len(endpoints):  # no doubles: nothing to prefer
            return tuple([by_address[address] for address in sorted(by_address)])
    chosen: dict[tuple[Address, int], Endpoint] = {}
    for endpoint in endpoints:
        place = (endpoint.address, endpoint.port)
        known = chosen.get(place)
        if known is None or _preferred(endpoint, known):
            chosen[place] = endpoint
    return tuple([chosen[place] for place in sorted(chosen)])


def _preferred(new: Endpoint, known: Endpoint) -> bool:
    """Return whether to replace an endpoint by its double from a later slice.

    While an endpoint moves between slices both tell of it, and one of them may be out of date.
    Ready beats serving beats the rest, so that the move never takes it out of service; of equals
    the local one counts, as for kube-proxy.
    """
    return (new.ready, new.serving, new.local) > (known.ready, known.serving, known.local)

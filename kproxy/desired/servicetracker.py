"""Services of one IP family, taken apart into what a proxy needs of them.

A Service that is wrong in part loses that part only, and the part is reported. Most of what is
looked for here an API server does not let in; but a proxy must not rely on what it cannot see.
"""

import re
from collections.abc import Callable, Iterable

from kproxy.api import addresses, core
from kproxy.errors import InvalidObject

from .model import Address, Family, Prefix, Protocol, ServicePort, ServicePortName
from .trackers import FAMILIES, PROTOCOLS, ObjectKey, PortKey, Report

PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
DEFAULT_AFFINITY_SECONDS = 10800
MOST_AFFINITY_SECONDS = 86400

_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_NAME = re.compile(_LABEL)
_NAMES = re.compile(rf"{_LABEL}/{_LABEL}")
_FAMILY_NAMES = frozenset(family.value for family in Family)
_TYPES: frozenset[str | None] = frozenset(
    ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName", ""]
)
_POLICIES: frozenset[str | None] = frozenset(["Cluster", "Local"])
_AFFINITIES: frozenset[str | None] = frozenset(["None", "ClientIP"])
_IP_MODES: frozenset[str | None] = frozenset(["VIP", "Proxy", "", None])


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
        if cluster_ip is None or not reader.has_names():
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
                node_port=reader.node_port_of(index, port),
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
        if self._first_family() is self._family:
            label = f"Service {self._key.namespace}/{self._key.name}"
            self._report(InvalidObject(label, field, problem, remedy=remedy))

    def _first_family(self) -> Family:
        """Return in which family the Service is reported about; any one, if it names none."""
        spec = self._spec
        if spec.ip_families and spec.ip_families[0] in _FAMILY_NAMES:
            return Family(spec.ip_families[0])
        for text in (*(spec.cluster_ips or ()), spec.cluster_ip):
            if parsed := addresses.parse_address(text):
                return FAMILIES[parsed.version]
        return Family.IPV4

    def has_names(self) -> bool:
        """Return whether the Service has a name and a namespace that can be."""
        if _NAMES.fullmatch(f"{self._key.namespace}/{self._key.name}"):
            return True  # nearly all: one look for both
        for field, name in (("namespace", self._key.namespace), ("name", self._key.name)):
            if not _NAME.fullmatch(name):
                self.report(f"metadata.{field}", _no_name(name))
        return False

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
        self._check_words()
        external_ips = self._external_ips() if spec.external_ips else ()
        ranges = self._prefixes(
            _numbered("spec.loadBalancerSourceRanges", spec.load_balancer_source_ranges)
        )
        balanced = spec.type == "LoadBalancer"
        exposed = balanced or spec.type == "NodePort" or bool(spec.external_ips)
        external_local = exposed and spec.external_traffic_policy == "Local"
        vips = self._vips()
        check_port = 0
        if balanced and external_local:
            check_port = self._port("spec.healthCheckNodePort", spec.health_check_node_port)
        affinity = self._affinity() if spec.session_affinity not in ("None", "") else None

        def make(*, name: ServicePortName, port: int, node_port: int) -> ServicePort:
            return ServicePort(
                name=name,
                cluster_ip=cluster_ip,
                port=port,
                node_port=node_port if balanced or spec.type == "NodePort" else 0,
                external_ips=external_ips,
                load_balancer_vips=vips,
                source_ranges=ranges,
                affinity_seconds=affinity,
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
        if port.name and not _NAME.fullmatch(port.name):
            self.report(f"spec.ports[{index}].name", _no_name(port.name))
            return None
        protocol = PROTOCOLS.get(port.protocol)
        if protocol is None:
            problem = f"unknown protocol {port.protocol!r}"
            self.report(f"spec.ports[{index}].protocol", problem, "use TCP, UDP or SCTP")
        return protocol

    def node_port_of(self, index: int, port: core.ServicePort) -> int:
        """Return the node port of a port; 0 if it has none that can be used."""
        return port.node_port and self._port(f"spec.ports[{index}].nodePort", port.node_port)

    def _port(self, field: str, number: int) -> int:
        """Return a number that may be 0 for none, or 0 if it is none of a port."""
        if 0 <= number < 65536:
            return number
        self.report(field, f"{number} is out of range", "give a port between 1 and 65535")
        return 0

    def _check_words(self) -> None:
        """Report words that mean nothing; they count as the default."""
        spec = self._spec
        if spec.type not in _TYPES:
            self.report("spec.type", _no_word(spec.type, _TYPES))
        for field, word in (
            ("externalTrafficPolicy", spec.external_traffic_policy),
            ("internalTrafficPolicy", spec.internal_traffic_policy),
        ):
            if word and word not in _POLICIES:
                self.report(f"spec.{field}", _no_word(word, _POLICIES))

    def _external_ips(self) -> tuple[Address, ...]:
        """Return the external addresses, without those that only a machine itself can reach."""
        usable = []
        for index, text in enumerate(self._spec.external_ips or ()):
            field = f"spec.externalIPs[{index}]"
            parsed = addresses.parse_address(text)
            if parsed and (use := addresses.special_use(parsed.text)):
                self.report(field, f"{text!r} is {use}: nobody else can send to it")
            else:
                usable.append((field, text))
        return self._addresses(usable)

    def _affinity(self) -> int | None:
        """Return the time-out of a session affinity that is asked for; None: there is none."""
        spec = self._spec
        if spec.session_affinity != "ClientIP":
            self.report("spec.sessionAffinity", _no_word(spec.session_affinity, _AFFINITIES))
            return None
        config = spec.session_affinity_config
        seconds = config.client_ip.timeout_seconds if config and config.client_ip else None
        if seconds is None:
            return DEFAULT_AFFINITY_SECONDS
        if not 0 < seconds <= MOST_AFFINITY_SECONDS:
            field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
            remedy = f"use 1 to {MOST_AFFINITY_SECONDS} seconds"
            self.report(field, f"{seconds} is out of range", remedy)
            return DEFAULT_AFFINITY_SECONDS
        return seconds

    def _vips(self) -> tuple[Address, ...]:
        status = self._service.status
        balancer = status.load_balancer if status else None
        ingress = balancer.ingress if balancer else None
        for index, one in enumerate(ingress or ()):
            if one.ip_mode not in _IP_MODES:
                field = f"status.loadBalancer.ingress[{index}].ipMode"
                self.report(field, _no_word(one.ip_mode, _IP_MODES))
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
            elif FAMILIES[parsed.version] is self._family:
                found[Address(parsed.text)] = None
        return tuple(found)

    def _prefixes(self, texts: Iterable[tuple[str, str]]) -> tuple[Prefix, ...]:
        found: dict[Prefix, None] = {}
        for field, text in texts:
            parsed = addresses.parse_network(text.strip())
            if parsed is None:
                self.report(field, f"{text!r} is not a network (CIDR)")
            elif FAMILIES[parsed.version] is self._family:
                found[Prefix(parsed.text)] = None
        return tuple(found)


def _numbered(field: str, texts: list[str] | None) -> list[tuple[str, str]]:
    return [(f"{field}[{index}]", text) for index, text in enumerate(texts or ())]


def _no_name(name: str) -> str:
    """Return what is wrong with a name; of one that is too long, only the beginning."""
    shown = repr(name) if len(name) < 100 else f"{name[:60]!r}…, {len(name)} characters,"
    return f"{shown} is not a name of up to 63 lower case letters, digits and '-'"


def _no_word(word: str | None, known: frozenset[str | None]) -> str:
    return f"{word!r} is none of {', '.join(sorted(filter(None, known)))}"

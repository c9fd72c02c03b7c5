"""What a Service and an EndpointSlice must fulfil."""

from . import addresses, checks
from .checks import Checker
from .core import Service, ServicePort, ServiceSpec, ServiceStatus
from .discovery import Endpoint, EndpointSlice

TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
POLICIES = ("Cluster", "Local")
FAMILY_POLICIES = ("SingleStack", "PreferDualStack", "RequireDualStack")
DISTRIBUTIONS = ("PreferClose", "PreferSameZone", "PreferSameNode")
FAMILIES = {"IPv4": 4, "IPv6": 6}
MAX_ENDPOINTS = 1000
MAX_ADDRESSES = 100
MAX_ZONES = 8


def check_service(check: Checker, service: Service) -> None:
    """Check ``spec`` of a Service."""
    spec = service.spec
    if not check.one_of("spec.type", spec.type, TYPES):
        return
    check.labels("spec.selector", spec.selector)
    _ports(check, spec)
    _cluster_ips(check, spec)
    _external(check, spec)
    _balanced(check, spec)
    _affinity(check, spec)
    if spec.type == "ExternalName":
        name = spec.external_name.lower().removesuffix(".")
        check.name("spec.externalName", name, checks.DNS_SUBDOMAIN, 253)


def _ports(check: Checker, spec: ServiceSpec) -> None:
    ports = spec.ports or []
    headless = spec.cluster_ip == "None"
    if not ports and not headless and spec.type != "ExternalName":
        check.fault("spec.ports", "is missing", "list at least one port")
    for index, port in enumerate(ports):
        _port(check, f"spec.ports[{index}]", port, spec)
        if not port.name and len(ports) > 1:
            check.fault(f"spec.ports[{index}].name", "is missing", "name each of several ports")
    fields = [(f"spec.ports[{index}]", port) for index, port in enumerate(ports)]
    check.unique(((f"{at}.name", port.name) for at, port in fields if port.name), "name")
    check.unique(((at, (port.port, port.protocol)) for at, port in fields), "port and protocol")
    nodes = ((f"{at}.nodePort", (port.node_port, port.protocol)) for at, port in fields)
    check.unique(((at, key) for at, key in nodes if key[0]), "node port")


def _port(check: Checker, at: str, port: ServicePort, spec: ServiceSpec) -> None:
    check.port(f"{at}.port", port.port)
    check.one_of(f"{at}.protocol", port.protocol, checks.PROTOCOLS)
    if port.name:
        check.name(f"{at}.name", port.name)
    if port.app_protocol:
        check.qualified(f"{at}.appProtocol", port.app_protocol, "a protocol's name")
    if port.target_port is not None:
        check.port_or_name(f"{at}.targetPort", port.target_port)
    if port.node_port:
        check.port(f"{at}.nodePort", port.node_port)
        if spec.type not in ("NodePort", "LoadBalancer"):
            problem = f"may not be used when type is {spec.type}"
            check.fault(f"{at}.nodePort", problem, "remove it, or set type: NodePort")


def _cluster_ips(check: Checker, spec: ServiceSpec) -> None:
    if spec.type == "ExternalName":
        if spec.cluster_ip:
            problem = "may not be set when type is ExternalName"
            check.fault("spec.clusterIP", problem, "remove it")
        return
    listed = [
        (f"spec.clusterIPs[{index}]", text) for index, text in enumerate(spec.cluster_ips or ())
    ]
    if listed and listed[0][1] != spec.cluster_ip:
        problem = f"does not match spec.clusterIP {spec.cluster_ip!r}"
        check.fault(listed[0][0], problem, "make both the same")
    if spec.cluster_ip == "None":
        if spec.type != "ClusterIP":
            problem = f"may not be None when type is {spec.type}"
            check.fault("spec.clusterIP", problem, "set type: ClusterIP")
        return
    if not listed and spec.cluster_ip:
        listed = [("spec.clusterIP", spec.cluster_ip)]
    if len(listed) > 2:
        check.fault("spec.clusterIPs", "more than two addresses", "give one for each family")
    families = [FAMILIES.get(name) for name in spec.ip_families or ()]
    for index, name in enumerate(spec.ip_families or ()):
        check.one_of(f"spec.ipFamilies[{index}]", name, FAMILIES)
    named = ((f"spec.ipFamilies[{at}]", name) for at, name in enumerate(spec.ip_families or ()))
    check.unique(named, "family")
    if spec.ip_family_policy is not None:
        check.one_of("spec.ipFamilyPolicy", spec.ip_family_policy, FAMILY_POLICIES)
    found = []
    for index, (field, text) in enumerate(listed):
        version = families[index] if index < len(families) else None
        found.append(check.address(field, text, version))
    if len(found) == 2 and found[0] == found[1] is not None:
        check.fault("spec.clusterIPs[1]", "of the same family as the first", "use the other one")


def _external(check: Checker, spec: ServiceSpec) -> None:
    for index, text in enumerate(spec.external_ips or ()):
        check.usable_address(f"spec.externalIPs[{index}]", text)
    for index, text in enumerate(spec.load_balancer_source_ranges or ()):
        check.network(f"spec.loadBalancerSourceRanges[{index}]", text.strip())
    if spec.load_balancer_source_ranges and spec.type != "LoadBalancer":
        problem = f"may not be used when type is {spec.type}"
        check.fault("spec.loadBalancerSourceRanges", problem, "remove it")
    if spec.internal_traffic_policy is not None:
        check.one_of("spec.internalTrafficPolicy", spec.internal_traffic_policy, POLICIES)
    if spec.external_traffic_policy:
        check.one_of("spec.externalTrafficPolicy", spec.external_traffic_policy, POLICIES)
        if spec.type not in ("NodePort", "LoadBalancer") and not spec.external_ips:
            problem = "may only be set for externally accessible services"
            check.fault("spec.externalTrafficPolicy", problem, "remove it")
    if spec.health_check_node_port:
        check.port("spec.healthCheckNodePort", spec.health_check_node_port)
        if spec.type != "LoadBalancer" or spec.external_traffic_policy != "Local":
            check.fault("spec.healthCheckNodePort", _HEALTH_CHECKED, "remove it")


def _balanced(check: Checker, spec: ServiceSpec) -> None:
    """Check how traffic is spread, and what only load balancers have."""
    if spec.traffic_distribution is not None:
        check.one_of("spec.trafficDistribution", spec.traffic_distribution, DISTRIBUTIONS)
    only = {
        "loadBalancerClass": spec.load_balancer_class,
        "allocateLoadBalancerNodePorts": spec.allocate_load_balancer_node_ports,
    }
    for name, value in only.items():
        if value is not None and spec.type != "LoadBalancer":
            problem = "may only be used when `type` is 'LoadBalancer'"
            check.fault(f"spec.{name}", problem, "remove it")
    if spec.load_balancer_class is not None:
        field = "spec.loadBalancerClass"
        check.qualified(field, spec.load_balancer_class, "the name of a class")


_HEALTH_CHECKED = (
    "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
)


def check_ingress(check: Checker, status: ServiceStatus) -> None:
    """Check what a load balancer reports."""
    found = (status.load_balancer.ingress if status.load_balancer else None) or ()
    for index, one in enumerate(found):
        at = f"status.loadBalancer.ingress[{index}]"
        if one.ip:
            check.address(f"{at}.ip", one.ip)
        if one.ip_mode is not None:
            check.one_of(f"{at}.ipMode", one.ip_mode, ("VIP", "Proxy"))
        if one.hostname:
            check.name(f"{at}.hostname", one.hostname, checks.DNS_SUBDOMAIN, 253)


def _affinity(check: Checker, spec: ServiceSpec) -> None:
    check.one_of("spec.sessionAffinity", spec.session_affinity, ("None", "ClientIP"))
    config = spec.session_affinity_config
    seconds = config.client_ip.timeout_seconds if config and config.client_ip else None
    if seconds is not None and not 0 < seconds <= 86400:
        field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
        check.fault(field, f"{seconds} is out of range", "use 1 to 86400 seconds")


def check_slice(check: Checker, item: EndpointSlice) -> None:
    """Check an EndpointSlice."""
    if not item.address_type:
        check.fault("addressType", "is missing", f"use one of {', '.join((*FAMILIES, 'FQDN'))}")
        return
    if not check.one_of("addressType", item.address_type, (*FAMILIES, "FQDN")):
        return
    endpoints = item.endpoints or []
    if len(endpoints) > MAX_ENDPOINTS:
        problem = f"must have at most {MAX_ENDPOINTS} items"
        check.fault("endpoints", problem, "use several slices")
    version = FAMILIES.get(item.address_type)
    for index, endpoint in enumerate(endpoints):
        _addresses(check, f"endpoints[{index}].addresses", endpoint.addresses, version)
        _endpoint(check, f"endpoints[{index}]", endpoint)
    ports = item.ports or []
    for index, port in enumerate(ports):
        if port.port is not None:
            check.port(f"ports[{index}].port", port.port)
        if port.protocol is not None:
            check.one_of(f"ports[{index}].protocol", port.protocol, checks.PROTOCOLS)
        if port.name:
            check.name(f"ports[{index}].name", port.name)
        if port.app_protocol:
            field = f"ports[{index}].appProtocol"
            check.qualified(field, port.app_protocol, "a protocol's name")
    named = ((f"ports[{index}].name", port.name or "") for index, port in enumerate(ports))
    check.unique(named, "name")


def _addresses(check: Checker, at: str, texts: list[str], version: int | None) -> None:
    """Check the addresses of an endpoint; without a version they are names."""
    if not texts:
        check.fault(at, "is empty", "give an address")
    if len(texts) > MAX_ADDRESSES:
        problem = f"must have at most {MAX_ADDRESSES} items"
        check.fault(at, problem, "use several endpoints")
    for place, text in enumerate(texts):
        if version:
            check.usable_address(f"{at}[{place}]", text, version)
        else:
            check.name(f"{at}[{place}]", text.removesuffix("."), checks.DNS_SUBDOMAIN, 253)


def _endpoint(check: Checker, at: str, endpoint: Endpoint) -> None:
    if endpoint.hostname is not None:
        check.name(f"{at}.hostname", endpoint.hostname)
    if endpoint.node_name is not None:
        check.name(f"{at}.nodeName", endpoint.node_name, checks.DNS_SUBDOMAIN, 253)
    zones = (endpoint.hints.for_zones if endpoint.hints else None) or []
    if len(zones) > MAX_ZONES:
        problem = f"must have at most {MAX_ZONES} items"
        check.fault(f"{at}.hints.forZones", problem, "leave some out")
    for index, zone in enumerate(zones):
        if not zone.name:
            check.fault(f"{at}.hints.forZones[{index}].name", "is missing", "add it")


def canonical_cluster_ips(service: Service) -> list[str]:
    """Return the valid ClusterIPs of a Service, canonical."""
    spec = service.spec
    texts = spec.cluster_ips or [spec.cluster_ip]
    parsed = (addresses.parse_address(text) for text in texts)
    return [address.text for address in parsed if address is not None]

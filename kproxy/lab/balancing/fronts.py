"""What the balancer balances: the API servers, and Services of type LoadBalancer. Pure.

A front is a set of addresses and ports with servers behind them, each with a check of its own.
What is to be programmed is said as a Service and EndpointSlices that exist in memory only, so that
the proxies' own backends can do it:

* The front's address is the Service's ClusterIP. Clients from beyond the edge keep their address,
  as pods do on a node (they are the State's ``cluster_cidrs``), because the answers of servers
  come back through the edge anyhow. Others are masqueraded, or their answers would go past it.
* A Service with ``loadBalancerSourceRanges`` becomes one of policy Local instead, with the address
  in its status and all servers "local": so the ranges are kept and clients keep their address.
  Clients on the servers' own segment cannot use it, except by way of a node's proxy.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from kproxy.api import core, discovery
from kproxy.api.meta import ObjectMeta

from .addresses import Address, Key, key_of
from .health import Probe

HEALTHZ = 10256
API: Key = ("kproxy-edge", "kube-apiserver")
EXCLUDED_LABEL = "node.kubernetes.io/exclude-from-external-load-balancers"
LEAVING_TAINT = "ToBeDeletedByClusterAutoscaler"


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One of those behind a front: its addresses, and what asks whether it is well."""

    name: str
    addresses: tuple[str, ...]
    probe: Probe


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """A port of a front, and where it leads on every server."""

    name: str
    protocol: str
    port: int
    target: int


class Front(msgspec.Struct, frozen=True, kw_only=True):
    """See the module. ``cut``: whether connections to a dead server are ended."""

    key: Key
    addresses: tuple[str, ...]
    ports: tuple[Port, ...]
    servers: tuple[Server, ...]
    source_ranges: tuple[str, ...] = ()
    placeholders: tuple[str, ...] = ()
    """Addresses of its own that a Service with source ranges needs beside."""
    affinity_seconds: int | None = None
    cut: bool = False


class Objects(msgspec.Struct, frozen=True):
    """A front as objects for a proxy."""

    service: core.Service
    slices: tuple[discovery.EndpointSlice, ...]


def of_api(address: str, port: int, servers: Sequence[tuple[str, int]], scheme: str) -> Front:
    """Return the front of the API servers."""
    behind = [
        Server(
            name=f"{host}:{number}",
            addresses=(host,),
            probe=Probe(scheme, host, number, "/readyz"),
        )
        for host, number in servers
    ]
    # All of a port: each slice has one port, so all servers listen at the same one.
    target = servers[0][1] if servers else port
    ports = (Port(name="https", protocol="TCP", port=port, target=target),)
    return Front(key=API, addresses=(address,), ports=ports, servers=tuple(behind), cut=True)


def is_ours(service: core.Service) -> bool:
    """Return whether a Service is to be given an address by this balancer."""
    return service.spec.type == "LoadBalancer" and service.spec.load_balancer_class is None


def of_services(
    services: Iterable[core.Service],
    assigned: Mapping[Key, tuple[Address, ...]],
    nodes: Sequence[core.Node],
) -> dict[Key, Front]:
    """Return the fronts of all Services that have addresses, and at least one node port."""
    usable = [node for node in nodes if _is_usable(node)]
    found = {}
    for service in services:
        key = key_of(service)
        given = assigned.get(key, ())
        ports = tuple(_ports(service))
        if given and ports:
            found[key] = _front(service, key, tuple(map(str, given)), ports, usable)
    return found


def _front(
    service: core.Service,
    key: Key,
    given: tuple[str, ...],
    ports: tuple[Port, ...],
    nodes: Sequence[core.Node],
) -> Front:
    spec = service.spec
    own_check = spec.external_traffic_policy == "Local" and spec.health_check_node_port
    number = spec.health_check_node_port if own_check else HEALTHZ
    versions = {":" in address for address in given}
    servers = []
    for node in nodes:
        reached = tuple(one for one in _internal(node) if (":" in one) in versions)
        if reached:
            probe = Probe("http", _internal(node)[0], number, "/healthz")
            servers.append(Server(name=node.metadata.name, addresses=reached, probe=probe))
    return Front(
        key=key,
        addresses=given,
        ports=ports,
        servers=tuple(servers),
        source_ranges=tuple(spec.load_balancer_source_ranges or ()),
        placeholders=tuple(spec.cluster_ips or [spec.cluster_ip]),
        affinity_seconds=_affinity(spec),
    )


def objects(front: Front, is_well: Callable[[Probe], bool], edge: str) -> Objects:
    """Return what to hand to a proxy on the host ``edge``: only servers that are well."""
    namespace, name = front.key
    well = [server for server in front.servers if is_well(server.probe)]
    ports = [
        discovery.EndpointPort(name=port.name, protocol=port.protocol, port=port.target)
        for port in front.ports
    ]
    slices = [
        discovery.EndpointSlice(
            metadata=ObjectMeta(
                name=f"{name}-{family.lower()}",
                namespace=namespace,
                labels={discovery.SERVICE_NAME_LABEL: name},
            ),
            address_type=family,
            ports=ports,
            endpoints=[
                discovery.Endpoint(addresses=[address], node_name=edge)
                for server in well
                for address in server.addresses
                if (":" in address) is (family == "IPv6")
            ],
        )
        for family in ("IPv4", "IPv6")
    ]
    meta = ObjectMeta(name=name, namespace=namespace)
    if front.source_ranges:
        ingress = [core.LoadBalancerIngress(ip=one, ip_mode="VIP") for one in front.addresses]
        status = core.ServiceStatus(load_balancer=core.LoadBalancerStatus(ingress=ingress))
        service = core.Service(metadata=meta, spec=_spec(front, front.placeholders), status=status)
    else:
        service = core.Service(metadata=meta, spec=_spec(front, front.addresses))
    return Objects(service, tuple(slices))


def _spec(front: Front, cluster_ips: Sequence[str]) -> core.ServiceSpec:
    sticky = front.affinity_seconds is not None
    config = core.ClientIPConfig(timeout_seconds=front.affinity_seconds)
    return core.ServiceSpec(
        type="LoadBalancer" if front.source_ranges else "ClusterIP",
        cluster_ip=cluster_ips[0],
        cluster_ips=list(cluster_ips),
        external_traffic_policy="Local" if front.source_ranges else "",
        load_balancer_source_ranges=list(front.source_ranges) or None,
        session_affinity="ClientIP" if sticky else "None",
        session_affinity_config=core.SessionAffinityConfig(client_ip=config) if sticky else None,
        ports=[
            core.ServicePort(name=port.name, protocol=port.protocol, port=port.port)
            for port in front.ports
        ],
    )


def _ports(service: core.Service) -> Iterable[Port]:
    for port in service.spec.ports or ():
        if port.node_port:
            yield Port(
                name=port.name, protocol=port.protocol, port=port.port, target=port.node_port
            )


def _is_usable(node: core.Node) -> bool:
    """Return whether a node is meant to take part; that it is well is another question."""
    taints = node.spec.taints or ()
    leaving = any(taint.key == LEAVING_TAINT for taint in taints)
    return not leaving and EXCLUDED_LABEL not in (node.metadata.labels or {})


def _internal(node: core.Node) -> list[str]:
    addresses = node.status.addresses if node.status else None
    return [one.address for one in addresses or () if one.type == "InternalIP"]


def _affinity(spec: core.ServiceSpec) -> int | None:
    if spec.session_affinity != "ClientIP":
        return None
    config = spec.session_affinity_config
    seconds = config.client_ip.timeout_seconds if config and config.client_ip else None
    return seconds or 10800

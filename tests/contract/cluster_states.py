"""Clusters by name: what a node may have to serve, one thing at a time, and all the odd ones.

Every state is made of Kubernetes objects, as the API server would hand them out, and taken apart
by the trackers, so what is tested is what a proxy would be told.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kproxy.api import codec, core, discovery
from kproxy.desired.build import NodeSettings, StateBuilder
from kproxy.desired.model import Address, Family, NodePorts, Prefix, State

NODE = "n1"
NODE_ADDRESS = {Family.IPV4: "192.168.1.1", Family.IPV6: "fd00:192:168:1::1"}
CLUSTER_CIDR = {Family.IPV4: "10.128.0.0/9", Family.IPV6: "fd00:10:128::/48"}
SERVICE_CIDR = {Family.IPV4: "10.96.0.0/16", Family.IPV6: "fd00:10:96::/112"}

Object = dict[str, Any]
LOCAL = {"nodeName": NODE}
REMOTE = {"nodeName": "n2"}


def service(name: str = "web", number: int = 10, /, **spec: Any) -> Object:
    """Return a Service; ``number`` is the last part of its ClusterIPs."""
    status = spec.pop("status", None)
    spec.setdefault("ports", [{"name": "http", "port": 80}])
    addresses = [f"10.96.0.{number}", f"fd00:10:96::{number}"]
    families = {"ipFamilies": ["IPv4", "IPv6"], "clusterIPs": addresses}
    return {
        "kind": "Service",
        "metadata": {"name": name, "namespace": "demo"},
        "spec": {"clusterIP": addresses[0], **families, **spec},
        "status": status,
    }


def pods(*numbers: int, of: str = "web", port: int = 8080, **more: Any) -> list[Object]:
    """Return the EndpointSlices, one per family, of pods by the last part of their addresses.

    Even ones are on this node, odd ones on another. ``more`` goes into each endpoint;
    ``ports`` of the slice, ``part`` into its name.
    """
    ports = more.pop("ports", [{"name": "http", "port": port}])
    part = more.pop("part", "a")
    slices = []
    for family, prefix in ((Family.IPV4, "10.128.0."), (Family.IPV6, "fd00:10:128::")):
        endpoints = [
            {"addresses": [f"{prefix}{n}"], **(REMOTE if n % 2 else LOCAL), **more}
            for n in numbers
        ]
        slices.append(
            {
                "kind": "EndpointSlice",
                "metadata": {
                    "name": f"{of}-{family.lower()}-{part}",
                    "namespace": "demo",
                    "labels": {"kubernetes.io/service-name": of},
                },
                "addressType": str(family),
                "ports": ports,
                "endpoints": endpoints,
            }
        )
    return slices


def many(count: int) -> list[Object]:
    """Return so many services with two endpoints each."""
    found: list[Object] = []
    for number in range(count):
        name = f"s{number}"
        one = service(name, 0)
        one["spec"] |= {
            "clusterIP": f"10.96.{1 + number // 250}.{number % 250 + 1}",
            "clusterIPs": [f"10.96.{1 + number // 250}.{number % 250 + 1}"],
            "ipFamilies": ["IPv4"],
        }
        found += [one, *pods(number % 200 + 2, number % 200 + 3, of=name)[:1]]
    return found


_UDP = [{"name": "dns", "port": 53, "protocol": "UDP"}]
_SCTP = [{"name": "sig", "port": 2905, "protocol": "SCTP"}]
_NODE_PORT = [{"name": "http", "port": 80, "nodePort": 30080}]
_STICKY = {
    "sessionAffinity": "ClientIP",
    "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}},
}
_INGRESS = {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}, {"ip": "2001:db8::7"}]}}


def _balanced(**spec: Any) -> Object:
    return service(type="LoadBalancer", ports=_NODE_PORT, status=_INGRESS, **spec)


STATES: Mapping[str, Callable[[], list[Object]]] = {
    "empty": list,
    "one endpoint": lambda: [service(), *pods(2)],
    "two endpoints": lambda: [service(), *pods(2, 3)],
    "other endpoints": lambda: [service(), *pods(4, 5)],
    "five endpoints": lambda: [service(), *pods(2, 3, 4, 5, 6)],
    "no endpoints": lambda: [service()],
    "only not ready": lambda: [service(), *pods(2, 3, conditions={"ready": False})],
    "only terminating": lambda: [
        service(),
        *pods(2, 3, conditions={"ready": False, "serving": True, "terminating": True}),
    ],
    "two slices": lambda: [service(), *pods(2), *pods(3, 5, part="b")],
    "target port changed": lambda: [service(), *pods(2, 3, port=9090)],
    "service port changed": lambda: [
        service(ports=[{"name": "http", "port": 8000}]),
        *pods(2, 3),
    ],
    "udp": lambda: [
        service(ports=_UDP),
        *pods(2, 3, ports=[{"name": "dns", "port": 5353, "protocol": "UDP"}]),
    ],
    "tcp and udp on one port": lambda: [
        service(ports=[{"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"}]),
        *pods(
            2,
            3,
            ports=[
                {"name": "t", "port": 5353},
                {"name": "u", "port": 5353, "protocol": "UDP"},
            ],
        ),
    ],
    "sctp": lambda: [
        service(ports=_SCTP),
        *pods(2, 3, ports=[{"name": "sig", "port": 2905, "protocol": "SCTP"}]),
    ],
    "affinity": lambda: [service(**_STICKY), *pods(2, 3)],
    "node port": lambda: [service(type="NodePort", ports=_NODE_PORT), *pods(2, 3)],
    "node port, local": lambda: [
        service(type="NodePort", ports=_NODE_PORT, externalTrafficPolicy="Local"),
        *pods(2, 3),
    ],
    "node port, local, none here": lambda: [
        service(type="NodePort", ports=_NODE_PORT, externalTrafficPolicy="Local"),
        *pods(3),
    ],
    "node port, affinity": lambda: [
        service(type="NodePort", ports=_NODE_PORT, **_STICKY),
        *pods(2, 3),
    ],
    "internal local": lambda: [service(internalTrafficPolicy="Local"), *pods(2, 3)],
    "internal local, none here": lambda: [service(internalTrafficPolicy="Local"), *pods(3)],
    "external address": lambda: [
        service(externalIPs=["198.51.100.77", "2001:db8::77"]),
        *pods(2, 3),
    ],
    "load balancer": lambda: [_balanced(), *pods(2, 3)],
    "load balancer, ranges": lambda: [
        _balanced(loadBalancerSourceRanges=["198.51.100.0/24", "2001:db8:1::/48"]),
        *pods(2, 3),
    ],
    "load balancer, local": lambda: [
        _balanced(externalTrafficPolicy="Local", healthCheckNodePort=32000),
        *pods(2, 3),
    ],
    "load balancer, no endpoints": lambda: [_balanced()],
    "two services": lambda: [
        service(),
        *pods(2, 3),
        service("dns", 11, ports=_UDP),
        *pods(4, 5, of="dns", ports=[{"name": "dns", "port": 5353, "protocol": "UDP"}]),
    ],
    "fifty services": lambda: many(50),
    "a thousand services": lambda: many(1000),
}
"""Name → its objects. Their number is prime: see test_state_pairs.py."""


def build(name: str, family: Family = Family.IPV4) -> State:
    """Return what a node's proxy wants in that cluster."""
    return state_of(STATES[name](), family)


def state_of(objects: Iterable[Object], family: Family = Family.IPV4) -> State:
    """Return what a node's proxy wants for these objects. There must be nothing wrong in them."""
    cidrs = (Prefix(CLUSTER_CIDR[family]),)
    builder = StateBuilder(NodeSettings(family=family, node=NODE, cluster_cidrs=cidrs))
    builder.set_node_ports(NodePorts(everywhere=True, addresses=(Address(NODE_ADDRESS[family]),)))
    builder.set_service_cidrs((Prefix(SERVICE_CIDR[family]),))
    for obj in objects:
        if obj["kind"] == "Service":
            builder.on_service(None, codec.from_dict(obj, core.Service))
        else:
            builder.on_slice(None, codec.from_dict(obj, discovery.EndpointSlice))
    state = builder.build()
    assert builder.take_problems() == []
    return state

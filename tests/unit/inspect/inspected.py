"""A small cluster for tests: objects, and the side of the node that is made of them."""

from typing import Any

from kproxy.agent.settings import Settings, from_config
from kproxy.api import codec, configfile, core, discovery
from kproxy.desired.model import Family
from kproxy.inspect import assemble
from kproxy.inspect.assemble import Side
from kproxy.inspect.objects import Objects

OWN = {Family.IPV4: ("10.20.0.1", "192.168.1.1"), Family.IPV6: ("fd00:1::1",)}


def node(name: str = "node1", zone: str = "a") -> dict[str, Any]:
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
        "spec": {"podCIDRs": ["10.128.0.0/24", "fd00:10:128::/64"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.1.1"}]},
    }


def service(name: str, ip: str, port: int = 80, **spec: Any) -> dict[str, Any]:
    node_port = spec.pop("nodePort", 0)
    ingress = [{"ip": one} for one in spec.pop("balancer", ())]
    protocol = spec.pop("protocol", "TCP")
    return {
        "kind": "Service",
        "apiVersion": "v1",
        "metadata": {"namespace": "demo", "name": name},
        "spec": {
            "clusterIP": ip,
            "clusterIPs": [ip],
            "ports": [{"name": "p", "port": port, "protocol": protocol, "nodePort": node_port}],
            **spec,
        },
        "status": {"loadBalancer": {"ingress": ingress}},
    }


def slice_of(name: str, *endpoints: dict[str, Any], protocol: str = "TCP") -> dict[str, Any]:
    return {
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {
            "namespace": "demo",
            "name": f"{name}-abc",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"name": "p", "port": 8080, "protocol": protocol}],
    }


def endpoint(
    address: str, node: str = "node2", *, zone: str = "", for_node: str = "", **conditions: bool
) -> dict[str, Any]:
    hints = {}
    if zone:
        hints["forZones"] = [{"name": zone}]
    if for_node:
        hints["forNodes"] = [{"name": for_node}]
    return {"addresses": [address], "nodeName": node, "conditions": conditions, "hints": hints}


def settings(mode: str = "iptables", **config: Any) -> Settings:
    data = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode,
        "hostnameOverride": "node1",
        "clusterCIDR": "10.128.0.0/9",
        **config,
    }
    return from_config(configfile.decode_config(data, "test").config)


def sides(mode: str, *objects: dict[str, Any], **config: Any) -> list[Side]:
    """Return both families of node1."""
    kinds = {"Service": core.Service, "EndpointSlice": discovery.EndpointSlice, "Node": core.Node}
    typed: list[Any] = [codec.from_dict(one, kinds[one["kind"]]) for one in objects]
    found = Objects(
        source="test",
        services=[one for one in typed if isinstance(one, core.Service)],
        slices=[one for one in typed if isinstance(one, discovery.EndpointSlice)],
        node=next((one for one in typed if isinstance(one, core.Node)), None),
        service_cidrs=("10.96.0.0/12",),
    )
    return assemble.sides(found, settings(mode, **config), OWN)

"""What runs in the chain's cluster, and where traffic goes. Pure.

A shop of a few pods behind two Services: one with a ClusterIP for clients inside, one of type
LoadBalancer for those outside. Its pods are careful (they tell when they are ready, and serve on
for a while after they have been told to end) or careless (they do neither).
"""

import sys
from typing import Any

from kproxy.lab.generators import Vantage
from kproxy.lab.layout import Layout
from kproxy.lab.site import EDGE, OUTSIDE, Site
from kproxy.lab.workload import Target
from kproxy.monitoring.prober import targets as targets_of_probes

Object = dict[str, Any]

NAMESPACE, SHOP, OUTSIDE_SHOP = "default", "shop", "shop-outside"
UDP_PORT, TCP_PORT, SERVICE_TCP_PORT = 5353, 8080, 80
REPLICAS = 4
PRE_STOP_S = 10
HIT, OTHER, BEYOND = "hit", "other", "outside"
"""Vantage points: a pod's place on the hit node, one on another node, a host outside."""
_OUTSIDE_NUMBER = 200
"""More than a lab can have nodes."""
_LABELS = {"app": SHOP}
_PROBED = f"{targets_of_probes.Wish.TCP_CONNECT},{targets_of_probes.Wish.UDP_ECHO}"
"""Where somebody watches, both ports are."""


def manifests(files: Layout) -> list[Object]:
    """Return the shop, careful."""
    services = [_service(SHOP, "ClusterIP"), _service(OUTSIDE_SHOP, "LoadBalancer")]
    return [deployment(files, careful=True), *services]


def deployment(files: Layout, *, careful: bool, restarted: str = "") -> Object:
    """Return the Deployment; another word in ``restarted`` makes other pods of it."""
    template = {
        "metadata": {"labels": _LABELS, "annotations": {"kproxy/restarted-at": restarted}},
        "spec": {
            "containers": [_careful() if careful else _careless(files)],
            "terminationGracePeriodSeconds": 30,
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": SHOP, "namespace": NAMESPACE},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": _LABELS},
            "template": template,
        },
    }


def _ports() -> list[Object]:
    return [
        {"name": "udp", "containerPort": UDP_PORT, "protocol": "UDP"},
        {"name": "tcp", "containerPort": TCP_PORT, "protocol": "TCP"},
    ]


def _careful() -> Object:
    return {
        "name": SHOP,
        "image": "echo",
        "ports": _ports(),
        "readinessProbe": {"tcpSocket": {"port": TCP_PORT}},
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_S}}},
    }


def _careless(files: Layout) -> Object:
    """Return a container that is ready before it listens, and ends as soon as it is told."""
    # Not the image "echo": of that one it is known when it listens.
    command = [sys.executable, "-m", "kproxy.traffic.responder"]
    command += ["--udp", str(UDP_PORT), "--tcp", str(TCP_PORT)]
    command += ["--name", f"{NAMESPACE}/$(POD_NAME)"]
    command += ["--record", str(files.record(NAMESPACE, "$(POD_NAME)", 0))]
    name = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    return {"name": SHOP, "image": "python", "command": command, "env": [name], "ports": _ports()}


def _service(name: str, kind: str) -> Object:
    ports = [
        {"name": "udp", "port": UDP_PORT, "targetPort": UDP_PORT, "protocol": "UDP"},
        {"name": "tcp", "port": SERVICE_TCP_PORT, "targetPort": TCP_PORT, "protocol": "TCP"},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "annotations": {targets_of_probes.ANNOTATION: _PROBED},
        },
        "spec": {"type": kind, "selector": _LABELS, "ports": ports},
    }


def balanced_address(service: Object) -> str:
    """Return the address that a load balancer gave a Service; empty: none yet."""
    balancer = (service.get("status") or {}).get("loadBalancer") or {}
    return next((str(one["ip"]) for one in balancer.get("ingress") or [] if one.get("ip")), "")


def targets(service: Object, *, outside: bool) -> list[Target]:
    """Return the ports that traffic is sent to: of the ClusterIP, or of the balancer's address."""
    address = balanced_address(service) if outside else service["spec"]["clusterIP"]
    return [
        Target(
            number=number,
            namespace=NAMESPACE,
            service=service["metadata"]["name"],
            port_name=port["name"],
            protocol=port["protocol"],
            address=address,
            port=port["port"],
            node_port=port.get("nodePort", 0),
        )
        for number, port in enumerate(service["spec"]["ports"])
    ]


def vantages(site: Site, hit: str) -> dict[str, Vantage]:
    """Return the vantage points by name, the hit node's first."""
    others = [node for node in site.nodes if node.name != hit]
    found = {}
    for place, node in ((HIT, site.node(hit)), (OTHER, others[0])):
        found[place] = Vantage(
            host=node.client,
            number=node.number,
            address=node.client_address,
            gateway=node.name,
            gateway_interface=node.client[:15],
        )
    found[BEYOND] = Vantage(
        host=site.outside[0],
        number=_OUTSIDE_NUMBER,
        address=OUTSIDE.network_address + 11,
        gateway=EDGE,
        gateway_interface="eth1",
    )
    return found

"""Answers as plain data for ``--json``. Keys are stable; what is new is added, never renamed."""

from collections.abc import Sequence
from typing import Any

from kproxy.backends.base import Difference
from kproxy.desired.model import Endpoint, ServicePort
from kproxy.errors import InvalidObject

from .answers import Agreement, Answer, Match
from .flows import Prediction
from .kernel import Comparison, Holdings
from .views import EndpointView, ServiceView


def service(view: ServiceView) -> dict[str, Any]:
    """Return a service port with its endpoints."""
    return {
        **service_port(view.state.service),
        "endpoints": [endpoint(one) for one in view.endpoints],
        "notes": list(view.notes),
    }


def service_port(port: ServicePort) -> dict[str, Any]:
    """Return a service port."""
    return {
        "namespace": port.name.namespace,
        "name": port.name.name,
        "port_name": port.name.port,
        "protocol": port.protocol,
        "cluster_ip": port.cluster_ip,
        "port": port.port,
        "node_port": port.node_port or None,
        "external_ips": list(port.external_ips),
        "load_balancer_ips": list(port.load_balancer_vips),
        "source_ranges": list(port.source_ranges),
        "internal_traffic_policy": "Local" if port.internal_local else "Cluster",
        "external_traffic_policy": "Local" if port.external_local else "Cluster",
        "affinity_seconds": port.affinity_seconds,
        "health_check_node_port": port.health_check_node_port or None,
    }


def endpoint(view: EndpointView) -> dict[str, Any]:
    """Return an endpoint, whether it is used, and why not."""
    return {
        **_place(view.endpoint),
        "local": view.endpoint.local,
        "ready": view.endpoint.ready,
        "serving": view.endpoint.serving,
        "terminating": view.endpoint.terminating,
        "hints_for_zones": sorted(view.endpoint.zone_hints),
        "hints_for_nodes": sorted(view.endpoint.node_hints),
        "internal": view.internal == "",
        "why_not_internal": view.internal or None,
        "external": None if view.external is None else view.external == "",
        "why_not_external": view.external or None,
    }


def problem(fault: InvalidObject) -> dict[str, Any]:
    """Return what is wrong in an object."""
    return {
        "object": fault.obj,
        "field": fault.field,
        "problem": fault.problem,
        "remedy": fault.remedy,
    }


def differences(found: Sequence[Difference]) -> list[dict[str, Any]]:
    """Return differences."""
    return [
        {
            "deviation": one.deviation,
            "kind": one.kind,
            "name": one.name,
            "want": one.want,
            "have": one.have,
            "service": str(one.service) if one.service else None,
        }
        for one in found
    ]


def comparison(one: Comparison) -> dict[str, Any]:
    """Return what was compared in a family."""
    return {
        "family": one.family,
        "skipped": one.skipped or None,
        "differences": differences(one.differences),
    }


def holdings(held: Holdings) -> dict[str, Any]:
    """Return what the kernel holds."""
    return {
        "counts": dict(held.counts),
        "virtual_servers": [
            {
                "address": server.place,
                "scheduler": server.scheduler,
                "real_servers": [
                    {
                        "address": real.place,
                        "weight": real.weight,
                        "active": real.active,
                        "inactive": real.inactive,
                    }
                    for real in server.real_servers
                ],
            }
            for server in held.virtual_servers
        ],
    }


def answer(found: Answer) -> dict[str, Any]:
    """Return the answer to a question about an address."""
    target = found.target
    return {
        "node": found.world.node.name,
        "mode": found.world.mode,
        "family": found.world.family,
        "target": {
            "address": target.address,
            "port": target.port,
            "protocol": target.protocol,
        },
        "found": bool(found.matches),
        "services": [_match(one) for one in found.matches],
        "packets": [_prediction(one) for one in found.predictions],
        "in_service_network": found.in_service_network,
        "near": list(found.near),
    }


def _match(one: Match) -> dict[str, Any]:
    return {
        **service(one.view),
        "kind": one.kind,
        "packets": [_prediction(packet) for packet in one.predictions],
        "kernel": _agreement(one.kernel),
    }


def _agreement(one: Agreement) -> dict[str, Any]:
    return {
        "agrees": None if one.unasked else not one.differences,
        "unasked": one.unasked or None,
        "differences": differences(one.differences),
    }


def _prediction(one: Prediction) -> dict[str, Any]:
    return {
        "origin": one.source.origin,
        "from": one.source.address,
        "in_source_ranges": one.source.in_ranges,
        "fate": one.fate,
        "endpoints": [
            {
                **_place(share.endpoint),
                "probability": share.probability,
                "masqueraded": share.masqueraded,
                "answered": share.answered,
            }
            for share in one.shares
        ],
        "reasons": list(one.reasons),
    }


def _place(one: Endpoint) -> dict[str, Any]:
    return {"address": one.address, "port": one.port}

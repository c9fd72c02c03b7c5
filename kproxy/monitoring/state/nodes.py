"""``kube_node_*``. Pure."""

from collections.abc import Iterator

from kproxy.api.core import Node

from .telling import Told, conditions, time

WORDS = {
    "kube_node_info": "A node, with its address.",
    "kube_node_created": "When a node was created, in seconds since 1970.",
    "kube_node_spec_unschedulable": "Whether a node is cordoned: takes no new pods.",
    "kube_node_spec_taint": "A taint of a node.",
    "kube_node_status_condition": "A condition of a node; of its three statuses one is 1.",
}


def tell(node: Node) -> Iterator[Told]:
    """Yield what is told of a node."""
    labels = {"node": node.metadata.name}
    status = node.status
    inside = [
        one.address for one in (status and status.addresses) or () if one.type == "InternalIP"
    ]
    info = {**labels, "internal_ip": inside[0] if inside else "", "pod_cidr": node.spec.pod_cidr}
    yield Told("kube_node_info", info, 1)
    yield from time("kube_node_created", labels, node.metadata.creation_timestamp)
    yield Told("kube_node_spec_unschedulable", labels, float(node.spec.unschedulable))
    for taint in node.spec.taints or ():
        about = {"key": taint.key, "value": taint.value, "effect": taint.effect}
        yield Told("kube_node_spec_taint", {**labels, **about}, 1)
    for one in (status and status.conditions) or ():
        yield from conditions("kube_node_status_condition", labels, one.type, one.status)

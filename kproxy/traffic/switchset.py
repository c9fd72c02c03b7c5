"""What the change of a node's mode cost, as it goes into the result file. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kproxy.traffic.resultset import Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftBehind:
    """Kernel objects of one kind that the old mode has left on the node, by name, in order.

    Those that a node which has only ever been in the new mode has not got.
    """

    kind: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Impact:
    """What clients behind one node noticed.

    ``flows_moved``: UDP flows whose last packet reached another pod than their last one before
    the fault. ``connections``: TCP connections that were open; ``connections_broken``: those of
    them in which a request failed. Of ``attempted`` new connections ``failed`` got no answer, and
    ``stalled`` got it only after the kernel had sent something again.
    """

    node: str
    sent: int
    lost: int
    flows: int
    flows_moved: int
    connections: int
    connections_broken: int
    attempted: int
    failed: int
    stalled: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """One change of a node's mode; ``way``: in which order (see ``kproxy.lab.switching``)."""

    old: str
    new: str
    way: str
    impact: tuple[Impact, ...]
    left_behind: tuple[LeftBehind, ...]


def impact(found: "Iterable[Measurement]", connections: int) -> tuple[Impact, ...]:
    """Return what a trial's measurements say; ``connections`` were open from each node."""
    by_node: dict[str, dict[str, Measurement]] = {}
    for one in found:
        by_node.setdefault(one.node, {})[one.traffic] = one
    return tuple(_impact(node, kinds, connections) for node, kinds in by_node.items())


def _impact(node: str, kinds: "Mapping[str, Measurement]", connections: int) -> Impact:
    udp, kept, fresh = (kinds.get(name) for name in ("udp", "tcp-established", "tcp-connect"))
    flows = udp.flows if udp else ()
    return Impact(
        node=node,
        sent=(udp.sent or 0) if udp else 0,
        lost=(udp.lost or 0) if udp else 0,
        flows=len(flows),
        flows_moved=sum(_has_moved(flow.pod_before, flow.pod_after) for flow in flows),
        connections=connections if kept else 0,
        connections_broken=(kept.affected_flows or 0) if kept else 0,
        attempted=fresh.tcp.attempted if fresh and fresh.tcp else 0,
        failed=fresh.tcp.failed if fresh and fresh.tcp else 0,
        stalled=(fresh.tcp.stalled or 0) if fresh and fresh.tcp else 0,
    )


def _has_moved(before: str, after: str) -> bool:
    """Return whether a flow reached one pod, and then another; empty: it reached none."""
    return bool(before) and bool(after) and before != after

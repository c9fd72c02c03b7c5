"""Why TCP requests and connections failed: what a lost packet is for UDP. Pure.

TCP sends again, so a failure is not one lost packet. It is explained by, in this order: the end of
the pod that had the connection; drops of its packets while it lasted; what its client was told.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kproxy.lab.hopdrops import TCP, Seen
from kproxy.lab.hopscene import IPAddress, Scene
from kproxy.traffic.attribution import BACK, THERE, Story
from kproxy.traffic.records import TcpRecord
from kproxy.traffic.resultset import Cause, Loss

_TOLD = {
    "refused": (Cause.REFUSED, "RST"),
    "reset": (Cause.REFUSED, "RST"),
    "unreachable": (Cause.NO_ROUTE, "ICMP"),
}
"""What a client is told of a failure, besides that its peer has closed."""


class Service(NamedTuple):
    """Where a target's packets go: its own address, its port, its pods' hosts, its node port."""

    address: IPAddress
    port: int
    pods: frozenset[str]
    node_port: int = 0


class _Why(NamedTuple):
    place: str
    cause: Cause
    direction: str
    witness: str


def losses(
    everything: Sequence[TcpRecord],
    kind: str,
    *,
    client: str,
    services: dict[int, Service],
    drops: Iterable[Seen],
    scene: Scene,
    story: Story,
    clock_ns: int,
) -> tuple[Loss, ...]:
    """Return why requests of a ``kind`` failed; they add up to those that did.

    ``client``: the host that sent them; ``services`` by the number of the target.
    """
    tcp = [one for one in drops if one.protocol == TCP]
    found: Counter[_Why] = Counter()
    pods: dict[tuple[int, int], str] = {}
    for record in sorted(everything, key=lambda one: one.start_ns):
        key = record.target, record.connection
        if record.kind != "connect" and record.outcome == "ok" and record.pod:
            pods[key] = record.pod.replace("/", "-", 1)
        if record.kind != kind or record.outcome in ("ok", "unfinished"):
            continue
        pod = pods.get(key, "") if kind == "request" else ""
        service = services.get(record.target)
        met = _met(record, service, client, tcp, scene, clock_ns)
        dead = _dead(record, service, story)
        found[_why(record, pod, client, met, dead)] += 1
    return tuple(
        Loss(
            place=place,
            cause=cause,
            packets=sum(said.values()),
            direction=direction,
            witness="; ".join(f"{witness}: {number:,}" for witness, number in said.items()),
        )
        for (place, cause, direction), said in _grouped(found).items()
    )


def _grouped(found: Counter[_Why]) -> dict[tuple[str, Cause, str], dict[str, int]]:
    groups: dict[tuple[str, Cause, str], dict[str, int]] = {}
    for why, number in sorted(found.items()):
        groups.setdefault(why[:3], {})[why.witness] = number
    return groups


def _why(
    record: TcpRecord, pod: str, client: str, met: Sequence[Seen], dead: frozenset[str]
) -> _Why:
    if pod in dead:
        return _Why(pod, Cause.DEAD_BACKEND, THERE, f"{record.outcome}, {pod} was gone")
    for one in met[:1]:
        # Where nothing tells for which pod it was, and one is gone, it was that one.
        lost = one.target in dead or (one.target is None and bool(dead))
        cause = Cause.DEAD_BACKEND if lost else one.cause
        if cause is Cause.REFUSED and pod and one.place == one.target != pod:
            # A pod that is alive got packets of a connection that another one has.
            cause = Cause.WRONG_BACKEND
        return _Why(one.place, cause, one.direction, f"{record.outcome}, {one.witness}")
    if record.outcome == "closed" and pod:
        return _Why(pod, Cause.DEAD_BACKEND, THERE, f"FIN from {pod}, whose process ended")
    if record.outcome in _TOLD:
        cause, by = _TOLD[record.outcome]
        return _Why(client, cause, THERE, f"{by} seen by {client}")
    return _Why("", Cause.UNEXPLAINED, THERE, record.outcome)


def _dead(record: TcpRecord, service: Service | None, story: Story) -> frozenset[str]:
    """Return the pods of a service that were gone before a request ended."""
    pods = service.pods if service is not None else frozenset()
    return frozenset(pod for pod, since in story.gone.items() if since <= record.end_ns) & pods


def _met(
    record: TcpRecord,
    service: Service | None,
    client: str,
    drops: Sequence[Seen],
    scene: Scene,
    clock_ns: int,
) -> list[Seen]:
    """Return the drops that may be of a request, the most frequent kind first."""
    if service is None:
        return []
    mine = [
        one
        for one in drops
        if record.start_ns <= one.ns + clock_ns <= record.end_ns
        and _is_between(one, service, client, scene)
    ]
    often = Counter((one.place, one.cause, one.direction) for one in mine)
    return sorted(mine, key=lambda one: -often[one.place, one.cause, one.direction])


def _is_between(one: Seen, service: Service, client: str, scene: Scene) -> bool:
    here, far, port = one.source, one.destination, one.destination_port
    if one.direction == BACK:
        here, far, port = far, here, one.source_port
    origin, host = scene.host_of_address(here), scene.host_of_address(far)
    if service.node_port and origin in scene.routers and host in service.pods:
        return True  # A node passes what came to its node port on, masqueraded.
    # A load balancer sends to a node, at its port of the service.
    at_node = host in scene.routers and 0 < port == service.node_port
    return origin == client and (far == service.address or host in service.pods or at_node)

"""From what was found out to what is shown. Pure.

What is wrong is told in words and by a tone, never by a colour alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kproxy.lab.dashboard.messages import (
    Alert,
    Chart,
    Event,
    Host,
    Leader,
    Part,
    Pod,
    Segment,
    Service,
    Tile,
    View,
)
from kproxy.lab.site import LAN_NAME, OUTSIDE_NAME
from kproxy.lab.whole.picture import HostPicture, Picture, PodPicture, ProcessPicture
from kproxy.lab.whole.roles import ELECTED

EVENTS_SHOWN = 60
_DONE = "Succeeded"
_PAIR = tuple[float | None, float | None]
_UNKNOWN: _PAIR = (None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a look has found out. ``rates``: packets per second received and sent, by host.

    ``probed``: loss as a share and latency in ms, by namespace and name of a Service.
    """

    picture: Picture
    now: float
    faults: bool = False
    trouble: Sequence[str] = ()
    hung: frozenset[tuple[str, str]] = frozenset()
    rates: Mapping[str, _PAIR] = field(default_factory=dict)
    charts: Sequence[Chart] = ()
    probed: Mapping[tuple[str, str], _PAIR] = field(default_factory=dict)
    alerts: Sequence[Alert] = ()
    events: Sequence[Event] = ()
    monitored: bool = False


def build(found: Found) -> View:
    """Return the page of a look."""
    picture = found.picture
    trouble = [f"The API does not answer: {picture.api}"] if picture.api else []
    trouble += [f"{one.host}: {text}" for one in picture.monitors for text in one.trouble]
    return View(
        name=picture.name,
        words=list(_words(picture)),
        now=found.now,
        faults=found.faults,
        trouble=[*trouble, *found.trouble],
        tiles=list(_tiles(found)),
        segments=[*_segments(found)],
        charts=list(found.charts),
        leaders=[_leader(picture, str(role)) for role in ELECTED if _has(picture, str(role))],
        services=[_service(found, number) for number in range(len(picture.services))],
        alerts=list(found.alerts),
        events=newest(found.events),
        monitored=found.monitored,
    )


def newest(events: Iterable[Event]) -> list[Event]:
    """Return the events that are shown, the newest first."""
    return sorted(events, key=lambda one: one.at, reverse=True)[:EVENTS_SHOWN]


def part_state(one: ProcessPicture, hung: frozenset[tuple[str, str]]) -> str:
    """Return up, hung or down."""
    if not one.pid:
        return "down"
    return "hung" if (one.host, one.role) in hung else "up"


def is_well(pod: PodPicture) -> bool:
    """Return whether a pod is as it should be."""
    return pod.phase == _DONE or (pod.phase == "Running" and pod.ready == pod.containers)


def _words(picture: Picture) -> Iterable[str]:
    yield f"mode {picture.mode}"
    yield "+".join(picture.families)
    yield f"store {picture.store}"
    yield f"profile {picture.profile}"
    yield f"API {picture.api_url}"
    if "kernel" in picture.versions:
        yield f"Linux {picture.versions['kernel']}"


def _tiles(found: Found) -> Iterable[Tile]:
    picture = found.picture
    yield _count("Nodes ready", sum(one.ready for one in picture.nodes), _nodes(picture))
    states = [part_state(one, found.hung) for one in picture.control_plane]
    yield _count("Parts up", states.count("up"), len(states), bad=states.count("hung"))
    yield _count("Pods well", sum(map(is_well, picture.pods)), len(picture.pods))
    yield _alert_tile(found)
    yield _loss_tile(found)
    known = [sent for _, sent in found.rates.values() if sent is not None]
    total = f"{sum(known):,.0f}" if known else "–"
    yield Tile(label="Packets per second", value=total, note="sent by all hosts")


def _nodes(picture: Picture) -> int:
    return max(len(picture.nodes), sum(one.kind == "node" for one in picture.hosts))


def _count(label: str, good: int, total: int, *, bad: int = 0) -> Tile:
    tone = "good" if good == total else "bad"
    note = f"{bad} hung" if bad else ("all" if good == total else f"{total - good} missing")
    return Tile(label=label, value=f"{good}/{total}", note=note, tone=tone)


def _alert_tile(found: Found) -> Tile:
    if not found.monitored:
        return Tile(label="Alerts", value="–", note="no Prometheus in this lab")
    firing = [one for one in found.alerts if one.state == "firing" and one.severity != "none"]
    pending = sum(one.state == "pending" for one in found.alerts)
    note = f"{pending} pending" if pending else "none pending"
    return Tile(
        label="Alerts firing", value=str(len(firing)), note=note, tone="bad" if firing else "good"
    )


def _loss_tile(found: Found) -> Tile:
    losses = [(loss, name) for name, (loss, _) in found.probed.items() if loss is not None]
    if not losses:
        note = "no probes yet" if found.monitored else "no probers in this lab"
        return Tile(label="Worst loss", value="–", note=note)
    worst, (namespace, name) = max(losses)
    if not worst:
        return Tile(label="Worst loss", value="0 %", note="of all Services", tone="good")
    return Tile(label="Worst loss", value=f"{worst:.2%}", note=f"{namespace}/{name}", tone="loss")


def _segments(found: Found) -> Iterable[Segment]:
    inside = [one for one in found.picture.hosts if one.kind != OUTSIDE_NAME]
    outside = [one for one in found.picture.hosts if one.kind == OUTSIDE_NAME]
    yield Segment(name=LAN_NAME, hosts=[_host(found, one) for one in inside])
    if outside:
        yield Segment(name=OUTSIDE_NAME, hosts=[_host(found, one) for one in outside])


def _host(found: Found, host: HostPicture) -> Host:
    picture = found.picture
    node = next((one for one in picture.nodes if one.name == host.name), None)
    received, sent = found.rates.get(host.name, _UNKNOWN)
    return Host(
        name=host.name,
        kind=host.kind,
        addresses=host.addresses,
        link=host.link,
        plugged=host.plugged,
        ready=node.ready if node else None,
        parts=[
            Part(
                role=one.role,
                state=part_state(one, found.hung),
                leads=one.leads,
                restarts=max(0, one.starts - 1),
            )
            for one in picture.control_plane
            if one.host == host.name
        ],
        pods=[
            Pod(
                name=f"{one.namespace}/{one.name}",
                phase=one.phase,
                well=is_well(one),
                restarts=one.restarts,
            )
            for one in picture.pods
            if one.node == host.name
        ],
        received=received,
        sent=sent,
    )


def _has(picture: Picture, role: str) -> bool:
    return any(one.role == role for one in picture.control_plane)


def _leader(picture: Picture, role: str) -> Leader:
    host = next((one.host for one in picture.control_plane if one.role == role and one.leads), "")
    return Leader(role=role, host=host)


def _service(found: Found, number: int) -> Service:
    one = found.picture.services[number]
    loss, latency = found.probed.get((one.namespace, one.name), _UNKNOWN)
    return Service(
        name=f"{one.namespace}/{one.name}",
        type=one.type,
        addresses=one.addresses,
        ports=one.ports,
        endpoints=one.endpoints,
        loss=loss,
        latency_ms=latency,
    )

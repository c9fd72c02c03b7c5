"""What the page's server says to the process beside the lab, and what that answers. Pure.

One JSON object in a line. What is shown is a :class:`View`, all of it, every time: the page keeps
nothing but what is on the screen.
"""

from enum import StrEnum

import msgspec


class Fault(StrEnum):
    """What may be done to a lab by a button."""

    KILL = "kill"
    HANG = "hang"
    RESUME = "resume"
    DELETE = "delete"
    UNPLUG = "unplug"
    PLUG = "plug"
    POWER_OFF = "power-off"
    POWER_ON = "power-on"


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault: of a ``role`` on a ``host``, of a whole ``host``, or of a ``pod`` (``ns/name``)."""

    fault: Fault
    host: str = ""
    role: str = ""
    pod: str = ""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked: with an order, that it be done; otherwise for a look."""

    order: Order | None = None


class Point(msgspec.Struct, frozen=True, array_like=True):
    """A value at a time in seconds since 1970, by the lab's clock; None: there is none."""

    at: float
    value: float | None


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a chart."""

    name: str
    points: list[Point]


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """Lines over time. ``empty``: what is to be said where there are none."""

    id: str
    title: str
    unit: str
    series: list[Series]
    empty: str = ""


class Tile(msgspec.Struct, frozen=True, kw_only=True):
    """One figure in large type. ``tone``: plain, good, loss, bad."""

    label: str
    value: str
    note: str = ""
    tone: str = "plain"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A process of the cluster on a host. ``state``: up, hung (stopped by a signal), down."""

    role: str
    state: str
    leads: bool = False
    restarts: int = 0


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """A pod. ``well``: all its containers are ready, or it has done its work."""

    name: str
    phase: str
    well: bool
    restarts: int = 0


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """A host. ``ready``: of its Node object; None: it is no node. Rates are packets per second."""

    name: str
    kind: str
    addresses: list[str]
    link: str
    plugged: bool
    ready: bool | None
    parts: list[Part]
    pods: list[Pod]
    received: float | None = None
    sent: float | None = None


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """An Ethernet segment with its hosts."""

    name: str
    hosts: list[Host]


class Leader(msgspec.Struct, frozen=True, kw_only=True):
    """Who leads. ``host`` empty: nobody that is alive."""

    role: str
    host: str


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A Service. ``loss`` is a share, ``latency_ms`` a 99th percentile; None: not probed."""

    name: str
    type: str
    addresses: list[str]
    ports: list[str]
    endpoints: int
    loss: float | None = None
    latency_ms: float | None = None


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """An alert of Prometheus'. ``state``: pending, firing. ``since``: seconds since 1970."""

    name: str
    state: str
    severity: str
    where: str
    since: float
    text: str = ""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened. ``at``: seconds since 1970; ``count``: how often so far."""

    at: float
    kind: str
    reason: str
    about: str
    text: str
    count: int = 1


class View(msgspec.Struct, frozen=True, kw_only=True):
    """All that is shown. ``trouble``: why something of it is missing or old, in words."""

    name: str
    words: list[str]
    now: float
    faults: bool
    trouble: list[str]
    tiles: list[Tile]
    segments: list[Segment]
    charts: list[Chart]
    leaders: list[Leader]
    services: list[Service]
    alerts: list[Alert]
    events: list[Event]
    monitored: bool


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a question: a view, or what was done, or why not."""

    view: View | None = None
    done: str = ""
    error: str = ""

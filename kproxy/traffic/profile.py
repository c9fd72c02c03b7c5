"""What a generator shall send: the profile files, written by the lab, read by the generators.

A profile is one JSON object; ``format`` names it and its version. A wrong profile raises
:class:`~kproxy.errors.UsageError` with the file, the field and what it should be.
"""

import base64
import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from kproxy.errors import UsageError
from kproxy.traffic import wire

UDP_FORMAT = "kproxy.udp-profile/1"
TCP_FORMAT = "kproxy.tcp-profile/1"


#: The longest line that a responder takes, nearly.
MOST_BULK_BYTES = 60_000


class Protocol(StrEnum):
    """What connections are made of."""

    TCP = "tcp"
    SCTP = "sctp"


class Distribution(StrEnum):
    """How packets follow each other: evenly, or as a Poisson process."""

    ISOCHRONOUS = "isochronous"
    POISSON = "poisson"


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpFlow:
    """One flow: a finished frame, and where in it the probe header begins (42 for plain IPv4).

    A header at the frame's very end means that it has none: it is sent as it is, and nobody
    counts it. ``checksum_at`` is the place of the checksum to keep right, None where there is none
    (IPv4 UDP may have 0). ``port_at`` is the place of the source port (or of an identifier that
    tells flows apart) for ``fresh_ports``; None: 8 bytes before the header, as in UDP.
    """

    flow: int
    frame: bytes
    header_at: int
    checksum_at: int | None = None
    port_at: int | None = None

    @property
    def stamped(self) -> bool:
        """Whether it has a probe header."""
        return self.header_at < len(self.frame)


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpProfile:
    """A stream: packet k leaves at t0 + k / rate, round robin over the flows.

    With ``distribution`` POISSON the gaps are exponential, the same for the same ``seed``.
    ``rate_pps`` is the total of all flows. ``duration_s`` None means until told to stop.
    ``catch_up_packets``: after a stall at most that many overdue packets are sent, the older
    ones are recorded as not sent (None: one second of traffic). ``late_ms`` is the lateness
    from which a packet counts as late in the sender's own report. ``realtime`` asks for
    SCHED_FIFO and locked memory; where that is not allowed the report says so. ``quantum_ms``:
    the sender wakes only so often and sends what has become due; None: for every packet up to
    1,000 packets/s, every millisecond above. ``fresh_ports``, the lowest and how many: packet k
    leaves from source port lowest + k modulo so many, instead of its frame's.
    """

    interface: str
    rate_pps: float
    flows: tuple[UdpFlow, ...]
    record: Path
    trial: int = 0
    duration_s: float | None = None
    capacity: int = 1 << 20
    catch_up_packets: int | None = None
    late_ms: float = 1.0
    realtime: bool = True
    quantum_ms: float | None = None
    distribution: Distribution = Distribution.ISOCHRONOUS
    seed: int = 0
    fresh_ports: tuple[int, int] | None = None

    def to_json(self) -> str:
        """Return the text of the profile file."""
        flows = [
            {
                "flow": f.flow,
                "frame": base64.b64encode(f.frame).decode(),
                "header_at": f.header_at,
                "checksum_at": f.checksum_at,
                "port_at": f.port_at,
            }
            for f in self.flows
        ]
        return json.dumps(
            {
                "format": UDP_FORMAT,
                "interface": self.interface,
                "rate_pps": self.rate_pps,
                "trial": self.trial,
                "duration_s": self.duration_s,
                "record": str(self.record),
                "capacity": self.capacity,
                "catch_up_packets": self.catch_up_packets,
                "late_ms": self.late_ms,
                "realtime": self.realtime,
                "quantum_ms": self.quantum_ms,
                "distribution": self.distribution,
                "seed": self.seed,
                "fresh_ports": self.fresh_ports,
                "flows": flows,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Established:
    """Connections kept open to one target, each with one request every ``interval_s``.

    ``bulk_bytes``: instead of requests, blocks of so many bytes, each of which the peer confirms
    when it has it all; a block that is not confirmed when the next is due delays it.
    """

    target: int
    address: str
    port: int
    connections: int
    interval_s: float
    protocol: Protocol = Protocol.TCP
    bulk_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connects:
    """New connections to one target at a rate: connect, one request, its response, close."""

    target: int
    address: str
    port: int
    rate_per_s: float
    protocol: Protocol = Protocol.TCP


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpProfile:
    """What a TCP client does. ``target`` numbers are the caller's and come back in the records.

    A request without its response within ``response_timeout_s``, or a connection that is not
    established within ``connect_timeout_s``, has failed with outcome ``timeout``.
    """

    record: Path
    established: tuple[Established, ...] = ()
    connects: tuple[Connects, ...] = ()
    trial: int = 0
    duration_s: float | None = None
    response_timeout_s: float = 1.0
    connect_timeout_s: float = 3.0
    request_bytes: int = 32
    capacity: int = 1 << 17

    def to_json(self) -> str:
        """Return the text of the profile file."""
        return json.dumps(
            {
                "format": TCP_FORMAT,
                "trial": self.trial,
                "duration_s": self.duration_s,
                "record": str(self.record),
                "capacity": self.capacity,
                "response_timeout_s": self.response_timeout_s,
                "connect_timeout_s": self.connect_timeout_s,
                "request_bytes": self.request_bytes,
                "established": [
                    {
                        "target": e.target,
                        "address": e.address,
                        "port": e.port,
                        "connections": e.connections,
                        "interval_s": e.interval_s,
                        "protocol": e.protocol,
                        "bulk_bytes": e.bulk_bytes,
                    }
                    for e in self.established
                ],
                "connects": [
                    {
                        "target": c.target,
                        "address": c.address,
                        "port": c.port,
                        "rate_per_s": c.rate_per_s,
                        "protocol": c.protocol,
                    }
                    for c in self.connects
                ],
            }
        )


_E = TypeVar("_E", bound=StrEnum)


class _Fields:
    """Typed access to the fields of one JSON object, with errors that name the field."""

    def __init__(self, where: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise UsageError(f"{where}: must be an object")
        self._where = where
        self._value = value

    def wrong(self, name: str, problem: str) -> UsageError:
        return UsageError(f"{self._where}: {name}: {problem}")

    def number(self, name: str, *, low: float, default: Any = ...) -> Any:
        value = self._value.get(name, default)
        if value is None and default is not ...:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or value < low:
            raise self.wrong(name, f"must be a number of at least {low:g}")
        return value

    def integer(self, name: str, *, low: int, default: Any = ...) -> Any:
        value = self.number(name, low=low, default=default)
        if value is not None and not isinstance(value, int):
            raise self.wrong(name, "must be a whole number")
        return value

    def text(self, name: str) -> str:
        value = self._value.get(name)
        if not isinstance(value, str) or not value:
            raise self.wrong(name, "must be a text")
        return value

    def items(self, name: str) -> list["_Fields"]:
        value = self._value.get(name, [])
        if not isinstance(value, list):
            raise self.wrong(name, "must be a list")
        return [_Fields(f"{self._where}: {name}[{i}]", v) for i, v in enumerate(value)]

    def value(self, name: str) -> Any:
        return self._value.get(name)

    def choice(self, name: str, among: type[_E], *, default: _E) -> _E:
        value = self._value.get(name, default)
        try:
            return among(value)
        except ValueError:
            raise self.wrong(name, f"must be one of {', '.join(among)}") from None

    def flag(self, name: str, *, default: bool) -> bool:
        return bool(self._value.get(name, default))


def read_udp(path: Path) -> UdpProfile:
    """Read a UDP profile file."""
    top = _open(path, UDP_FORMAT)
    flows = tuple(_udp_flow(f) for f in top.items("flows"))
    if not flows:
        raise UsageError(f"{path}: flows: must name at least one flow")
    return UdpProfile(
        interface=top.text("interface"),
        rate_pps=top.number("rate_pps", low=0.001),
        flows=flows,
        record=Path(top.text("record")),
        trial=top.integer("trial", low=0, default=0),
        duration_s=top.number("duration_s", low=0, default=None),
        capacity=top.integer("capacity", low=1, default=1 << 20),
        catch_up_packets=top.integer("catch_up_packets", low=1, default=None),
        late_ms=top.number("late_ms", low=0, default=1.0),
        realtime=top.flag("realtime", default=True),
        quantum_ms=top.number("quantum_ms", low=0, default=None),
        distribution=top.choice("distribution", Distribution, default=Distribution.ISOCHRONOUS),
        seed=top.integer("seed", low=0, default=0),
        fresh_ports=_fresh_ports(top, flows),
    )


def _fresh_ports(top: _Fields, flows: tuple[UdpFlow, ...]) -> tuple[int, int] | None:
    value = top.value("fresh_ports")
    if value is None:
        return None
    if (
        not isinstance(value, list)
        or [type(one) for one in value] != [int, int]
        or min(value) < 1
        or sum(value) > 65536
    ):
        raise top.wrong("fresh_ports", "must be the lowest port and how many, up to 65535")
    if not all(flow.stamped for flow in flows):
        raise top.wrong("fresh_ports", "frames without a probe header keep their ports")
    return value[0], value[1]


def _udp_flow(fields: _Fields) -> UdpFlow:
    try:
        frame = base64.b64decode(fields.text("frame"), validate=True)
    except ValueError:
        raise fields.wrong("frame", "must be base64") from None
    header_at = fields.integer("header_at", low=0)
    if header_at != len(frame) and header_at + wire.HEADER.size > len(frame):
        raise fields.wrong("header_at", f"leaves no room for a header in {len(frame)} bytes")
    checksum_at = fields.integer("checksum_at", low=0, default=None)
    if checksum_at is not None and checksum_at + 2 > header_at:
        raise fields.wrong("checksum_at", "must lie before the header")
    port_at = fields.integer("port_at", low=0, default=None)
    if port_at is not None and port_at + 2 > header_at:
        raise fields.wrong("port_at", "must lie before the header")
    return UdpFlow(
        flow=fields.integer("flow", low=0),
        frame=frame,
        header_at=header_at,
        checksum_at=checksum_at,
        port_at=port_at,
    )


def read_tcp(path: Path) -> TcpProfile:
    """Read a TCP profile file."""
    top = _open(path, TCP_FORMAT)
    return TcpProfile(
        record=Path(top.text("record")),
        established=tuple(
            Established(
                target=f.integer("target", low=0),
                address=f.text("address"),
                port=f.integer("port", low=1),
                connections=f.integer("connections", low=1),
                interval_s=f.number("interval_s", low=0.001),
                protocol=f.choice("protocol", Protocol, default=Protocol.TCP),
                bulk_bytes=_bulk_bytes(f),
            )
            for f in top.items("established")
        ),
        connects=tuple(
            Connects(
                target=f.integer("target", low=0),
                address=f.text("address"),
                port=f.integer("port", low=1),
                rate_per_s=f.number("rate_per_s", low=0.001),
                protocol=f.choice("protocol", Protocol, default=Protocol.TCP),
            )
            for f in top.items("connects")
        ),
        trial=top.integer("trial", low=0, default=0),
        duration_s=top.number("duration_s", low=0, default=None),
        response_timeout_s=top.number("response_timeout_s", low=0.001, default=1.0),
        connect_timeout_s=top.number("connect_timeout_s", low=0.001, default=3.0),
        request_bytes=top.integer("request_bytes", low=24, default=32),
        capacity=top.integer("capacity", low=1, default=1 << 17),
    )


def _bulk_bytes(fields: _Fields) -> int | None:
    value: int | None = fields.integer("bulk_bytes", low=2, default=None)
    if value is not None and value > MOST_BULK_BYTES:
        raise fields.wrong("bulk_bytes", f"must be at most {MOST_BULK_BYTES}")
    return value


def _open(path: Path, form: str) -> _Fields:
    try:
        value = json.loads(path.read_text())
    except OSError as err:
        raise UsageError(f"{path}: {err.strerror}") from None
    except ValueError as err:
        raise UsageError(f"{path}: not JSON: {err}") from None
    found = value.get("format") if isinstance(value, dict) else None
    if found != form:
        raise UsageError(f"{path}: format: is {found!r}, this program reads {form!r}")
    return _Fields(str(path), value)

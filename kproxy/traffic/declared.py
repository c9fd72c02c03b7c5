"""What traffic a user wants, in words: a YAML file, or the same fields as options.

::

    traffic:
      - kind: udp                   # packets/s, Poisson, a source port for each packet
        to: 10.96.0.10:5353
        rate: 2000
        distribution: poisson
        source-ports: fresh
      - kind: packet                # anything, in scapy's words
        packet: IP(dst='10.96.0.10')/TCP(dport=80, flags='S')
      - kind: tcp-requests          # kept connections, each with so many requests/s
        to: 10.96.0.10:80
        connections: 8
        rate: 2

``docs/traffic.md`` describes every field. :func:`read` and :func:`one`
raise UsageError with the place, the field and what it should be.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import yaml

from kproxy.errors import UsageError
from kproxy.traffic import profile, wire
from kproxy.traffic.profile import Distribution, Protocol

MOST_RATE = 10_000_000.0
MOST_POISSON = 1_000_000.0
"""To draw so many gaps takes half a second."""
MOST_FLOWS = 1 << 16


class Kind(StrEnum):
    """What is sent."""

    UDP = "udp"
    PACKET = "packet"
    TCP_CONNECTIONS = "tcp-connections"
    TCP_REQUESTS = "tcp-requests"
    TCP_BULK = "tcp-bulk"
    SCTP_CONNECTIONS = "sctp-connections"
    SCTP_REQUESTS = "sctp-requests"
    SCTP_BULK = "sctp-bulk"

    @property
    def protocol(self) -> Protocol | None:
        """What its connections are made of; None: it has none."""
        if self in (Kind.UDP, Kind.PACKET):
            return None
        return Protocol(self.partition("-")[0])


class SourcePorts(StrEnum):
    """Whether a flow keeps its source port, or each packet has another."""

    FIXED = "fixed"
    FRESH = "fresh"


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """One kind of traffic.

    ``rate``: packets or new connections per second, all flows together; of kept connections
    requests or blocks per second, each. ``to`` and ``port`` are None where the packet says it, or
    whoever runs it knows. ``payload_bytes`` counts the probe header; ``block_bytes`` is for bulk.
    """

    kind: Kind
    rate: float
    to: IPv4Address | IPv6Address | None = None
    port: int | None = None
    distribution: Distribution = Distribution.ISOCHRONOUS
    seed: int = 0
    flows: int = 16
    connections: int = 8
    source_ports: SourcePorts = SourcePorts.FIXED
    payload_bytes: int = wire.HEADER.size
    block_bytes: int = profile.MOST_BULK_BYTES
    packet: str = ""


_ANY = {"kind", "rate"}
_PACKETS = {"distribution", "seed", "flows", "source-ports"}
_ALLOWED: dict[Kind, set[str]] = {
    Kind.UDP: _ANY | _PACKETS | {"to", "payload-bytes"},
    Kind.PACKET: _ANY | _PACKETS | {"packet"},
    **{kind: _ANY | {"to"} for kind in (Kind.TCP_CONNECTIONS, Kind.SCTP_CONNECTIONS)},
    **{kind: _ANY | {"to", "connections"} for kind in (Kind.TCP_REQUESTS, Kind.SCTP_REQUESTS)},
    **{
        kind: _ANY | {"to", "connections", "block-bytes"}
        for kind in (Kind.TCP_BULK, Kind.SCTP_BULK)
    },
}


def read(path: Path) -> tuple[Traffic, ...]:
    """Read a file of declared traffic."""
    try:
        top = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not a text file") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UsageError(f"{path}: {line}not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not YAML: {str(error).partition(chr(10))[0]}") from None
    listed = top.get("traffic") if isinstance(top, Mapping) else None
    if not isinstance(listed, list) or not listed:
        raise UsageError(
            f"{path}: traffic: must be a list of at least one kind of traffic",
            remedy="for example traffic: [{kind: udp, to: '10.96.0.10:53', rate: 1000}]",
        )
    unknown = sorted(str(name) for name in top if name != "traffic")
    if unknown:
        raise UsageError(f"{path}: {unknown[0]}: unknown", remedy="the only field is traffic")
    return tuple(one(value, f"{path}: traffic[{i}]") for i, value in enumerate(listed))


def one(value: object, where: str) -> Traffic:
    """Return the traffic that a mapping of fields describes; ``where`` begins every error."""
    if not isinstance(value, Mapping):
        raise UsageError(f"{where}: must be fields and values", remedy="for example kind: udp")
    given = _Given(where, value)
    kind = given.choice("kind", Kind, None)
    allowed = _ALLOWED[kind]
    for name in value:
        if name not in allowed:
            raise UsageError(
                f"{where}: {name}: {kind} has no such field",
                remedy=f"it has {', '.join(sorted(allowed))}",
            )
    address, port = given.address("to")
    packet = value.get("packet", "")
    if kind is Kind.PACKET and not (isinstance(packet, str) and packet):
        raise given.wrong("packet", "must be a packet in scapy's words, in quotes")
    default = {field.name: field.default for field in fields(Traffic)}
    distribution = given.choice("distribution", Distribution, Distribution.ISOCHRONOUS)
    most = MOST_POISSON if distribution is Distribution.POISSON else MOST_RATE
    return Traffic(
        kind=kind,
        rate=given.number("rate", 0.001, most if "connections" not in allowed else 1000.0),
        to=address,
        port=port,
        distribution=distribution,
        seed=given.whole("seed", 0, 2**63, 0),
        flows=given.whole("flows", 1, MOST_FLOWS, default["flows"]),
        connections=given.whole("connections", 1, 10_000, default["connections"]),
        source_ports=given.choice("source-ports", SourcePorts, SourcePorts.FIXED),
        payload_bytes=given.whole(
            "payload-bytes", wire.HEADER.size, 65_000, default["payload_bytes"]
        ),
        block_bytes=given.whole("block-bytes", 2, profile.MOST_BULK_BYTES, default["block_bytes"]),
        packet=packet,
    )


class _Given:
    """The fields of one mapping, with errors that name them."""

    def __init__(self, where: str, value: Mapping[Any, Any]) -> None:
        self._where = where
        self._value = value

    def wrong(self, name: str, problem: str) -> UsageError:
        found = self._value.get(name)
        said = "" if found is None else f", not {found!r}"
        return UsageError(f"{self._where}: {name}: {problem}{said}")

    def choice(self, name: str, among: type[StrEnum], default: Any) -> Any:
        value = self._value.get(name, default)
        try:
            return among(value)
        except ValueError:
            raise self.wrong(name, f"must be one of {', '.join(among)}") from None

    def number(self, name: str, low: float, high: float) -> float:
        value = self._value.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(name, "must be a number per second")
        if not low <= value <= high:
            raise self.wrong(name, f"must be from {low:g} to {high:,.0f} per second")
        return float(value)

    def whole(self, name: str, low: int, high: int, default: Any) -> int:
        value = self._value.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(name, f"must be a whole number from {low} to {high}")
        return value

    def address(self, name: str) -> tuple[IPv4Address | IPv6Address | None, int | None]:
        """Return what ``10.96.0.10:80`` or ``[fd00::1]:80`` means; (None, None) if absent."""
        value = self._value.get(name)
        if value is None:
            return None, None
        host, colon, port = str(value).rpartition(":")
        host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
        try:
            found = ip_address(host)
        except ValueError:
            raise self.wrong(
                name, "must be ADDRESS:PORT, as '10.96.0.10:80' or '[fd00::1]:80'"
            ) from None
        if not colon or not port.isdecimal() or not 1 <= int(port) <= 65535:
            raise self.wrong(name, "must end with a port from 1 to 65535")
        return found, int(port)

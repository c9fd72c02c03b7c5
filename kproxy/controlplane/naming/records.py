"""From Services, EndpointSlices and Pods to the records of DNS. Pure.

After "Kubernetes DNS-Based Service Discovery", schema 1.1.0. Owner names are whole, in lower case
and without the last dot. What the specification leaves open is done as CoreDNS does it: an
endpoint without a hostname is called by its address with dashes (``10-244-1-2``).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from kproxy.api import addresses, core, discovery

SCHEMA = "1.1.0"
TTL_S = 5
PRIORITY = 0
WEIGHTS = 100
"""The weights of the SRV records of one name and port sum up to this, roughly, as CoreDNS' do."""
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_PROTOCOLS = {"TCP": "_tcp", "UDP": "_udp", "SCTP": "_sctp"}


class Type(StrEnum):
    """Types of records that a cluster's zone holds."""

    A = "A"
    AAAA = "AAAA"
    SRV = "SRV"
    PTR = "PTR"
    CNAME = "CNAME"
    TXT = "TXT"


class Record(NamedTuple):
    """One record; ``data`` is written as in a zone file, names in it with their last dot."""

    name: str
    type: Type
    data: str


class _Named(NamedTuple):
    """A name and the port that is reached there, for SRV."""

    target: str
    port: int
    proto: str
    name: str


def about_zone(zone: str) -> Iterator[Record]:
    """Yield what the zone says of itself, the SOA apart."""
    yield Record(f"dns-version.{zone}", Type.TXT, f'"{SCHEMA}"')


def of_service(
    service: core.Service, slices: Iterable[discovery.EndpointSlice], zone: str
) -> Iterator[Record]:
    """Yield the records of a Service; ``slices`` are its EndpointSlices.

    What cannot be a name or an address is left out.
    """
    meta, spec = service.metadata, service.spec
    if not (_LABEL.fullmatch(meta.name) and _LABEL.fullmatch(meta.namespace)):
        return
    own = f"{meta.name}.{meta.namespace}.svc.{zone}"
    if spec.type == "ExternalName":
        target = spec.external_name.rstrip(".").lower()
        if is_name(target):
            yield Record(own, Type.CNAME, f"{target}.")
        return
    texts = spec.cluster_ips or [spec.cluster_ip]
    if texts[0] == "None":
        yield from _headless(own, spec.publish_not_ready_addresses, slices)
        return
    found = [parsed for text in texts if (parsed := addresses.parse_address(text))]
    for parsed in found:
        yield from _address(own, parsed.text)
        yield Record(reverse(parsed.text), Type.PTR, f"{own}.")
    if found:
        ports = [
            _Named(own, port.port, port.protocol, port.name)
            for port in spec.ports or ()
            if port.name
        ]
        yield from _services(own, ports)


def of_pod(address: str, namespace: str, zone: str) -> Iterator[Record]:
    """Yield the records of the dashed name of a pod."""
    parsed = addresses.parse_address(address)
    if parsed and _LABEL.fullmatch(namespace):
        yield from _address(f"{dashed(parsed.text)}.{namespace}.pod.{zone}", parsed.text)


def _headless(
    own: str, unready_too: bool, slices: Iterable[discovery.EndpointSlice]
) -> Iterator[Record]:
    ports: list[_Named] = []
    for item in slices:
        for endpoint in item.endpoints or ():
            address = _address_of(item, endpoint)
            ready = endpoint.conditions is None or endpoint.conditions.ready is not False
            if address is None or not (ready or unready_too):
                continue
            hostname = (endpoint.hostname or "").lower()
            label = hostname if _LABEL.fullmatch(hostname) else dashed(address)
            name = f"{label}.{own}"
            yield from _address(own, address)
            yield from _address(name, address)
            yield Record(reverse(address), Type.PTR, f"{name}.")
            ports += [
                _Named(name, port.port, port.protocol or "TCP", port.name)
                for port in item.ports or ()
                if port.name and port.port is not None
            ]
    yield from _services(own, ports)


def _address_of(item: discovery.EndpointSlice, endpoint: discovery.Endpoint) -> str | None:
    """Return the address of an endpoint if it is one, and of the slice's type."""
    parsed = addresses.parse_address(endpoint.addresses[0]) if endpoint.addresses else None
    if parsed is None or item.address_type != f"IPv{parsed.version}":
        return None
    return parsed.text


def _address(name: str, address: str) -> Iterator[Record]:
    yield Record(name, Type.AAAA if ":" in address else Type.A, address)


def _services(own: str, ports: Sequence[_Named]) -> Iterator[Record]:
    """Yield the SRV records of named ports; all of one port's weigh the same."""
    by_port: dict[tuple[str, str], dict[tuple[int, str], None]] = {}
    for port in ports:
        proto = _PROTOCOLS.get(port.proto)
        if proto and _LABEL.fullmatch(port.name) and 0 < port.port < 65536:
            by_port.setdefault((port.name, proto), {})[port.port, port.target] = None
    for (name, proto), targets in by_port.items():
        weight = max(1, WEIGHTS // len(targets))
        for number, target in targets:
            data = f"{PRIORITY} {weight} {number} {target}."
            yield Record(f"_{name}.{proto}.{own}", Type.SRV, data)


def dashed(address: str) -> str:
    """Return an address as a label: ``10-244-1-2``, ``fd00-244--1``.

    A label neither begins nor ends with a dash, so ``::1`` is written out.
    """
    label = address.replace(".", "-").replace(":", "-")
    if label.startswith("-") or label.endswith("-"):
        label = ip_address(address).exploded.replace(":", "-")
    return label


def undashed(label: str) -> str | None:
    """Return the address that a label of a pod's name stands for, canonical; None: it is none."""
    dots, colons = label.replace("-", "."), label.replace("-", ":")
    parsed = addresses.parse_address(dots) or addresses.parse_address(colons)
    return parsed.text if parsed else None


def reverse(address: str) -> str:
    """Return the name at which the PTR record of an address is."""
    parsed: IPv4Address | IPv6Address = ip_address(address)
    return parsed.reverse_pointer


def is_name(text: str) -> bool:
    """Return whether a text in lower case is a name of hosts."""
    return len(text) <= 253 and all(_LABEL.fullmatch(label) for label in text.split("."))

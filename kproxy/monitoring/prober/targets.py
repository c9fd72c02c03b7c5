"""Which probes a Service asks for. Pure.

A Service is probed by connections to each of its TCP ports. Its annotation says otherwise::

    kproxy/probe: udp-echo               # datagrams to its UDP ports, which send them back, too
    kproxy/probe: none                   # no probes at all

Not probed without being asked (``kproxy/probe: tcp-connect``) are Services whose
``internalTrafficPolicy`` is Local: on a node without endpoints they are meant to be lost.
"""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from kproxy.api import addresses
from kproxy.api.core import Service, ServicePort
from kproxy.errors import InvalidObject

ANNOTATION = "kproxy/probe"


class Wish(StrEnum):
    """What the annotation may hold; several are separated by commas."""

    TCP_CONNECT = "tcp-connect"
    UDP_ECHO = "udp-echo"
    NONE = "none"


class Probe(StrEnum):
    """How a port is probed: the label ``probe``."""

    TCP_CONNECT = "tcp-connect"
    UDP_FLOW = "udp-flow"
    """From one source port for as long as the Service lives: what conntrack remembers counts."""
    UDP_FRESH = "udp-fresh"
    """From a new source port each time."""


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """What is probed, and how. Targets of one Service differ by address, port, probe and flow."""

    namespace: str
    service: str
    port: int
    protocol: str
    probe: Probe
    address: str
    flow: int = 0
    """Which of several flows of the kind UDP_FLOW."""

    @property
    def labels(self) -> tuple[str, str, str, str, str]:
        """Return the values of the labels namespace, service, port, protocol, probe."""
        return self.namespace, self.service, str(self.port), self.protocol, self.probe.value

    @property
    def phase(self) -> float:
        """Return when in its period it is due, from 0 to 1: not all Services at once."""
        text = "/".join((*self.labels, self.address, str(self.flow)))
        return zlib.crc32(text.encode()) / 2**32


def targets(service: Service, flows: int = 1) -> Iterator[Target]:
    """Yield what is to be probed of a Service, with so many lasting UDP flows to each UDP port.

    Raises InvalidObject for an annotation that cannot be understood.
    """
    wishes = wanted(service)
    if Wish.NONE in wishes:
        return
    for address in _addresses(service):
        for port in service.spec.ports or ():
            for probe in _probes(port, wishes):
                for flow in range(flows if probe is Probe.UDP_FLOW else 1):
                    yield Target(
                        namespace=service.metadata.namespace,
                        service=service.metadata.name,
                        port=port.port,
                        protocol=port.protocol,
                        probe=probe,
                        address=address,
                        flow=flow,
                    )


def wanted(service: Service) -> frozenset[Wish]:
    """Return what is wished for a Service. Raises InvalidObject."""
    meta = service.metadata
    text = (meta.annotations or {}).get(ANNOTATION, "")
    words = [word.strip() for word in text.split(",") if word.strip()]
    try:
        wishes = {Wish(word) for word in words}
    except ValueError:
        known = ", ".join(Wish)
        raise InvalidObject(
            f"Service {meta.namespace}/{meta.name}",
            f"metadata.annotations[{ANNOTATION}]",
            f"{text!r} is no list of {known}",
            remedy=f"write one of {known}",
        ) from None
    if service.spec.internal_traffic_policy != "Local":
        wishes.add(Wish.TCP_CONNECT)
    return frozenset(wishes)


def _probes(port: ServicePort, wishes: Iterable[Wish]) -> tuple[Probe, ...]:
    if port.protocol == "TCP" and Wish.TCP_CONNECT in wishes:
        return (Probe.TCP_CONNECT,)
    if port.protocol == "UDP" and Wish.UDP_ECHO in wishes:
        return Probe.UDP_FLOW, Probe.UDP_FRESH
    return ()


def _addresses(service: Service) -> list[str]:
    """Return the addresses inside the cluster; a headless Service has none, nor has a name."""
    spec = service.spec
    if spec.type == "ExternalName":
        return []
    given = spec.cluster_ips or [spec.cluster_ip]
    parsed = (addresses.parse_address(text) for text in given)
    return [address.text for address in parsed if address is not None]

"""Topologies as JSON, for the journal and for anybody who wants to keep or show one.

Encoding is generic; decoding names every field, so that a file of another version fails here and
nowhere else.
"""

import dataclasses
import ipaddress
from typing import Any

from netns.impairment import Impairment
from netns.topology import (
    Host,
    Interface,
    Link,
    Neighbour,
    Route,
    RouteKind,
    Segment,
    Topology,
)
from netns.uplink import Attachment, Uplink


def encode(topology: Topology) -> dict[str, Any]:
    """A dict of lists, strings, numbers and booleans, as :func:`json.dumps` wants it."""
    plain = _plain(dataclasses.asdict(topology))
    assert isinstance(plain, dict)
    return plain


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return str(value)


def decode(data: dict[str, Any]) -> Topology:
    """The topology of an encoded one; for anything else KeyError, TypeError or ValueError."""
    return Topology(
        hosts=tuple(map(_host, data["hosts"])),
        links=tuple(
            Link(
                a=_interface(each["a"]),
                b=_interface(each["b"]),
                static_neighbours=each["static_neighbours"],
            )
            for each in data["links"]
        ),
        segments=tuple(
            Segment(
                name=each["name"],
                interfaces=tuple(map(_interface, each["interfaces"])),
                static_neighbours=each["static_neighbours"],
            )
            for each in data["segments"]
        ),
    )


def _host(data: dict[str, Any]) -> Host:
    return Host(
        name=data["name"],
        routes=tuple(map(_route, data["routes"])),
        sysctls=dict(data["sysctls"]),
        neighbours=tuple(
            Neighbour(
                address=ipaddress.ip_address(each["address"]), mac=each["mac"], dev=each["dev"]
            )
            for each in data["neighbours"]
        ),
    )


def _interface(data: dict[str, Any]) -> Interface:
    return Interface(
        host=data["host"],
        name=data["name"],
        addresses=tuple(map(ipaddress.ip_interface, data["addresses"])),
        mac=data["mac"],
        mtu=data["mtu"],
        routes=tuple(map(_route, data["routes"])),
        impairment=None if data["impairment"] is None else Impairment(**data["impairment"]),
        uplink=None if data["uplink"] is None else _uplink(data["uplink"]),
    )


def _uplink(data: dict[str, Any]) -> Uplink:
    return Uplink(nic=data["nic"], kind=Attachment(data["kind"]), mode=data["mode"])


def _route(data: dict[str, Any]) -> Route:
    return Route(
        to=ipaddress.ip_network(data["to"]),
        via=None if data["via"] is None else ipaddress.ip_address(data["via"]),
        dev=data["dev"],
        onlink=data["onlink"],
        kind=RouteKind(data["kind"]),
    )

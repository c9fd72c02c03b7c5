"""What the kernel says of a packet's visit to a namespace, after it was there. Reads only."""

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from kproxy.errors import KernelError, Unsupported
from kproxy.kernel.conntrack import types as conntrack
from kproxy.kernel.conntrack.client import Conntrack
from kproxy.kernel.inet import Family, IPAddress, Protocol, unpacked
from kproxy.kernel.ipvs import connections as ipvs
from kproxy.kernel.ipvs import proc
from kproxy.kernel.ipvs.types import ServiceKey
from kproxy.kernel.links.card import Card
from kproxy.kernel.routes.client import Routes
from kproxy.kernel.routes.types import Query, Route
from kproxy.trace.facts import flow_of, translated
from kproxy.trace.packet import Flow
from kproxy.trace.places import process
from kproxy.traffic import hwstamp

_NET = Path("/proc/thread-self/net")
_LISTENING = "0A"


def tracked(protocol: Protocol, flow: Flow) -> conntrack.Flow | None:
    """Return the tracked connection to which a packet belongs, in either direction."""
    with contextlib.suppress(KernelError, Unsupported), Conntrack() as table:
        for one in table.flows(Family(flow.source.version), protocol):
            if flow in (flow_of(one), translated(one).reverse):
                return one
    return None


def virtual(protocol: Protocol, flow: Flow) -> ipvs.Connection | None:
    """Return the connection of IPVS to which a packet to a virtual server belongs."""
    client = flow.source, flow.source_port
    server = flow.destination, flow.destination_port
    for one in ipvs.connections():
        if (one.protocol, one.client, one.virtual) == (protocol, client, server):
            return one
    return None


def real_servers(protocol: Protocol, flow: Flow) -> int | None:
    """Return how many real servers IPVS has for where a packet goes; None: nothing of IPVS."""
    with contextlib.suppress(OSError, ValueError):
        key = ServiceKey(protocol, flow.destination, flow.destination_port)
        found = proc.parse([Path(proc.PATH).read_bytes()]).get(key)
        return None if found is None else len(found)
    return None


def route(
    protocol: Protocol, flow: Flow, *, came_by: Card | None, foreign: bool = False
) -> Route | None:
    """Return the way that the kernel has for a packet of this flow.

    ``foreign``: it is sent on from here under an address that is not one of this host.
    """
    query = Query(
        destination=flow.destination,
        source=None if foreign else flow.source,
        arrives_on=came_by.index if came_by is not None else 0,
        protocol=protocol.number,
        source_port=flow.source_port,
        destination_port=flow.destination_port,
    )
    with contextlib.suppress(KernelError), Routes() as routes:
        return routes.lookup(query)
    return None


def drivers(cards: Iterable[Card]) -> dict[str, str]:
    """Return the drivers of devices, by name."""
    return {card.name: hwstamp.driver(card.name) for card in cards}


def taker(protocol: Protocol, flow: Flow) -> str:
    """Return which process of this namespace takes packets to that address and port; or ""."""
    for name in (protocol, f"{protocol}6"):
        inode = _inode(name, flow.destination, flow.destination_port)
        if inode:
            return _owner(inode)
    return ""


def _inode(name: str, address: IPAddress, port: int) -> str:
    with contextlib.suppress(OSError):
        for line in (_NET / name).read_text().splitlines()[1:]:
            words = line.split()
            digits, _, number = words[1].rpartition(":")
            open_ = words[3] == _LISTENING or name.startswith("udp")
            if open_ and int(number, 16) == port and _takes(digits, address):
                return words[9]
    return ""


def _takes(digits: str, address: IPAddress) -> bool:
    """Return whether a socket bound to an address, as /proc writes it, takes one for another."""
    raw = b"".join(int(word, 16).to_bytes(4, "little") for word in re.findall("." * 8, digits))
    if not any(raw):
        return True
    bound = unpacked(raw)
    return bound == address or getattr(bound, "ipv4_mapped", None) == address


def _owner(inode: str) -> str:
    """Return the name and number of the process that holds a socket."""
    wanted = f"socket:[{inode}]"
    for directory in Path("/proc").iterdir():
        if not directory.name.isdecimal():
            continue
        with contextlib.suppress(OSError), os.scandir(directory / "fd") as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if str(Path(entry.path).readlink()) == wanted:
                        return process(directory)
    return "somebody"

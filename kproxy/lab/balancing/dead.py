"""Ends connections to servers that are dead, so that their clients notice.

A dead program's connections are ended by its own kernel. Those to a machine that is gone, or to a
program that hangs, would last until the clients' patience does. Taken off their server they are
nobody's: the next packet of a client finds no connection and is answered with a reset.

The backends do not do that: a node's proxy does not know better than connections whether somebody
is dead, and lets them drain. (With IPVS it needs ``expire_nodest_conn``, which mode ipvs sets.)
"""

from collections.abc import Collection, Iterator
from ipaddress import ip_address
from typing import NamedTuple

from kproxy.errors import KernelError, NotFound, Unsupported
from kproxy.kernel import inet
from kproxy.kernel.conntrack.client import Conntrack
from kproxy.kernel.conntrack.types import ConntrackClient
from kproxy.kernel.ipvs.client import IPVS
from kproxy.kernel.ipvs.types import DelDestination, DestinationKey, IPVSClient, ServiceKey


class Place(NamedTuple):
    """Where clients connect to, and the dead server behind it. TCP."""

    address: str
    port: int
    server: str
    target: int


class Undertaker:
    """Ends connections in the current network namespace, by way of a mode's tables."""

    def __init__(
        self,
        mode: str,
        ipvs: IPVSClient | None = None,
        conntrack: ConntrackClient | None = None,
    ) -> None:
        self._ipvs = (ipvs or IPVS()) if mode == "ipvs" else None
        self._conntrack = conntrack or Conntrack()

    def close(self) -> None:
        """Give sockets back."""
        self._conntrack.close()
        if self._ipvs is not None:
            self._ipvs.close()

    def end(self, places: Collection[Place]) -> list[KernelError]:
        """End the connections at these places; return what went wrong.

        To be called when a sync has taken the servers out of the tables.
        """
        if not places:
            return []
        try:
            if self._ipvs is not None:
                results = self._ipvs.run([_removal(place) for place in places])
            else:
                results = self._forget(places)
        except KernelError as error:
            return [error]
        except Unsupported:
            return []  # without connection tracking there is nothing to forget
        return [one for one in results if one is not None and not isinstance(one, NotFound)]

    def _forget(self, places: Collection[Place]) -> list[KernelError | None]:
        wanted = set(places)
        families = {inet.Family(ip_address(place.address).version) for place in places}
        flows = [
            flow
            for family in sorted(families)
            for flow in self._conntrack.flows(family, inet.Protocol.TCP)
            if Place(
                str(flow.destination),
                flow.destination_port,
                str(flow.reply_source),
                flow.reply_source_port,
            )
            in wanted
        ]
        return self._conntrack.delete(flows)


def _removal(place: Place) -> DelDestination:
    service = ServiceKey(inet.Protocol.TCP, ip_address(place.address), place.port)
    return DelDestination(service, DestinationKey(ip_address(place.server), place.target))


def places(address: str, port: int, servers: Collection[str], target: int) -> Iterator[Place]:
    """Yield the places of dead servers behind one address and port, those of its family."""
    for server in servers:
        if (":" in server) is (":" in address):
            yield Place(address, port, server, target)

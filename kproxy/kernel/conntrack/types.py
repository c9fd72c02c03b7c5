"""Tracked flows as values. Pure."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from kproxy.errors import KernelError
from kproxy.kernel import inet
from kproxy.kernel.inet import Family, IPAddress


class Flow(NamedTuple):
    """One entry of the connection tracking table.

    ``reply_source`` is who answers: where the destination was translated, the translated one.
    ``zone`` is 0 unless rules say otherwise; ``id`` tells a flow from a later one like it.
    """

    protocol: inet.Protocol
    source: IPAddress
    source_port: int
    destination: IPAddress
    destination_port: int
    reply_source: IPAddress
    reply_source_port: int
    reply_destination: IPAddress
    reply_destination_port: int
    zone: int = 0
    id: int = 0

    def __str__(self) -> str:
        return (
            f"{self.protocol} {self.source} port {self.source_port}"
            f" → {self.destination} port {self.destination_port}"
        )


class ConntrackClient(Protocol):
    """What :class:`~kproxy.kernel.conntrack.client.Conntrack` and its fake have in common."""

    def supported(self) -> str | None:
        """Return None, or in words why the table cannot be read here."""

    def flows(self, family: Family, protocol: inet.Protocol = inet.Protocol.UDP) -> list[Flow]:
        """Return the tracked flows of one protocol."""

    def delete(self, flows: Sequence[Flow]) -> list[KernelError | None]:
        """Forget these flows; return for each None or why not (NotFound: it has ended already)."""

    def close(self) -> None:
        """Give the socket back."""

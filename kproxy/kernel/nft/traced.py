"""What nf_tables tells of a traced packet, as values. Pure."""

from typing import NamedTuple

from kproxy.kernel.nft.types import Hook

TABLE_PREFIX = "kproxy-trace-"
"""Of the tables that mark packets for tracing: they are ours."""


class Traced(NamedTuple):
    """One step of a traced packet. ``number`` is the same for all steps of one packet here.

    ``kind``: ``rule``, ``policy`` of a base chain, or ``return`` from a chain that has ended.
    ``verdict`` in words (``drop``, ``jump KUBE-SERVICES``). ``network`` and ``transport`` are the
    packet's headers, given with the first step in each base chain only.
    """

    number: int
    family: str
    table: str
    chain: str
    kind: str
    handle: int
    verdict: str
    iif: int = 0
    oif: int = 0
    network: bytes = b""
    transport: bytes = b""


class Hooked(NamedTuple):
    """A base chain: its hook and priority."""

    hook: Hook
    priority: int


Key = tuple[str, str, str]
"""Family, table and chain."""

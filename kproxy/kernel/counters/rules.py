"""What rules have dropped or rejected: all rules of nf_tables and of ip_tables that say so.

The nf_tables variant of iptables writes rules of nf_tables, so it is read with them. A rule of
nf_tables without ``counter`` counts nothing and is left out.
"""

import struct
from typing import NamedTuple

from kproxy.errors import KernelError, Unsupported
from kproxy.kernel import netlink, nfnetlink
from kproxy.kernel.attributes import Buffer, find, walk
from kproxy.kernel.counters import proc
from kproxy.kernel.inet import Family
from kproxy.kernel.iptables import counters as legacy
from kproxy.kernel.nft import wire

_TABLE, _HANDLE = 1, 3
_NAME, _DATA = 1, 2
_COUNTER_PACKETS = 2
_IMMEDIATE_DATA, _VERDICT, _CODE, _DROP = 2, 2, 1, 0
_CT_KEY, _CT_STATE = 2, 0
_MASK, _VALUE = 4, 1
_INVALID_BIT = 1
_COMPAT_NAME, _COMPAT_INFO = 1, 3
_FAMILIES = {1: "inet", 2: "ip", 5: "netdev", 7: "bridge", 10: "ip6"}


class RuleCounter(NamedTuple):
    """A rule that lets nothing pass. ``invalid``: it is about what connection tracking refuses.

    ``name`` tells the rule from all others of the namespace, and what it is.
    """

    name: str
    packets: int
    invalid: bool
    rejects: bool


def rules() -> tuple[RuleCounter, ...]:
    """Return the rules of the current namespace that drop or reject, with what they have met.

    KernelError if they change too fast to be read.
    """
    return (*_of_nft(), *_of_legacy())


def _of_nft() -> list[RuleCounter]:
    try:
        sock = netlink.NetlinkSocket(netlink.NETLINK_NETFILTER)
    except Unsupported:
        return []
    try:
        everything = nfnetlink.header(0)
        found = sock.dump(wire.kind(wire.GET_RULE), everything, _rule, "read what rules counted")
    except KernelError as error:
        if error.errno in nfnetlink.NO_ANSWER:
            raise
        return []  # A kernel without nf_tables.
    finally:
        sock.close()
    return [one for one in found if one is not None]


def _rule(buffer: Buffer, start: int, end: int) -> RuleCounter | None:
    family = buffer[start]
    places = find(buffer, start + nfnetlink.HEADER_SIZE, end)
    packets: int | None = None
    verdict, invalid, state = "", False, False
    for _, begin, stop in walk(buffer, *places.get(wire.RULE_EXPRESSIONS, (0, 0))):
        expression = find(buffer, begin, stop)
        name = _text(buffer, expression[_NAME])
        data = find(buffer, *expression[_DATA]) if _DATA in expression else {}
        if name == "counter":
            at, _ = data[_COUNTER_PACKETS]
            packets = int.from_bytes(buffer[at : at + 8], "big")
        elif name == "ct":
            state = _number(buffer, data.get(_CT_KEY)) == _CT_STATE
        elif name == "bitwise":
            invalid |= state and _mask(buffer, data) == _INVALID_BIT
        elif name == "match":
            invalid |= _compat_invalid(buffer, data)
        elif name == "reject" or (name == "target" and _text(buffer, data[_NAME]) == "REJECT"):
            verdict = "reject"
        elif name == "immediate" and _drops(buffer, data):
            verdict = "drop"
    if packets is None or not verdict:
        return None
    table, chain = _text(buffer, places[_TABLE]), _text(buffer, places[wire.RULE_CHAIN])
    handle = int.from_bytes(buffer[slice(*places[_HANDLE])], "big")
    where = f"nft {_FAMILIES.get(family, family)} {table} {chain} handle {handle} {verdict}"
    return RuleCounter(where, packets, invalid, verdict == "reject")


def _drops(buffer: Buffer, data: dict[int, tuple[int, int]]) -> bool:
    value = find(buffer, *data[_IMMEDIATE_DATA])
    if _VERDICT not in value:
        return False
    return _number(buffer, find(buffer, *value[_VERDICT]).get(_CODE)) == _DROP


def _mask(buffer: Buffer, data: dict[int, tuple[int, int]]) -> int | None:
    if _MASK not in data:
        return None
    at, stop = find(buffer, *data[_MASK])[_VALUE]
    return int(struct.unpack_from("=I", buffer, at)[0]) if stop - at >= 4 else None


def _compat_invalid(buffer: Buffer, data: dict[int, tuple[int, int]]) -> bool:
    name = _text(buffer, data[_COMPAT_NAME])
    begin, stop = data[_COMPAT_INFO]
    return legacy.is_invalid_state(name, bytes(buffer[begin:stop]))


def _of_legacy() -> list[RuleCounter]:
    found = []
    for family in Family:
        tool = "iptables" if family is Family.IPV4 else "ip6tables"
        for table in proc.legacy_tables(family):
            for place, rule in enumerate(legacy.refusing(family, table)):
                name = f"{tool} {table} {rule.chain} {rule.target.lower()} #{place}"
                found.append(
                    RuleCounter(name, rule.packets, rule.invalid, rule.target == "REJECT")
                )
    return found


def _number(buffer: Buffer, place: tuple[int, int] | None) -> int | None:
    return None if place is None else int.from_bytes(buffer[slice(*place)], "big")


def _text(buffer: Buffer, place: tuple[int, int]) -> str:
    return bytes(buffer[place[0] : place[1]]).rstrip(b"\0").decode()

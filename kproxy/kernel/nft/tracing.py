"""Which rules a packet meets: nf_tables' own tracing, for packets chosen by what they carry.

A table of ours, which its socket owns, marks the chosen packets before all other rules see them;
the kernel then tells each rule, of whatever table, that such a packet met. That covers the nft
variant of iptables, whose rules are nf_tables' rules. The table goes with the process, even one
that is killed; on kernels before 5.12, which know no owners, the next tracing takes away what a
dead one has left.
"""

import errno
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from kproxy.errors import KernelError, NotFound, Unsupported
from kproxy.kernel import netlink, nfnetlink
from kproxy.kernel.attributes import Buffer, be32, find, text, walk
from kproxy.kernel.inet import Family
from kproxy.kernel.multicast import Listener
from kproxy.kernel.nft import wire
from kproxy.kernel.nft.expressions import (
    Code,
    Constant,
    Expression,
    MetaKey,
    SetMeta,
    Verdict,
)
from kproxy.kernel.nft.traced import TABLE_PREFIX, Hooked, Key, Traced
from kproxy.kernel.nft.types import AddChain, AddRule, BaseChain, DelTable, Hook

PRIORITY = -450
"""Before everybody else: connection tracking puts fragments together at -400."""
_OWNER = 2
_INET = 1
_GROUP = 9
_WHAT = "traces of nf_tables"
_TRACE = nfnetlink.message_type(nfnetlink.SUBSYSTEM_NFTABLES, 17)
_TRACE_TABLE, _CHAIN, _HANDLE, _TYPE, _VERDICT, _ID = 1, 2, 3, 4, 5, 6
_NETWORK, _TRANSPORT, _IIF, _OIF, _POLICY = 8, 9, 10, 12, 16
_KINDS = {1: "policy", 2: "return", 3: "rule"}
_NO_OWNER = (errno.EOPNOTSUPP, errno.EINVAL)
_RULE_HANDLE = 3
_ROOM = 4 << 20
_FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}
_HOOKS = frozenset(Hook)
_CHAIN_TABLE = 1


class Tracing:
    """Traces packets in the namespace in which it is entered. Not for two threads.

    ``matches``: a packet that one of them fits is traced. Unsupported: no nf_tables here.
    """

    def __init__(self, matches: Sequence[Sequence[Expression]]) -> None:
        self._matches = matches
        self._table = f"{TABLE_PREFIX}{os.getpid()}"

    def __enter__(self) -> Self:
        self._commands = netlink.NetlinkSocket(netlink.NETLINK_NETFILTER)
        self._listener: Listener | None = None
        self._owned = False
        try:
            self._remove_dead()
            self._listener = Listener(netlink.NETLINK_NETFILTER, _GROUP, _ROOM, _WHAT)
            self._make()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        if not self._owned:
            self._delete(self._table)
        self._close()

    def _close(self) -> None:
        self._commands.close()
        if self._listener is not None:
            self._listener.close()

    def read(self) -> list[Traced]:
        """Return the steps that were told since the last call, without waiting."""
        assert self._listener is not None
        told = self._listener.read()
        return [
            read_step(buffer, start, end) for kind, buffer, start, end in told if kind == _TRACE
        ]

    def _make(self) -> None:
        """Make the table: owned where the kernel can; of both families where it can."""
        refused: netlink.Refusal | None = None
        for family in (_INET, Family.IPV4.af):
            for flags in (_OWNER, 0):
                refused = self._transact(family, self._bodies(flags))
                if refused is None:
                    self._family, self._owned = family, bool(flags)
                    return
                if refused.errno not in (*_NO_OWNER, errno.EAFNOSUPPORT, errno.ENOENT):
                    raise netlink.kernel_error("trace packets with nf_tables", refused)
        assert refused is not None
        words = refused.text or os.strerror(refused.errno)
        raise Unsupported(f"this kernel cannot trace packets with nf_tables: {words}")

    def _bodies(self, flags: int) -> list[wire.Body]:
        table = text(1, self._table) + (be32(wire.TABLE_FLAGS, flags) if flags else b"")
        bodies = [wire.Body(wire.NEW_TABLE, netlink.NLM_F_CREATE | netlink.NLM_F_EXCL, table)]
        packer = wire.Packer(self._table)
        for hook in (Hook.PREROUTING, Hook.OUTPUT):
            name = hook.name.lower()
            bodies += packer.pack(AddChain(name, BaseChain("filter", hook, PRIORITY)))
            for match in self._matches:
                mark = (Constant(b"\1", 0), SetMeta(MetaKey.NFTRACE, 0))
                bodies += packer.pack(AddRule(name, (*match, *mark)))
        return bodies

    def _transact(self, family: int, bodies: Sequence[wire.Body]) -> netlink.Refusal | None:
        number = self._commands.next_sequence
        messages = [wire.batch_begin(number & 0xFFFFFFFF)]
        for body in bodies:
            number += 1
            flags = netlink.NLM_F_REQUEST | body.flags
            kind = wire.kind(body.command)
            messages.append(
                nfnetlink.message(kind, flags, number & 0xFFFFFFFF, family, body.attributes)
            )
        messages.append(wire.batch_end(number + 1 & 0xFFFFFFFF))
        refused = self._commands.transact(messages)
        return refused[min(refused)] if refused else None

    def _delete(self, table: str) -> None:
        """Remove a table without owner; absent is fine."""
        body = next(wire.Packer(table).pack(DelTable()))
        for family in (_INET, Family.IPV4.af):
            self._transact(family, [body])

    def _remove_dead(self) -> None:
        """Take away what processes that are dead have left."""

        def name(buffer: Buffer, start: int, end: int) -> str:
            begin, stop = find(buffer, start + nfnetlink.HEADER_SIZE, end)[1]
            return bytes(buffer[begin:stop]).rstrip(b"\0").decode(errors="replace")

        kind = wire.kind(wire.GET_TABLE)
        try:
            names = self._commands.dump(kind, nfnetlink.header(0), name, "list tables")
        except KernelError as error:
            raise Unsupported(f"this kernel has no nf_tables: {error}") from None
        for one in set(names):
            pid = one.removeprefix(TABLE_PREFIX)
            if one != pid and pid.isdecimal() and not Path("/proc", pid).exists():
                self._delete(one)


def read_step(buffer: Buffer, start: int, end: int) -> Traced:
    """Read the payload of one message."""
    places = find(buffer, start + nfnetlink.HEADER_SIZE, end)

    def raw(kind: int) -> bytes:
        begin, stop = places.get(kind, (0, 0))
        return bytes(buffer[begin:stop])

    def number(kind: int) -> int:
        return int.from_bytes(raw(kind), "big")

    verdict = ""
    if _VERDICT in places:
        inside = find(buffer, *places[_VERDICT])
        (code,) = struct.unpack_from("!i", buffer, inside[1][0])
        begin, stop = inside.get(2, (0, 0))
        chain = bytes(buffer[begin:stop]).rstrip(b"\0").decode(errors="replace")
        verdict = _verdict(code, chain)
    elif _POLICY in places:
        verdict = _verdict(number(_POLICY), "")
    return Traced(
        number=number(_ID),
        family=_FAMILIES.get(buffer[start], str(buffer[start])),
        table=raw(_TRACE_TABLE).rstrip(b"\0").decode(errors="replace"),
        chain=raw(_CHAIN).rstrip(b"\0").decode(errors="replace"),
        kind=_KINDS.get(number(_TYPE), "?"),
        handle=number(_HANDLE),
        verdict=verdict,
        iif=number(_IIF),
        oif=number(_OIF),
        network=raw(_NETWORK),
        transport=raw(_TRANSPORT),
    )


_WORDS = {-1: "continue", 2: "stolen", 3: "queue"}


def _verdict(code: int, chain: str) -> str:
    if code in _WORDS:
        return _WORDS[code]
    try:
        return str(Verdict(Code(code), chain))
    except ValueError:
        return f"verdict {code}"


def base_chains() -> dict[Key, Hooked]:
    """Return the base chains of IP hooks of this namespace, of all tables. KernelError."""
    sock = netlink.NetlinkSocket(netlink.NETLINK_NETFILTER)
    try:
        kind = wire.kind(wire.GET_CHAIN)
        found = sock.dump(kind, nfnetlink.header(0), read_base, "list base chains")
    finally:
        sock.close()
    return dict(one for one in found if one is not None)


def read_base(buffer: Buffer, start: int, end: int) -> tuple[Key, Hooked] | None:
    """Return a base chain of an IP hook, whatever its policy; None: it is another chain."""
    family = _FAMILIES.get(buffer[start], "")
    places = find(buffer, start + nfnetlink.HEADER_SIZE, end)
    if not family or wire.CHAIN_HOOK not in places:
        return None
    inside = find(buffer, *places[wire.CHAIN_HOOK])
    (number,) = struct.unpack_from("!I", buffer, inside[wire.HOOK_NUMBER][0])
    (priority,) = struct.unpack_from("!i", buffer, inside[wire.HOOK_PRIORITY][0])
    if number not in _HOOKS:
        return None  # such as the ingress of a device
    table, name = (
        _string(buffer[slice(*places[kind])]) for kind in (_CHAIN_TABLE, wire.CHAIN_NAME)
    )
    return (family, table, name), Hooked(Hook(number), priority)


_USERDATA = 7
_UDATA_COMMENT = 0
_MATCH_NAME, _MATCH_INFO = 1, 3


def comment(family: str, table: str, chain: str, handle: int) -> str:
    """Return the comment of a rule, also of one that iptables has written; "" without one."""
    af = {name: number for number, name in _FAMILIES.items()}[family]
    asked = nfnetlink.header(af) + text(1, table) + text(2, chain)
    asked += struct.pack("=HH", 12, _RULE_HANDLE) + struct.pack("!Q", handle)
    sock = netlink.NetlinkSocket(netlink.NETLINK_NETFILTER)
    try:
        return sock.ask(wire.kind(wire.GET_RULE), asked, read_comment, "read a rule")
    except NotFound:
        return ""
    finally:
        sock.close()


def read_comment(buffer: Buffer, start: int, end: int) -> str:
    """Return the comment in the payload of a rule's message: nft's own, or that of iptables."""
    places = find(buffer, start + nfnetlink.HEADER_SIZE, end)
    if _USERDATA in places:
        at, stop = places[_USERDATA]
        while at + 2 <= stop:
            kind, length = buffer[at], buffer[at + 1]
            if kind == _UDATA_COMMENT:
                return _string(buffer[at + 2 : at + 2 + length])
            at += 2 + length
    for _, begin, stop in walk(buffer, *places.get(wire.RULE_EXPRESSIONS, (0, 0))):
        outside = find(buffer, begin, stop)
        if _string(buffer[slice(*outside[1])]) != "match" or 2 not in outside:
            continue
        inside = find(buffer, *outside[2])
        if _string(buffer[slice(*inside[_MATCH_NAME])]) == "comment":
            return _string(buffer[slice(*inside[_MATCH_INFO])])
    return ""


def _string(data: Buffer) -> str:
    return bytes(data).split(b"\0", 1)[0].decode(errors="replace")

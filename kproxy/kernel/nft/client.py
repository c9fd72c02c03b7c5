"""One nftables table of the kernel, through nfnetlink."""

import errno
from collections.abc import Callable, Sequence
from typing import TypeVar

from kproxy.errors import KernelError, NotFound, Unsupported
from kproxy.kernel import bulk, netlink
from kproxy.kernel.attributes import Buffer
from kproxy.kernel.client import NetlinkClient
from kproxy.kernel.inet import Family
from kproxy.kernel.nft import listing, wire
from kproxy.kernel.nft.expressions import Rule
from kproxy.kernel.nft.types import (
    Chain,
    Data,
    Elements,
    Operation,
    SetSpec,
    Table,
    describe,
    wrong_length,
)

T = TypeVar("T")
_READ_ATTEMPTS = 10
_NO_NFTABLES = (errno.EINVAL, errno.EOPNOTSUPP, errno.EAFNOSUPPORT)


class Nft(NetlinkClient):
    """One table of the network namespace in which this is first used. Not for two threads.

    Nothing is opened before the first call. Methods raise Unsupported if the kernel has no
    nf_tables and KernelError if it refuses. Contract:
    :class:`~kproxy.kernel.nft.types.NftClient`.
    """

    def __init__(self, family: Family, table: str) -> None:
        super().__init__(netlink.NETLINK_NETFILTER, torn_dumps=True)
        self._family = family
        self._table = table
        self._packer = wire.Packer(table)

    def unsupported(self, operations: Sequence[tuple[str, Operation]]) -> str | None:
        """Try operations and change nothing; return None, or which features are missing."""
        try:
            refused = self._transact([operation for _, operation in operations], commit=False)
        except (KernelError, Unsupported) as error:
            return f"nftables cannot be used: {error}"
        if not refused:
            return None
        if -1 in refused:
            return f"nftables cannot be used: {_words(refused[-1])}"
        if 0 in refused:
            refused = {0: refused[0]}  # Without the first, the table, none of the others can be.
        missing = [
            f"{operations[at][0]} ({refused[at].text or _words(refused[at])})"
            for at in sorted(refused)
        ]
        return f"this kernel's nftables lacks: {', '.join(dict.fromkeys(missing))}"

    def run(self, transaction: Sequence[Operation]) -> None:
        """Do all operations in order, in one atomic transaction: all of them or none."""
        if not transaction:
            return
        for operation in transaction:
            if wrong_length(operation):
                raise KernelError(self._what(operation), errno.EINVAL, "a length is wrong")
        refused = self._transact(transaction, commit=True)
        if not refused:
            return
        first = min(refused)
        what = self._what(transaction[first]) if first >= 0 else f"change {self._name()}"
        raise netlink.kernel_error(what, refused[first])

    def read(self) -> Table | None:
        """Return the whole table as it is at one moment; None if there is none."""
        previous: object = self
        for _ in range(_READ_ATTEMPTS):
            before = self.generation()
            try:
                table = self._read()
            except NotFound:
                table = None  # Or it vanished on the way: then the generation tells.
            # The number is that of all tables together. Where others change theirs all the time,
            # two readings that are the same prove that this one is left alone.
            if self.generation() == before or table == previous:
                return table
            previous = table
        detail = f"kept changing during {_READ_ATTEMPTS} readings"
        raise KernelError(f"read {self._name()}", errno.EAGAIN, detail)

    def exists(self) -> bool:
        """Tell whether the table is there."""
        return self._flags() is not None

    def generation(self) -> int:
        """Return the number of the rule set; whatever changes anything raises it by one."""
        payload = wire.request(self._family)
        what = "ask for the number of the rule set"
        return self._ask(wire.GET_GENERATION, payload, listing.read_generation, what)

    def _flags(self) -> int | None:
        """Return the flags of the table; None if there is none."""
        payload = wire.request(self._family, self._table)
        what = f"look for {self._name()}"
        try:
            return self._ask(wire.GET_TABLE, payload, listing.read_table, what)
        except NotFound:
            return None
        except KernelError as error:
            if error.errno in _NO_NFTABLES:
                return None  # In a kernel without nf_tables, or without this family.
            raise

    def _read(self) -> Table | None:
        flags = self._flags()
        if flags is None:
            return None
        payload = wire.request(self._family, self._table)
        sets = self._dump(wire.GET_SET, payload, listing.read_set, "list sets")
        chains = self._dump(wire.GET_CHAIN, payload, listing.read_chain, "list chains")
        rules: dict[str, list[Rule]] = {}
        for row in self._dump(wire.GET_RULE, payload, listing.read_rule, "list rules"):
            if row.table == self._table:
                rules.setdefault(row.chain, []).append(row.rule)
        # Dormant, all would be in its place and nothing would happen to packets.
        unknown = [f"table flags 0x{flags:x}"] if flags else []
        specs: dict[str, SetSpec] = {}
        elements: dict[str, Elements] = {}
        for _, name, spec in [one for one in sets if one.table == self._table]:
            found = self._read_elements(name, spec) if spec is not None else None
            if spec is None or found is None:
                unknown.append(f"set {name}")
                continue
            specs[name] = spec
            if not spec.dynamic:
                elements[name] = found
        own = [one for one in chains if one.table == self._table]
        unknown += [f"chain {one.name}" for one in own if not one.known]
        return Table(
            sets=specs,
            elements=elements,
            chains={
                one.name: Chain(tuple(rules.get(one.name, ())), one.base)
                for one in own
                if one.known
            },
            unknown=tuple(unknown),
        )

    def _read_elements(self, name: str, spec: SetSpec) -> dict[bytes, Data] | None:
        """Return the elements of a set; None if they are of a kind that is never written here."""
        if spec.dynamic:
            return {}
        payload = wire.set_request(self._family, self._table, name)
        reader = listing.ElementReader(spec)
        found: dict[bytes, Data] = {}
        try:
            with bulk.collector_paused():
                what = f"list set {name}"
                for part in self._dump(wire.GET_ELEMENTS, payload, reader.read, what):
                    found.update(part)
        except (ValueError, KeyError):
            return None
        length = spec.key_length
        return found if set(map(len, found)) <= {length} else None

    def _transact(
        self, transaction: Sequence[Operation], *, commit: bool
    ) -> dict[int, netlink.Refusal]:
        """Return what was refused, by the operation's index; -1: the transaction as a whole."""
        bodies: list[wire.Body] = []
        owners = [-1]
        for index, operation in enumerate(transaction):
            for body in self._packer.pack(operation):
                bodies.append(body)
                owners.append(index)
        owners.append(-1)
        number = self._open().next_sequence
        messages = [wire.batch_begin(number & 0xFFFFFFFF)]
        for body in bodies:
            number += 1
            messages.append(body.pack(self._family, number & 0xFFFFFFFF))
        if commit:
            messages.append(wire.batch_end(number + 1 & 0xFFFFFFFF))
        refused = self._open().transact(messages)
        answer: dict[int, netlink.Refusal] = {}
        for at in sorted(refused):
            answer.setdefault(owners[at], refused[at])
        return answer

    def _dump(
        self, command: int, payload: bytes, parse: Callable[[Buffer, int, int], T], what: str
    ) -> list[T]:
        return self._open().dump(wire.kind(command), payload, parse, f"{what} of {self._name()}")

    def _ask(
        self, command: int, payload: bytes, parse: Callable[[Buffer, int, int], T], what: str
    ) -> T:
        return self._open().ask(wire.kind(command), payload, parse, what)

    def _name(self) -> str:
        return f"table {'ip' if self._family is Family.IPV4 else 'ip6'} {self._table}"

    def _what(self, operation: Operation) -> str:
        return f"{describe(operation)} of {self._name()}"


def _words(refusal: netlink.Refusal) -> str:
    return netlink.kernel_error("", refusal).message.removeprefix(": ")

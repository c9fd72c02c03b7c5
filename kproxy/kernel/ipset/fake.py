"""IP sets in memory that refuse what the kernel refuses, with the same errno."""

import errno
import ipaddress
from collections.abc import Callable, Container, Sequence
from typing import Any

from kproxy.errors import KernelError
from kproxy.kernel.inet import Family, IPAddress, IPNetwork
from kproxy.kernel.ipset.types import (
    NAME_LENGTH_MAX,
    AddEntry,
    CreateSet,
    DelEntry,
    DestroySet,
    Dump,
    Entry,
    FlushSet,
    Operation,
    SetEntry,
    SetSpec,
    SetType,
    SwapSets,
    describe,
)
from kproxy.kernel.netlink import Refusal, kernel_error


class FakeIpset:
    """Implements :class:`~kproxy.kernel.ipset.types.IpsetClient`.

    Faults to order: ``fail_write[n] = errno`` makes the n-th operation from now (0 is the next)
    fail; ``references[name]`` is by how many rules a set is used; ``unsupported`` is the answer of
    :meth:`supported`. ``written`` holds every operation that was tried.
    """

    def __init__(self) -> None:
        self.unsupported: str | None = None
        self.fail_write: dict[int, int] = {}
        self.references: dict[str, int] = {}
        self.written: list[Operation] = []
        self._sets: dict[str, tuple[SetSpec, set[Entry]]] = {}
        self._doers: dict[type, Callable[[Any], None]] = {
            CreateSet: self._create,
            DestroySet: self._destroy,
            FlushSet: self._flush,
            SwapSets: self._swap,
            AddEntry: self._add,
            DelEntry: self._del,
        }

    def supported(self) -> str | None:
        """Return what ``unsupported`` says."""
        return self.unsupported

    def run(self, transaction: Sequence[Operation]) -> list[KernelError | None]:
        """Do all operations in order; return for each None or why it failed."""
        results: list[KernelError | None] = []
        faults = self.fail_write
        count = len(transaction)
        self.fail_write = {at - count: code for at, code in faults.items() if at >= count}
        for index, operation in enumerate(transaction):
            self.written.append(operation)
            try:
                if index in faults:
                    raise _Refused(faults[index])
                self._doers[type(operation)](operation)
            except _Refused as refused:
                results.append(kernel_error(describe(operation), Refusal(refused.errno)))
            else:
                results.append(None)
        return results

    def dump(self, names: Container[str] | None = None) -> Dump:
        """Return every set by name; of these names, if given."""
        return {
            name: SetEntry(spec, frozenset(entries), self.references.get(name, 0))
            for name, (spec, entries) in self._sets.items()
            if names is None or name in names
        }

    def exists(self, name: str) -> bool:
        """Tell whether there is a set of this name."""
        return name in self._sets

    def close(self) -> None:
        """Do nothing: the sets outlive their clients, as the kernel's do."""

    def _set(self, name: str) -> tuple[SetSpec, set[Entry]]:
        _check_name(name)
        if name not in self._sets:
            raise _Refused(errno.ENOENT)
        return self._sets[name]

    def _create(self, op: CreateSet) -> None:
        _check_name(op.name)
        if op.name in self._sets:
            raise _Refused(errno.EEXIST)
        self._sets[op.name] = _as_kept(op.spec), set()

    def _destroy(self, op: DestroySet) -> None:
        self._set(op.name)
        if self.references.get(op.name):
            raise _Refused(errno.EBUSY)
        del self._sets[op.name]

    def _flush(self, op: FlushSet) -> None:
        self._set(op.name)[1].clear()

    def _swap(self, op: SwapSets) -> None:
        _check_name(op.other)
        one, other = self._set(op.name), self._set(op.other)
        if (one[0].type, one[0].family) != (other[0].type, other[0].family):
            raise _Refused(errno.EINVAL)
        self._sets[op.name], self._sets[op.other] = other, one

    def _add(self, op: AddEntry) -> None:
        spec, entries = self._set(op.name)
        entry = _checked(spec, op.entry)
        if entry in entries:
            raise _Refused(errno.EEXIST)
        if len(entries) >= spec.max_elements:
            raise _Refused(errno.ENOSPC)
        entries.add(entry)

    def _del(self, op: DelEntry) -> None:
        spec, entries = self._set(op.name)
        entry = _checked(spec, op.entry)
        if entry not in entries:
            raise _Refused(errno.ENOENT)
        entries.remove(entry)


class _Refused(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.errno = code


def _as_kept(spec: SetSpec) -> SetSpec:
    """Return what is told of a set: a bitmap has neither a family nor a limit."""
    return SetSpec(spec.type) if spec.type is SetType.BITMAP_PORT else spec


def _check_name(name: str) -> None:
    if len(name.encode()) > NAME_LENGTH_MAX:
        raise _Refused(errno.EINVAL)


def _checked(spec: SetSpec, entry: Entry) -> Entry:
    """Return the entry as it is kept. Refuse one whose parts are not those of the set's type."""
    parts = spec.type.parts
    if parts == ("port",):
        if entry != Entry(None, None, entry.port) or entry.port is None:
            raise _Refused(errno.EPROTO)
        return entry
    if entry.address is None:
        raise _Refused(errno.EPROTO)
    has_port = entry.port is not None and entry.protocol is not None
    if has_port != ("port" in parts) or (entry.second is not None) != (len(parts) == 3):
        raise _Refused(errno.EPROTO)
    address = _place(parts[0], spec.family, entry.address)
    second = None if entry.second is None else _place(parts[2], spec.family, entry.second)
    return Entry(address, entry.protocol, entry.port, second)


def _place(part: str, family: Family, value: IPAddress | IPNetwork) -> IPAddress | IPNetwork:
    if value.version != family:
        raise _Refused(errno.EPROTO)
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        if part != "net":
            # Stricter than the kernel, which adds all addresses of the network.
            raise _Refused(errno.EPROTO)
        if value.prefixlen == 0:
            raise _Refused(errno.EINVAL)
        return value
    return ipaddress.ip_network(value) if part == "net" else value

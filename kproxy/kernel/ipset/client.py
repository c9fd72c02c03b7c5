"""The kernel's IP sets, through nfnetlink."""

import errno
from collections.abc import Container, Sequence

from kproxy.errors import AlreadyExists, KernelError, NotFound, Unsupported
from kproxy.kernel import bulk, netlink
from kproxy.kernel.client import NetlinkClient
from kproxy.kernel.inet import Family
from kproxy.kernel.ipset import wire
from kproxy.kernel.ipset.types import (
    AddEntry,
    CreateSet,
    Dump,
    Entry,
    Operation,
    SetEntry,
    SetSpec,
    SetType,
    describe,
)
from kproxy.kernel.netlink import Refusal

_EXIST = 4103
_ELEMENT_INVALID = 4353  # And above: what the types of sets find wrong with an entry.
# What ipset means by its own error numbers (enum ipset_errno, and those of the hash types).
_PRIVATE = {
    4097: Refusal(errno.EPROTO, "malformed request"),
    4098: Refusal(errno.EOPNOTSUPP, "the kernel has no such set type"),
    4099: Refusal(errno.ENOSPC, "too many sets"),
    4100: Refusal(errno.EBUSY, "the set is in use"),
    4101: Refusal(errno.ENOENT, "there is no set of the second name"),  # said of a swap
    4102: Refusal(errno.EINVAL, "the sets are of different types"),
    4104: Refusal(errno.EINVAL, "invalid prefix length"),
    4106: Refusal(errno.EINVAL, "the set type has not this IP version"),
    4108: Refusal(errno.EBUSY, "the set is in use"),
    4109: Refusal(errno.EINVAL, "an IPv4 address was expected"),
    4110: Refusal(errno.EINVAL, "an IPv6 address was expected"),
    4352: Refusal(errno.ENOSPC, "the set is full"),
}


class Ipset(NetlinkClient):
    """IP sets of the network namespace in which it is first used. Not for two threads.

    Nothing is opened before the first call. Methods raise Unsupported if the kernel has no IP sets
    and KernelError if it refuses. Contract: :class:`~kproxy.kernel.ipset.types.IpsetClient`.
    """

    def __init__(self) -> None:
        super().__init__(netlink.NETLINK_NETFILTER)
        self._revisions: dict[tuple[SetType, Family], int] = {}
        self._packer = wire.Packer(self._revisions)

    def supported(self) -> str | None:
        """Return None, or in words why this kernel cannot do IP sets."""
        try:
            for family in Family:
                self._revision(SetSpec(SetType.HASH_IP_PORT_IP, family))
        except (KernelError, Unsupported) as error:
            return f"IP sets cannot be used: {error}"
        return None

    def run(self, transaction: Sequence[Operation]) -> list[KernelError | None]:
        """Do all operations in order; return for each None or why it failed."""
        results: list[KernelError | None] = [None] * len(transaction)
        possible: list[int] = []
        for index, operation in enumerate(transaction):
            if isinstance(operation, CreateSet):
                try:
                    self._revision(operation.spec)
                except KernelError as error:
                    results[index] = error
                    continue
            possible.append(index)
        if possible:
            operations = [transaction[index] for index in possible]
            refused = self._open().execute(operations, self._packer.pack)
            for at, refusal in refused.items():
                results[possible[at]] = _error(operations[at], refusal)
        return results

    def dump(self, names: Container[str] | None = None) -> Dump:
        """Return every set whose type is a SetType, by name; of these names, if given."""
        kind = wire.message_type(wire.LIST)
        read = wire.ListingReader(names).read
        found: dict[str, tuple[SetSpec, int, list[Entry]]] = {}
        with bulk.collector_paused():
            for part in self._open().dump(kind, wire.request(), read, "list IP sets"):
                if part is None:
                    continue
                if part.spec is not None:
                    found[part.name] = part.spec, part.references, []
                found[part.name][2].extend(part.entries)
        return {
            name: SetEntry(spec, frozenset(entries), references)
            for name, (spec, references, entries) in found.items()
        }

    def exists(self, name: str) -> bool:
        """Tell whether there is a set of this name, of whatever type."""
        kind = wire.message_type(wire.HEADER)
        payload = wire.name_request(name)
        try:
            self._open().ask(kind, payload, lambda *_: None, f"look for IP set {name}")
        except NotFound:
            return False
        return True

    def _revision(self, spec: SetSpec) -> int:
        """Return the newest revision of a type; the kernel loads its module if it can."""
        key = spec.type, spec.family
        if key not in self._revisions:
            what = f"look for set type {spec.type} (IPv{spec.family.value})"
            kind = wire.message_type(wire.TYPE)
            try:
                self._revisions[key] = self._open().ask(
                    kind, wire.type_request(spec), wire.read_revision, what
                )
            except KernelError as error:
                raise _translated(what, Refusal(error.errno)) from error
        return self._revisions[key]


def _error(operation: Operation, refusal: Refusal) -> KernelError:
    what = describe(operation)
    if refusal.errno == _EXIST:
        # One code for both: an added entry is there, a deleted one is not.
        if isinstance(operation, AddEntry):
            return AlreadyExists(what, errno.EEXIST, "the entry is in the set already")
        return NotFound(what, errno.ENOENT, "the entry is not in the set")
    return _translated(what, refusal)


def _translated(what: str, refusal: Refusal) -> KernelError:
    if refusal.errno >= _ELEMENT_INVALID:
        refusal = Refusal(errno.EINVAL, f"the set type refuses the entry (code {refusal.errno})")
    return netlink.kernel_error(what, _PRIVATE.get(refusal.errno, refusal))

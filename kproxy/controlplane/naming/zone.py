"""All names of a cluster, by who owns their records; what is asked for is found at once. Pure."""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

from .records import Record, Type


@dataclass(frozen=True, slots=True)
class Found:
    """What there is at a name."""

    exists: bool
    """Whether the name is there, or one below it: NODATA instead of NXDOMAIN."""
    records: Mapping[Type, tuple[str, ...]] = field(default_factory=dict)
    """The data of its records by type, each once, sorted."""


NOTHING = Found(False)
_EMPTY = Found(True)


class Zone:
    """Records, each with an owner; for one writer and any number of readers in other threads.

    Of records that two owners have (an endpoint of two Services is one PTR for each) each counts.
    """

    def __init__(self) -> None:
        self._owned: dict[Hashable, frozenset[Record]] = {}
        self._at: dict[str, Counter[Record]] = {}
        self._below: Counter[str] = Counter()
        self._found: dict[str, Found] = {}
        self.changes = 0
        """So often it has changed."""

    def replace(self, owner: Hashable, records: Iterable[Record]) -> bool:
        """Replace all records of an owner; return whether anything has changed."""
        new = frozenset(records)
        old = self._owned.get(owner, frozenset())
        if new == old:
            return False
        for record in new - old:
            self._add(record)
        for record in old - new:
            self._remove(record)
        if new:
            self._owned[owner] = new
        else:
            del self._owned[owner]
        for name in {record.name for record in new ^ old}:
            self._refresh(name)
        self.changes += 1
        return True

    def lookup(self, name: str) -> Found:
        """Return what there is at a name in lower case, without its last dot."""
        found = self._found.get(name)
        if found is not None:
            return found
        return _EMPTY if self._below.get(name) else NOTHING

    def owners(self) -> set[Hashable]:
        """Return all who have records."""
        return set(self._owned)

    def _add(self, record: Record) -> None:
        at = self._at.setdefault(record.name, Counter())
        if not at:
            self._below.update(_ancestors(record.name))
        at[record] += 1

    def _remove(self, record: Record) -> None:
        at = self._at[record.name]
        at[record] -= 1
        if not at[record]:
            del at[record]
        if not at:
            del self._at[record.name]
            for name in _ancestors(record.name):
                self._below[name] -= 1
                if not self._below[name]:
                    del self._below[name]

    def _refresh(self, name: str) -> None:
        """Make a name's answers anew, so that a reader sees the old ones or the new ones."""
        by_type: dict[Type, list[str]] = {}
        for record in sorted(self._at.get(name, ())):
            by_type.setdefault(record.type, []).append(record.data)
        if by_type:
            self._found[name] = Found(True, {kind: tuple(data) for kind, data in by_type.items()})
        else:
            self._found.pop(name, None)


def _ancestors(name: str) -> list[str]:
    labels = name.split(".")
    return [".".join(labels[index:]) for index in range(1, len(labels))]

"""One nftables table as a value, and the operations on it. Words as in ``nft(8)``. Pure.

Keys and data of elements are bytes, as the kernel has them: each field of a concatenation padded
with zeros to words of 4 bytes. Tables with 100,000 elements have to be compared in no time.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from kproxy.kernel.nft.expressions import WORD, Rule, Verdict


class Field(enum.Enum):
    """A part of a key or of data: the number that ``nft`` has for it, and its length in bytes."""

    IPV4 = (7, 4)
    IPV6 = (8, 16)
    PROTOCOL = (12, 1)
    PORT = (13, 2)
    NUMBER = (19, 4)
    """In the machine's byte order."""

    @property
    def number(self) -> int:
        """Return the number of the type in ``nft``'s listings; the kernel only keeps it."""
        return self.value[0]

    @property
    def length(self) -> int:
        """Return the length in bytes, without padding."""
        return self.value[1]

    @property
    def padded(self) -> int:
        """Return the length in bytes, in a concatenation."""
        return -(-self.length // WORD) * WORD


Fields = tuple[Field, ...]


def padded(fields: Fields) -> int:
    """Return the length of a concatenation in bytes."""
    return sum(one.padded for one in fields)


@dataclass(frozen=True, slots=True)
class SetSpec:
    """How a set, map or verdict map is made. It cannot be changed later.

    ``verdicts``: its data are verdicts. ``interval``: an element is all keys from one to another,
    field by field; its key is both, one after the other. ``dynamic``: rules add elements, which
    have time-outs; they are neither written nor read by us.
    """

    key: Fields
    data: Fields = ()
    verdicts: bool = False
    interval: bool = False
    dynamic: bool = False
    max_elements: int = 0
    """0: as many as there is memory for."""

    @property
    def key_length(self) -> int:
        """Return the length of a key of an element in bytes."""
        return padded(self.key) * (2 if self.interval else 1)

    @property
    def data_length(self) -> int:
        """Return the length of an element's data in bytes."""
        return padded(self.data)


Data = bytes | Verdict | None
"""What an element's key stands for; None in a set."""

Elements = Mapping[bytes, Data]


class Hook(enum.IntEnum):
    """Where in the way of a packet a base chain stands."""

    PREROUTING = 0
    INPUT = 1
    FORWARD = 2
    OUTPUT = 3
    POSTROUTING = 4


class BaseChain(NamedTuple):
    """How a base chain is made: its type (``filter``, ``nat``), hook and priority."""

    type: str
    hook: Hook
    priority: int


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain and its rules. ``base`` is None if packets get here only from other chains."""

    rules: tuple[Rule, ...]
    base: BaseChain | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A whole table. ``unknown`` names what is in it that this library cannot have made."""

    sets: Mapping[str, SetSpec] = field(default_factory=dict)
    elements: Mapping[str, Elements] = field(default_factory=dict)
    """By set; without those of dynamic sets."""
    chains: Mapping[str, Chain] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AddTable:
    """Make the table; fine if it is there."""


@dataclass(frozen=True, slots=True)
class DelTable:
    """Remove the table with everything in it. NotFound."""


@dataclass(frozen=True, slots=True)
class AddSet:
    """Make an empty set. AlreadyExists."""

    name: str
    spec: SetSpec


@dataclass(frozen=True, slots=True)
class DelSet:
    """Remove a set with its elements. NotFound; EBUSY while a rule names it."""

    name: str


@dataclass(frozen=True, slots=True)
class AddChain:
    """Make a chain without rules. AlreadyExists."""

    name: str
    base: BaseChain | None = None


@dataclass(frozen=True, slots=True)
class DelChain:
    """Remove a chain without rules. NotFound; EBUSY while a rule or an element leads to it."""

    name: str


@dataclass(frozen=True, slots=True)
class AddRule:
    """Put a rule at the end of a chain. NotFound: the chain, or what the rule names."""

    chain: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class FlushChain:
    """Remove all rules of a chain. NotFound."""

    chain: str


@dataclass(frozen=True, slots=True)
class AddElements:
    """Put elements into a set.

    One that is there already is fine if its data are the same, else AlreadyExists.
    NotFound: the set, or the chain of a verdict. EINVAL: a length is wrong.
    """

    set: str
    spec: SetSpec
    elements: Elements


@dataclass(frozen=True, slots=True)
class DelElements:
    """Take elements out of a set. NotFound."""

    set: str
    spec: SetSpec
    keys: Sequence[bytes]


Operation = (
    AddTable
    | DelTable
    | AddSet
    | DelSet
    | AddChain
    | DelChain
    | AddRule
    | FlushChain
    | AddElements
    | DelElements
)


def describe(operation: Operation) -> str:
    """Return what an operation does, for messages."""
    match operation:
        case AddTable():
            return "add the table"
        case DelTable():
            return "delete the table"
        case AddSet(name):
            return f"add set {name}"
        case DelSet(name):
            return f"delete set {name}"
        case AddChain(name):
            return f"add chain {name}"
        case DelChain(name):
            return f"delete chain {name}"
        case AddRule(chain):
            return f"add a rule to chain {chain}"
        case FlushChain(chain):
            return f"delete the rules of chain {chain}"
        case AddElements(name, _, elements):
            return f"add {len(elements)} elements to set {name}"
        case DelElements(name, _, keys):
            return f"delete {len(keys)} elements of set {name}"


class NftClient(Protocol):
    """What :class:`~kproxy.kernel.nft.client.Nft` and its fake have in common: one table."""

    def unsupported(self, operations: Sequence[tuple[str, Operation]]) -> str | None:
        """Try operations, each with the name of the feature that it needs, and change nothing.

        Return None, or in words which features this kernel lacks.
        """

    def run(self, transaction: Sequence[Operation]) -> None:
        """Do all operations in order, in one atomic transaction: all of them or none.

        Raises KernelError for the first one that is refused.
        """

    def read(self) -> Table | None:
        """Return the whole table as it is at one moment; None if there is none."""

    def exists(self) -> bool:
        """Tell whether the table is there."""

    def generation(self) -> int:
        """Return the number of the rule set; whatever changes anything raises it by one."""

    def close(self) -> None:
        """Give the socket back."""


def wrong_length(operation: Operation) -> bool:
    """Tell whether an operation holds an element whose key or data have not the set's length."""
    match operation:
        case AddElements(_, spec, elements):
            right_keys = set(map(len, elements)) <= {spec.key_length}
            return not right_keys or not _right_data(spec, elements)
        case DelElements(_, spec, keys):
            return not set(map(len, keys)) <= {spec.key_length}
    return False


def _right_data(spec: SetSpec, elements: Elements) -> bool:
    kinds = {Verdict} if spec.verdicts else {bytes} if spec.data else {type(None)}
    if not set(map(type, elements.values())) <= kinds:
        return False
    lengths = {len(one) for one in elements.values() if isinstance(one, bytes)}
    return lengths <= {spec.data_length}

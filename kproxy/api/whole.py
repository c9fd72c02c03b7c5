"""Objects with all of their fields: what controllers read, who must hand on what they do not know.

The types of this package hold what a node proxy or a kubelet acts on and drop the rest. A
:class:`Whole` is a dictionary as the API server sent it, beside typed metadata.
"""

from functools import cache
from typing import Any

import msgspec

from . import kinds
from .meta import ObjectMeta


class Whole:
    """An object of some kind. Equal to another if all their fields are. Not to be changed."""

    __slots__ = ("data", "metadata")

    def __init__(self, data: Any) -> None:
        if not isinstance(data, dict):
            raise msgspec.ValidationError("Expected `object`, got something else")
        self.data: dict[str, Any] = data
        self.metadata = msgspec.convert(data.get("metadata") or {}, ObjectMeta)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Whole) and self.data == other.data

    def __hash__(self) -> int:
        return hash((self.metadata.uid, self.metadata.resource_version))


@cache
def whole(kind: kinds.Kind) -> type[Any]:
    """Return the type of whole objects of a kind, for lists, watches and informers."""
    made = type(kind.name, (Whole,), {"__slots__": (), "__doc__": Whole.__doc__})
    kinds.stands_for(made, kind)
    return made

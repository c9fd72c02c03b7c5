"""What an interface of a host is made of when it is no virtual cable: a network card. Pure."""

import dataclasses
import enum
import re
from collections.abc import Iterable, Mapping
from typing import Self

from netns.errors import TopologyError

_NAME = re.compile(r"[^\s/:]{1,15}")
_MODES = ("bridge", "private", "vepa", "passthru")


class Attachment(enum.StrEnum):
    """How much of a card a host gets."""

    WHOLE = "nic"
    """The card itself, or a virtual function that the user names."""
    MACVLAN = "macvlan"
    """An interface on the card, which stays where it is."""
    VF = "vf"
    """A virtual function (SR-IOV) of the card that nobody uses."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Uplink:
    """A card ``nic`` of this machine, or a part of it. ``mode`` is that of a macvlan."""

    nic: str
    kind: Attachment = Attachment.WHOLE
    mode: str = "bridge"

    @classmethod
    def parse(cls, value: object, where: str, field: str) -> Self:
        """Return what ``eth1`` or ``{nic: eth1, as: macvlan, mode: private}`` says.

        Raises :class:`TopologyError` with ``where`` and ``field``.
        """
        words = {"nic": value} if isinstance(value, str) else value
        if not isinstance(words, Mapping) or not isinstance(words.get("nic"), str):
            remedy = "write eth1, or {nic: eth1, as: macvlan}"
            raise TopologyError(where, field, f"{value!r} names no card", remedy=remedy)
        for word in words:
            if word not in ("nic", "as", "mode"):
                remedy = "there are nic, as and mode"
                raise TopologyError(where, f"{field}.{word}", "no such field", remedy=remedy)
        kind = words.get("as", str(Attachment.WHOLE))
        if kind not in list(Attachment):
            remedy = f"use {', '.join(Attachment)}"
            raise TopologyError(where, f"{field}.as", f"{kind!r}", remedy=remedy)
        made = cls(nic=words["nic"], kind=Attachment(kind), mode=words.get("mode", "bridge"))
        made.check(where, field)
        if "mode" in words and made.kind is not Attachment.MACVLAN:
            remedy = "only as: macvlan has one"
            raise TopologyError(where, f"{field}.mode", f"{made.mode!r}", remedy=remedy)
        return made

    def described(self) -> dict[str, str]:
        """Return what :meth:`parse` takes."""
        mode = {"mode": self.mode} if self.kind is Attachment.MACVLAN else {}
        return {"nic": self.nic, "as": str(self.kind), **mode}

    def check(self, where: str, field: str = "uplink") -> None:
        """Raise :class:`TopologyError` for what can be no card."""
        if not _NAME.fullmatch(self.nic) or self.nic in {".", "..", "lo"}:
            remedy = "`ip link` tells the names of cards"
            raise TopologyError(where, field, f"{self.nic!r} is no card", remedy=remedy)
        if self.mode not in _MODES:
            remedy = f"use {', '.join(_MODES)}"
            raise TopologyError(where, f"{field}.mode", f"{self.mode!r}", remedy=remedy)

    def check_beside(self, others: "Iterable[Uplink]", where: str) -> None:
        """Raise :class:`TopologyError` if it can be no card, or one of the others has it, too."""
        self.check(where)
        for other in others:
            if other.nic == self.nic and (self.takes_all or other.takes_all):
                remedy = "use two cards, or as: macvlan for both"
                problem = f"{self.nic} is taken by another interface, too"
                raise TopologyError(where, "uplink", problem, remedy=remedy)

    @property
    def takes_all(self) -> bool:
        """Whether this machine cannot use the card any more meanwhile."""
        return self.kind is Attachment.WHOLE or self.mode == "passthru"

    def __str__(self) -> str:
        return self.nic if self.kind is Attachment.WHOLE else f"{self.kind} on {self.nic}"

"""What a measurement between hosts is to do, and what came of it: values. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from kproxy.kernel.inet import IPAddress
from kproxy.traffic.remote.clockoffset import SAME, Clocks

if TYPE_CHECKING:
    from typing import TypeAlias

    from numpy.typing import NDArray

    from kproxy.traffic.records import ReceiverState

    Array: TypeAlias = NDArray[Any]

DEFAULT_TMAX_S = 2.0
TCP_TMAX_S = 0.9
"""For connections: the kernel sends a lost SYN again after a second, and then it would count as
answered, only late."""


class Probe(StrEnum):
    """What is sent where nobody receives: something that any server answers."""

    ECHO = "echo"
    DNS = "dns"
    TCP = "tcp"
    ICMP = "icmp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What to send. ``rate_pps`` is the total of all flows; ``seconds`` None: until it is ended.

    ``payload_bytes`` counts the probe header. ``tmax_s``: an answer later than that is a loss
    (RFC 7680).
    """

    destination: IPAddress
    port: int
    rate_pps: float = 1000.0
    flows: int = 16
    seconds: float | None = 10.0
    payload_bytes: int = 32
    first_port: int = 40000
    tmax_s: float = DEFAULT_TMAX_S

    @property
    def packets(self) -> int | None:
        """How many packets that are; None: without end."""
        return None if self.seconds is None else round(self.seconds * self.rate_pps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A moment that somebody marked by hand, by our clock."""

    name: str
    ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a run left: both ends' records (:mod:`kproxy.traffic.records`), and its story.

    ``watched_until_ns``: what was sent before that less Tmax is lost if it did not arrive.
    ``cut``: why the run ended early; empty: it did not. ``gone``: why there are no records of the
    receiver. ``outcomes`` counts what came instead of answers (``refused``, …).
    """

    stream: Stream
    trial: int
    sent: "Array"
    received: "Array"
    state: "ReceiverState"
    report: dict[str, Any]
    started_ns: int
    watched_until_ns: int
    clocks: Clocks = field(default_factory=lambda: Clocks(before=SAME))
    marks: tuple[Mark, ...] = ()
    receiver: dict[str, Any] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    cut: str = ""
    gone: str = ""


class Attention(Protocol):
    """What a run watches beside its packets: the user."""

    @property
    def fds(self) -> Sequence[int]:
        """What becomes readable when the user wants something."""

    def read(self) -> tuple[Sequence[Mark], bool]:
        """Return the marks that were made, and whether the run is to end."""

    def show(self, sent: int, received: int, seconds: float) -> None:
        """Show how far the run is."""

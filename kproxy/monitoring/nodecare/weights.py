"""Real servers of IPVS that are wanted and have weight 0: found, and given their weight.

A proxy that dies or hangs between draining an endpoint and its return leaves such a weight behind,
and so does an administrator's ``ipvsadm -e``. One that is not wanted keeps its 0: it drains.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Protocol

from kproxy.backends import base
from kproxy.desired.model import Family, State
from kproxy.errors import KernelError, NotFound, Unsupported

from .seen import HEAL, Ask, Care, Wanted

if TYPE_CHECKING:
    from kproxy.backends.ipvs.weights import Resting, Weights
    from kproxy.kernel.ipvs.types import DestinationKey, ServiceKey

IPVS = "ipvs"


class Tables(Protocol):
    """The part of the ipvs backend that is used here."""

    def weights(self, want: State) -> "Weights":
        """Return the real servers with weight 0. Raises KernelError."""

    def heal(self, stuck: "Sequence[Resting]") -> list[KernelError | None]:
        """Give these their weight."""

    def close(self) -> None:
        """Give sockets back."""


Open = Callable[[Family, base.Options], Tables]
"""Opens the IPVS of a family. Raises Unsupported."""


def open_tables(family: Family, options: base.Options) -> Tables:
    """Return the IPVS of this network namespace. Raises Unsupported."""
    from kproxy.backends.ipvs import backend

    tables = backend.load(family, options)
    if (why := tables.supported()) is not None:
        tables.close()
        raise Unsupported(f"mode ipvs, {family}: {why}")
    return tables


def resting(wanted: Wanted, opened: Open = open_tables) -> "tuple[list[Resting], list[Resting]]":
    """Return the real servers with weight 0: stuck ones, and those that drain.

    Empty in other modes. Raises KernelError, Unsupported.
    """
    stuck, draining = [], []
    for state in _states(wanted):
        with _tables(state, wanted, opened) as tables:
            found = tables.weights(state)
        stuck += found.stuck
        draining += found.draining
    return stuck, draining


def heal(ask: Ask, *, dry_run: bool = False, opened: Open = open_tables) -> Care:
    """Give stuck real servers their weight.

    What is healed was stuck at the first look *and* by what the API server says after it: an
    endpoint that has left in between goes on draining. Raises KproxyError.
    """
    wanted = ask()
    if wanted.mode != IPVS:
        why = f"mode {wanted.mode} has no weights"
        return Care(care=HEAL, node=wanted.node, dry_run=dry_run, refused=why)
    first, _ = resting(wanted, opened)
    texts = tuple(map(str, first))
    if dry_run or not first:
        return Care(care=HEAL, node=wanted.node, dry_run=dry_run, found=texts, done=texts)
    done, failed = _heal(ask(), {(one.service, one.server) for one in first}, opened)
    left, _ = resting(ask(), opened)
    return Care(
        care=HEAL, node=wanted.node, found=texts, done=done, left=(*failed, *map(str, left))
    )


def _heal(
    now: Wanted, known: "set[tuple[ServiceKey, DestinationKey]]", opened: Open
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Heal what is stuck and known; return what was done, and what failed."""
    done, failed = [], []
    for state in _states(now):
        with _tables(state, now, opened) as tables:
            stuck = tables.weights(state).stuck
            still = [one for one in stuck if (one.service, one.server) in known]
            results = tables.heal(still) if still else []
        for one, error in zip(still, results, strict=True):
            if error is None:
                done.append(str(one))
            elif not isinstance(error, NotFound):
                failed.append(f"{one}: {error}")
    return tuple(done), tuple(failed)


def _states(wanted: Wanted) -> list[State]:
    if wanted.mode != IPVS:
        return []
    return [state for state in wanted.states if state.services]


@contextmanager
def _tables(state: State, wanted: Wanted, opened: Open) -> Iterator[Tables]:
    with closing(opened(state.family, wanted.options)) as tables:
        yield tables

"""A long trial in parts: some packets of the plan, and what arrived of them.

The account of a trial needs only one part at a time, so that twelve million packets need no more
memory than half a million.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from kproxy.traffic import receivedfile, records
from kproxy.traffic.receivedfile import Array

PART = 1 << 18
#: Packets of a part are looked for among what arrived up to so long after its last one was sent.
LOOK_AHEAD_NS = 10_000_000_000

Path = str | os.PathLike[str]


def parts(
    sent: Path, received: Sequence[Path], trial: int, *, size: int = PART
) -> Iterator[tuple[Array, dict[str, Array]]]:
    """Yield (sent packets, what arrived of them by pod), in the order of the plan.

    What arrived and belongs to no packet of the plan comes with the last part, and so does what
    arrived more than LOOK_AHEAD_NS after its part.
    """
    with contextlib.ExitStack() as stack:
        arrivals = [
            _Arrivals(stack.enter_context(receivedfile.ReceivedFile(path)), trial)
            for path in received
        ]
        part, start = records.sent_array(sent, number=size), 0
        while True:
            start += len(part)
            following = records.sent_array(sent, start=start, number=size)
            last = not len(following)
            yield part, _by_pod(arrivals, part, last=last)
            if last:
                return
            part = following


def _by_pod(arrivals: Sequence["_Arrivals"], part: Array, *, last: bool) -> dict[str, Array]:
    found: dict[str, list[Array]] = {}
    for one in arrivals:
        found.setdefault(one.pod, []).append(one.rest() if last else one.of(part))
    return {pod: np.concatenate(several) for pod, several in found.items()}


class _Arrivals:
    """What one receiver recorded of a trial, as far as it has not been asked for."""

    def __init__(self, file: receivedfile.ReceivedFile, trial: int) -> None:
        self.pod = file.state.pod
        self._more = file.parts(trial)
        self._held = np.empty(0, records.RECEIVED_FIELDS)
        self._over = False

    def of(self, part: Array) -> Array:
        """Return what arrived of the packets of a part."""
        until = int(part["ns"].max(initial=0)) + LOOK_AHEAD_NS
        while not self._over and (
            not len(self._held) or int(self._held["received_ns"][-1]) <= until
        ):
            self._take()
        mine = _belongs(self._held, part)
        found, self._held = self._held[mine], self._held[~mine]
        return found

    def rest(self) -> Array:
        """Return everything that has not been returned."""
        while not self._over:
            self._take()
        return self._held

    def _take(self) -> None:
        more = next(self._more, None)
        if more is None:
            self._over = True
        else:
            self._held = np.concatenate((self._held, more))


def _belongs(arrived: Array, part: Array) -> NDArray[np.bool_]:
    """Tell which arrivals are of packets of a part: within its sequence numbers of that flow."""
    flows, first = np.unique(part["flow"], return_index=True)
    _, backwards = np.unique(part["flow"][::-1], return_index=True)
    low = part["seq"][first]
    high = part["seq"][::-1][backwards]
    place = np.minimum(np.searchsorted(flows, arrived["flow"]), len(flows) - 1)
    known = flows[place] == arrived["flow"]
    inside = (arrived["seq"] >= low[place]) & (arrived["seq"] <= high[place])
    return np.asarray(known & inside, np.bool_)

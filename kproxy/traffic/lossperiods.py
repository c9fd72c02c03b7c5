"""How losses are spread over a flow's packets: the loss patterns of RFC 3357. Pure."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kproxy.traffic import convergence
from kproxy.traffic.figures import LossPattern

CONSTRAINT = 99
"""A loss is noticeable if the one before it was no more than so many packets ago: with losses
that lie farther apart less than 1 % is lost, which speech codecs hide."""


def pattern(periods: NDArray[Any]) -> LossPattern:
    """Return the pattern of all flows together; ``periods`` as in :class:`accounting.Account`."""
    same = periods["flow"][1:] == periods["flow"][:-1]
    distances = (periods["first_seq"][1:] - periods["last_seq"][:-1])[same]
    lost = int(periods["lost"].sum())
    # Within a period each loss but the first follows the one before at a distance of one.
    near = lost - len(periods) + int(np.count_nonzero(distances <= CONSTRAINT))
    return LossPattern(
        periods=len(periods),
        lengths=convergence.statistic(periods["lost"]),
        distances=convergence.statistic(distances),
        noticeable_rate=round(near / lost, 6) if lost else None,
        constraint=CONSTRAINT,
    )

"""One-way delay and its variation, from counts of delays in whole microseconds. Pure.

Only where the clock runs while packets travel: under a virtual clock the data path takes no time,
and there is nothing to be said.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kproxy.traffic.figures import Delay

RESOLUTION_NS = 1000


def delay(delays_us: NDArray[Any], clock_error_ns: int) -> Delay | None:
    """Return the percentiles (nearest rank) of RFC 8219; None if nothing arrived.

    ``clock_error_ns`` is the greatest error of the offset between the clocks of sender and
    receiver; a value is exact to that and to a microsecond.
    """
    upto = np.cumsum(delays_us, dtype="i8")
    total = int(upto[-1]) if len(upto) else 0
    if not total:
        return None

    def percentile(thousandths: int) -> float:
        rank = max(1, -(-thousandths * total // 1000))
        return int(np.searchsorted(upto, rank)) / 1000

    least, p999 = percentile(0), percentile(999)
    return Delay(
        min_ms=least,
        p1_ms=percentile(10),
        median_ms=percentile(500),
        p99_ms=percentile(990),
        p999_ms=p999,
        max_ms=percentile(1000),
        pdv_ms=round(p999 - least, 3),
        accuracy_ms=round((clock_error_ns + RESOLUTION_NS) / 1e6, 3),
    )

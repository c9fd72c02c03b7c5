"""How late packets were sent, in little memory: there may be twelve million. Pure."""

import math
from collections import Counter

_DIGITS = 7
#: Of a batch, whose packets were due one after the other, at most so many are looked at.
_LOOKS = 32


class Lateness:
    """Counts of packets by lateness in nanoseconds, exact to one part in 64; the maximum is exact.

    Packets sent before their time count as punctual.
    """

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.most = 0

    def add(self, first: int, last: int, number: int) -> None:
        """Count a batch of ``number`` packets, the first that late, the last that late.

        Those between are taken as evenly spread.
        """
        self.most = max(self.most, first)
        looks = min(number, _LOOKS)
        step = (first - last) / max(1, number - 1)
        for look in range(looks):
            begin, end = look * number // looks, (look + 1) * number // looks
            late = round(first - step * (begin + end - 1) / 2)
            self._counts[_rounded(late)] += end - begin

    def beyond(self, limit: int) -> int:
        """Return how many were later than that."""
        return sum(number for late, number in self._counts.items() if late > limit)

    def percentile(self, share: float) -> int:
        """Return a percentile (nearest rank), 0 without packets."""
        left = math.ceil(share * self._counts.total())
        for late, number in sorted(self._counts.items()):
            left -= number
            if left <= 0:
                return min(late, self.most)
        return 0


def _rounded(value: int) -> int:
    """Return a number rounded up to its first binary digits; 0 for negative ones."""
    if value <= 0:
        return 0
    shift = max(0, value.bit_length() - _DIGITS)
    return -(-value >> shift) << shift

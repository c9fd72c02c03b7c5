"""With how many examples a property is tried: all in ``scripts/test``, a quarter elsewhere.

Plain ``pytest`` is run after every small step, so it has to be quick; nothing is said to be done
before ``scripts/test`` has passed. Examples are drawn alike every time, so the few are among the
many.
"""

import os
from typing import Any

from hypothesis import settings

THOROUGH = "KPROXY_THOROUGH"
"""Set by tests/tiers.py: all examples are wanted."""
MOST = 100
FEWER, LEAST = 4, 5


def number(most: int) -> int:
    """Return how many of ``most`` examples are tried in this run."""
    return most if os.environ.get(THOROUGH) else min(most, max(most // FEWER, LEAST))


def examples(most: int, **more: Any) -> settings:
    """Return settings for a property that is worth ``most`` examples."""
    return settings(max_examples=number(most), **more)

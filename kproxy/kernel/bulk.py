"""Making very many objects at once.

Python's cycle collector runs after every few hundred new objects and looks at ever more of those
made before. While a large table is read all of them are alive, so it finds nothing and takes half
of the time.
"""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the cycle collector from running, unless it does not anyway.

    Nothing leaks: reference counting goes on, and what is left to collect is collected later.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

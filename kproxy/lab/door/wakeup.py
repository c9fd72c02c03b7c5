"""Signals as bytes to read, so that whoever waits in poll(2) hears of them, too."""

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator


@contextlib.contextmanager
def readable(signals: Iterable[signal.Signals]) -> Iterator[int]:
    """Turn signals into bytes (their numbers) to read from the yielded descriptor."""
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    before = {number: signal.signal(number, lambda *_: None) for number in signals}
    old = signal.set_wakeup_fd(writer)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(old)
        for number, handler in before.items():
            signal.signal(number, handler)
        for end in (reader, writer):
            os.close(end)

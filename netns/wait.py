"""Waiting with a deadline and a reason.

Which one to use:

- something with a file descriptor (a socket, a pipe, a pidfd): :func:`wait_readable`; it sleeps in
  the kernel until the event, costs nothing and is exact;
- the end of a process: :meth:`netns.process.Process.wait` (a pidfd underneath);
- a state of the kernel or of another program that reports no event: :func:`wait_until`. It sleeps
  between two looks, so it works in virtual time, where a spinning program would stop the clock.

There is no ``sleep until it is surely done`` here: that is wrong on a slow machine and slow on a
fast one.
"""

import select
import time
from collections.abc import Callable
from typing import TypeVar

from netns.errors import WaitTimeout

T = TypeVar("T")


def wait_until(
    predicate: Callable[[], T], timeout: float, why: str, *, interval: float = 0.005
) -> T:
    """The first true answer of ``predicate``, asked every ``interval`` seconds.

    It is asked at least once, and once more after the deadline, so that a long sleep of this
    process is not taken for a failure. Raises :class:`WaitTimeout` with ``why`` after ``timeout``
    seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() >= deadline
        answer = predicate()
        if answer:
            return answer
        if late:
            raise WaitTimeout(f"waited {timeout:g} s in vain: {why}")
        time.sleep(interval)


def readable(fd: int, timeout: float) -> bool:
    """Whether ``fd`` has something to read, has ended or failed within ``timeout`` seconds."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0.0, timeout) * 1000))


def wait_readable(fd: int, timeout: float, why: str) -> None:
    """As :func:`readable`, but raises :class:`WaitTimeout` with ``why``."""
    if not readable(fd, timeout):
        raise WaitTimeout(f"waited {timeout:g} s in vain: {why}")

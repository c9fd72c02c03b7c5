"""Calls of actions, each given up after a time: one that hangs must not hang the receiver."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Attempt(Generic[T]):
    """A call in a thread of its own. Read the results once :meth:`wait` has returned True."""

    def __init__(self, call: Callable[[], T], name: str) -> None:
        self._call = call
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.result: T | None = None
        self.error: Exception | None = None
        self._began = time.monotonic()
        self._thread.start()

    @property
    def seconds(self) -> float:
        """Return the time since it began."""
        return time.monotonic() - self._began

    @property
    def lives(self) -> bool:
        """Return whether it still runs, given up or not."""
        return self._thread.is_alive()

    def wait(self, seconds: float) -> bool:
        """Return whether it ended within so long."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.result = self._call()
        except Exception as error:  # A bug of an action must not end the receiver.
            self.error = error

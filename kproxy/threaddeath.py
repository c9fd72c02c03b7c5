"""What becomes of a program one of whose threads ended by a mistake in it.

Without that thread it would look well and do nothing. Who started it starts it again.
"""

import os
import threading
from collections.abc import Callable

from kproxy.logs import Log

EXIT_CODE = 1


def ends_the_program(log: Log, needed: Callable[[str], bool] = lambda _: True) -> None:
    """Have this process end at once when a thread dies whose name is ``needed``.

    The death of any other thread is told on standard error, and nothing more.
    """
    usual = threading.__excepthook__
    first = threading.Lock()

    def died(what: threading.ExceptHookArgs) -> None:
        name = what.thread.name if what.thread else ""
        if not needed(name):
            usual(what)
            return
        # Never released: what several say at the same time could be read by nobody.
        first.acquire()
        try:
            usual(what)
            error = f"{what.exc_type.__name__}: {what.exc_value}"
            log.error("thread died", thread=name, error=error)
        finally:  # Perhaps it died because nothing can be written there any more.
            os._exit(EXIT_CODE)

    threading.excepthook = died

"""A full sync when somebody asks for one: SIGUSR1.

``kproxy node resync`` sends it, and an administrator may. The kernel is read anew and put right at
once instead of when the sync period is over. Imported when the first sync has ended: until then
the signal is ignored, and before the daemon runs it ends the process. So who sends it looks first
whether it is caught (``SigCgt`` in ``/proc/PID/status``).
"""

import queue
import signal
import threading
from collections.abc import Callable

SIGNAL = signal.SIGUSR1


def listen(request: Callable[[], None]) -> None:
    """Call ``request``, in a thread, for every signal. Only by the main thread."""
    # A handler may interrupt the main thread anywhere, also where it holds the lock that
    # ``request`` needs. Of all queues only this one may be put to from a handler.
    asked: queue.SimpleQueue[None] = queue.SimpleQueue()

    def serve() -> None:
        while True:
            asked.get()
            request()

    threading.Thread(target=serve, name="resync", daemon=True).start()
    signal.signal(SIGNAL, lambda *_: asked.put(None))

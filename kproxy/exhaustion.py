"""What a server does whose process, or machine, has run out of descriptors or memory.

The connection that could not be accepted stays where it is and would wake the server again at
once: it would do nothing else any more. (The node proxy's own listeners do the same by themselves,
because it imports as little as it can: ``kproxy/agent/listeners.py``.)
"""

import errno
import socket
import time
from typing import Any

EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
EXHAUSTED_S = 0.5
"""So long nothing is accepted then."""


def wait_if_exhausted(error: OSError) -> None:
    """Wait if a connection could not be accepted that stays there; else return at once."""
    if error.errno in EXHAUSTED:
        time.sleep(EXHAUSTED_S)


Connection = socket.socket
"""By a name of its own: servers have an attribute ``socket``."""


class PatientServer:
    """Mixed into a server of :mod:`socketserver`, before it: accepts, or waits."""

    socket: Connection

    def get_request(self) -> tuple[Connection, Any]:
        """Return the next connection. Raises OSError, which the server passes over."""
        try:
            return self.socket.accept()
        except OSError as error:
            wait_if_exhausted(error)
            raise

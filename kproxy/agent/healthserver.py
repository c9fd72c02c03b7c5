"""A small HTTP server for ``/healthz`` and ``/livez``.

Written on sockets: ``http.server`` takes longer to import than the proxy takes to sync.
"""

import threading
import time
from collections.abc import Mapping

from kproxy.agent.http import Handler, serve
from kproxy.agent.listeners import Listeners
from kproxy.logs import Log

RETRY_S = 5.0
"""So long after a failure to listen it is tried again, as in kube-proxy."""


def parse_bind_address(text: str) -> tuple[str, int]:
    """Split ``address:port`` (``[::]:10256`` for IPv6). Raises ValueError."""
    host, _, port = text.rpartition(":")
    number = int(port)
    if not 0 < number < 65536:
        raise ValueError(f"port {number} is out of range")
    return host.strip("[]") or "0.0.0.0", number  # noqa: S104 kube-proxy's default


class HealthServer:
    """Answers requests in threads of its own, which end with the process."""

    def __init__(
        self,
        bind: tuple[str, int],
        handlers: Mapping[str, Handler],
        log: Log,
        listeners: Listeners | None = None,
    ) -> None:
        self._listeners = listeners or Listeners()
        self._bind = bind
        self._handlers = handlers
        self._log = log

    def start(self, after: threading.Event, at_latest_s: float) -> None:
        """Begin to listen, in the background, after the event, and at the latest in so long.

        Where that fails, it tries again and again.
        """
        arguments = (after, at_latest_s)
        threading.Thread(target=self._run, args=arguments, name="healthz", daemon=True).start()

    def _run(self, after: threading.Event, at_latest_s: float) -> None:
        after.wait(at_latest_s)
        while True:
            try:
                with self._listeners.listen(self._bind) as listener:
                    self._log.debug("healthz", address=self._bind[0], port=self._bind[1])
                    while True:
                        serve(
                            self._listeners.accept(listener), self._handlers.get, self._listeners
                        )
            except OSError as error:
                where = f"{self._bind[0]}:{self._bind[1]}"
                self._log.warning("healthz failed", address=where, error=str(error))
                time.sleep(RETRY_S)

"""A small HTTP server: for health checks, and for metrics."""

import os
import threading
import time
from collections.abc import Callable, Mapping

from kproxy.agent.http import Handler, serve
from kproxy.agent.listeners import Listeners
from kproxy.logs import Log

RETRY_S = 5.0
"""So long after a failure to listen it is tried again, as in kube-proxy."""


def parse_bind_address(text: str) -> tuple[str, int]:
    """Split ``address:port`` (``[::]:10256`` for IPv6); port 0: nowhere. Raises ValueError."""
    host, _, port = text.rpartition(":")
    number = int(port)
    if not 0 <= number < 65536:
        raise ValueError(f"port {number} is out of range")
    return host.strip("[]") or "0.0.0.0", number  # noqa: S104  kube-proxy's default


class HttpServer:
    """Answers requests in threads of its own, which end with the process.

    ``name`` is what it is called in the log. ``fatal``: the process ends if the address is taken
    (``bindAddressHardFail``); else it is tried again and again. ``report`` is told why.
    """

    def __init__(
        self,
        bind: tuple[str, int],
        handlers: Mapping[str, Handler],
        log: Log,
        listeners: Listeners,
        *,
        name: str = "healthz",
        fatal: bool = False,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._listeners = listeners
        self._name = name
        self._fatal = fatal
        self._report = report
        self._bind = bind
        self._handlers = handlers
        self._log = log

    def start(self, after: threading.Event, at_latest_s: float) -> None:
        """Begin to listen, in the background, after the event, and at the latest in so long.

        With port 0 nothing is served.
        """
        if self._bind[1] == 0:
            return
        arguments = (after, at_latest_s)
        threading.Thread(target=self._run, args=arguments, name=self._name, daemon=True).start()

    def _run(self, after: threading.Event, at_latest_s: float) -> None:
        after.wait(at_latest_s)
        while True:
            try:
                with self._listeners.listen(self._bind) as listener:
                    self._log.debug(self._name, address=self._bind[0], port=self._bind[1])
                    while True:
                        serve(
                            self._listeners.accept(listener), self._handlers.get, self._listeners
                        )
            except OSError as error:
                where = f"{self._bind[0]}:{self._bind[1]}"
                reason = error.strerror or str(error)
                if self._fatal:
                    self._log.error(f"{self._name} failed", address=where, error=reason)
                    os._exit(1)
                self._log.warning(f"{self._name} failed", address=where, error=reason)
                self._report(f"{self._name}: cannot listen at {where}: {reason}")
                time.sleep(RETRY_S)

"""A small HTTP server for ``/healthz`` and ``/livez``.

Written on sockets: ``http.server`` takes longer to import than the proxy takes to sync.
"""

import socket
import threading
import time
from collections.abc import Callable, Mapping

from kproxy.agent.health import Answer
from kproxy.agent.listeners import Listeners
from kproxy.logs import Log

Handler = Callable[[], Answer]

RETRY_S = 5.0
"""So long after a failure to listen it is tried again, as in kube-proxy."""
_PATIENCE_S = 5.0
_REQUEST_MAX = 8192
_REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


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
                        self._serve(self._listeners.accept(listener))
            except OSError as error:
                where = f"{self._bind[0]}:{self._bind[1]}"
                self._log.warning("healthz failed", address=where, error=str(error))
                time.sleep(RETRY_S)

    def _serve(self, connection: socket.socket) -> None:
        # A thread each: a client that sends nothing must not keep the others waiting.
        threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(_PATIENCE_S)
            try:
                request = b""
                while b"\r\n\r\n" not in request and len(request) < _REQUEST_MAX:
                    part = connection.recv(_REQUEST_MAX)
                    if not part:
                        return
                    request += part
                connection.sendall(self.respond(request))
            except OSError:
                return  # The client has gone; it will ask again.
            finally:
                self._listeners.served()

    def respond(self, request: bytes) -> bytes:
        """Return the whole response to a request."""
        words = request.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        method, path = (words[0], words[1].partition("?")[0]) if len(words) > 1 else ("", "")
        if path not in self._handlers:
            answer = Answer(404, "404 page not found\n")
        elif method not in ("GET", "HEAD"):
            answer = Answer(405, "method not allowed\n")
        else:
            answer = self._handlers[path]()
        body = answer.body.encode()
        head = (
            f"HTTP/1.1 {answer.code} {_REASONS[answer.code]}\r\n"
            "Content-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + (b"" if method == "HEAD" else body)

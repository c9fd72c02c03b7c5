"""Health checks and metrics of programs that serve nothing else, over HTTP."""

import contextlib
import http.server
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from typing import Any

from kproxy import errors, exposition
from kproxy.exhaustion import PatientServer

PATIENCE_S = 5.0
"""So long a client may take for its request."""

Page = Callable[[], tuple[int, str]]
"""Returns the status and the body of an answer."""


class HealthServer:
    """Answers GET requests for named pages. A context manager; entering starts it.

    ``address`` is ``HOST:PORT``; empty: nothing is served. Raises UsageError if it cannot listen.
    """

    def __init__(self, address: str, pages: Mapping[str, Page]) -> None:
        self._server: _Server | None = None
        if not address:
            return
        host, _, port = address.rpartition(":")
        try:
            self._server = _Server((host.strip("[]") or "127.0.0.1", int(port)), pages)
        except (OSError, ValueError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise errors.UsageError(
                f"cannot listen at {address!r}: {reason}", remedy="choose another HOST:PORT"
            ) from None

    @property
    def port(self) -> int:
        """Return the port it listens on; 0: it does not."""
        return int(self._server.server_address[1]) if self._server is not None else 0

    def __enter__(self) -> "HealthServer":
        if self._server is not None:
            self._thread = threading.Thread(target=self._server.serve, name="health", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._server is not None:
            self._server.end()
            self._thread.join()


def metrics_page(registry: exposition.Registry) -> Page:
    """Return the page ``/metrics``."""
    return lambda: (200, registry.text())


class _Server(PatientServer, http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], pages: Mapping[str, Page]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self._ending = False
        super().__init__(address, _handler(pages))

    def server_bind(self) -> None:
        """Bind without the name look-up of the standard library, which may wait for DNS."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def serve(self) -> None:
        """Answer until :meth:`end`, waiting in between without looking."""
        while not self._ending:
            self.handle_request()
        self.server_close()

    def end(self) -> None:
        """Make :meth:`serve` return."""
        self._ending = True
        # Wakes who waits for a client, which closing would not. Who has just had one and seen
        # that this is the end has closed it already.
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let a client that goes away in the middle go."""


def _handler(pages: Mapping[str, Page]) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = PATIENCE_S

        def do_GET(self) -> None:
            page = pages.get(self.path.partition("?")[0])
            code, text = page() if page else (404, "404 page not found\n")
            body = text.encode()
            self.send_response(code)
            metrics = self.path.startswith("/metrics")
            kind = exposition.CONTENT_TYPE if metrics else "text/plain; charset=utf-8"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name there
            """Say nothing: requests are no events."""

    return Handler

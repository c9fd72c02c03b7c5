"""A small HTTP server: the image ``web``.

    python -m kproxy.traffic.webserver [--port 8080] [--name POD] [--ready-after SECONDS]

Every GET is answered with the pod's name and the path; ``/status/N`` with the status N;
``/healthz`` with 200, ``/readyz`` with 503 until ``--ready-after`` seconds have passed. ``PORT``
and ``POD_NAME`` in the environment are defaults. SIGTERM: no connection is accepted any more, and
it ends when the open ones have been answered.
"""

import argparse
import contextlib
import http.server
import os
import select
import signal
import socket
import sys
import time
from types import FrameType
from typing import Any

from kproxy.exhaustion import PatientServer

IDLE_SECONDS = 5.0


class Server(PatientServer, http.server.ThreadingHTTPServer):
    """Listens on a port of every address; waits for its threads at the end."""

    daemon_threads = False
    request_queue_size = 1024
    timeout = 1.0  # a client that hangs up before it is accepted must not stop the others
    address_family = socket.AF_INET6

    def __init__(self, port: int, name: str, ready_after: float) -> None:
        self.name = name
        self.ready_at = time.monotonic() + ready_after
        self.stopping = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        try:
            super().__init__(("::", port), Handler)
        except OSError:  # a kernel without IPv6
            self.address_family = socket.AF_INET
            super().__init__(("", port), Handler)

    def serve(self) -> None:
        """Answer until :meth:`stop`."""
        while not self.stopping:
            readable, _, _ = select.select([self.fileno(), self._wake], [], [])
            if self.fileno() in readable and not self.stopping:
                self.handle_request()

    def stop(self) -> None:
        """Make :meth:`serve` return; may be called from a signal handler."""
        self.stopping = True
        os.eventfd_write(self._wake, 1)

    def server_bind(self) -> None:
        """Bind for both families, without asking for names."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.name, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    server: Server

    def do_GET(self) -> None:
        """Answer GET and HEAD."""
        path = self.path.partition("?")[0]
        code = self._code(path)
        body = f"{self.server.name} {path}\n".encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        if self.server.stopping:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815  http.server looks for that name

    def _code(self, path: str) -> int:
        if path == "/readyz" and time.monotonic() < self.server.ready_at:
            return 503
        if path.startswith("/status/"):
            with contextlib.suppress(ValueError):
                code = int(path.removeprefix("/status/"))
                return code if 200 <= code <= 599 else 400
        return 200


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kproxy.traffic.webserver")
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8080")))
    environment = os.environ
    own_name = environment.get("POD_NAME") or environment.get("HOSTNAME") or os.uname().nodename
    parser.add_argument("--name", default=own_name)
    parser.add_argument("--ready-after", type=float, default=0.0)
    options = parser.parse_args(arguments)
    try:
        server = Server(options.port, options.name, options.ready_after)
    except OSError as error:
        print(f"port {options.port}: {error.strerror}", file=sys.stderr)
        return 1

    def stop(number: int, frame: FrameType | None) -> None:
        server.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"listening on port {server.server_port}", flush=True)
    with server:
        server.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

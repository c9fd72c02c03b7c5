"""The kubelet's server, port 10250: logs, exec, health, metrics, pods.

    GET /containerLogs/NAMESPACE/POD/CONTAINER?follow&tailLines&sinceSeconds&timestamps&previous
    GET /exec/NAMESPACE/POD/CONTAINER?command=…&stdin&stdout&stderr&tty      (a WebSocket)
    GET /healthz, /metrics, /pods

The API server passes ``pods/log`` and ``pods/exec`` on to it. With certificates it speaks TLS, and
all but ``/healthz`` is for administrators (the API server is one): by a client certificate of the
group ``system:masters``, or by a token. ``/metrics`` is for ``system:monitoring``, too. Without
certificates and token it asks nobody who he is.
One thread per connection, up to CONNECTIONS of them; a slow or silent client holds up its own
thread only. Who comes when all are taken is turned away at once, not queued.
"""

import contextlib
import hmac
import http.server
import os
import select
import socket
import socketserver
import ssl
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from kproxy import errors, exposition
from kproxy.exhaustion import PatientServer

from . import containerlogs, execstream, podaccess
from .access import authentication, identity, roles
from .kubelet import Kubelet
from .supervisor import Service

IDLE_SECONDS = 60.0
HANDSHAKE_SECONDS = 10.0
LARGEST_BODY = 64 * 1024
CONNECTIONS = 256
"""At once: two logs that are followed for each of a node's 110 pods, and some more."""
PATHS = ("containerLogs", "exec", "healthz", "metrics", "pods")
TEXT = "text/plain; charset=utf-8"
JSON = "application/json"

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Certificate and key of the node, the authority of clients, and a token; empty: insecure."""

    cert_file: Path | None = None
    key_file: Path | None = None
    client_ca_file: Path | None = None
    token: str = ""

    def context(self) -> ssl.SSLContext | None:
        """Return how to speak TLS; None: not at all. Raises UsageError for unusable files."""
        if self.cert_file is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.cert_file, self.key_file)
            if self.client_ca_file is not None:
                context.load_verify_locations(self.client_ca_file)
                context.verify_mode = ssl.CERT_OPTIONAL
        except (OSError, ssl.SSLError) as error:
            raise errors.UsageError(
                f"{self.cert_file}, {self.key_file}, {self.client_ca_file}: {error}",
                remedy="give the node's certificate and key, and the cluster's authority",
            ) from None
        return context


class Server(PatientServer, http.server.ThreadingHTTPServer):
    """Listens on one address and answers for one kubelet."""

    daemon_threads = True
    request_queue_size = 128
    timeout = 1.0
    allow_reuse_address = True

    def __init__(
        self,
        address: tuple[str, int],
        kubelet: Kubelet,
        access: Access,
        *,
        connections: int = CONNECTIONS,
    ) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.kubelet = kubelet
        self.access = access
        self._context = access.context()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._room = threading.BoundedSemaphore(connections)
        super().__init__(address, Handler)

    def serve(self) -> None:
        """Answer until :meth:`stop`."""
        poll = select.poll()
        for fd in (self.fileno(), self._wake):
            poll.register(fd, select.POLLIN)
        while all(fd != self._wake for fd, _ in poll.poll()):
            self.handle_request()
        self.server_close()
        wake, self._wake = self._wake, -1
        os.close(wake)

    def stop(self) -> None:
        """Make :meth:`serve` return."""
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def server_bind(self) -> None:
        """Bind without the name look-up of the standard library, which may wait for DNS."""
        if self.address_family == socket.AF_INET6:
            with contextlib.suppress(OSError):
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def server_close(self) -> None:
        """Close the socket; threads that still serve end with the process."""
        self.socket.close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, if there is room for it."""
        if not self._room.acquire(blocking=False):
            self.kubelet.metrics.refused_connections.add()
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection; called in its own thread, so a handshake holds up nobody else."""
        if self._context is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(HANDSHAKE_SECONDS)
        with self._context.wrap_socket(request, server_side=True) as secure:
            super().finish_request(secure, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what a connection's thread died of; a client that went away is nothing."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self.kubelet.log.error("request failed", client=str(client_address), error=repr(error))


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers the requests of one connection, one after the other."""

    protocol_version = "HTTP/1.1"
    server_version = "kproxy-kubelet"
    sys_version = ""
    timeout = IDLE_SECONDS
    wbufsize = -1
    server: Server

    def do_GET(self) -> None:
        """Answer GET."""
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        words = [urllib.parse.unquote(word) for word in parts.path.strip("/").split("/")]
        # Not what anybody asks for: there would be ever more of them.
        path = words[0] if words[0] in PATHS else "other"
        self.server.kubelet.metrics.server_requests.add(self.command, path)
        try:
            self._discard_body()
            self._answer(words, query, parts.query)
        except errors.KproxyError as error:
            self._fail(error)

    do_POST = do_GET  # noqa: N815  its name there

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  its name there
        """Write nothing."""

    def _answer(self, words: Sequence[str], query: dict[str, str], raw: str) -> None:
        if words == ["healthz"]:
            self._send(200, b"ok", TEXT)
            return
        self._demand_permission(words)
        match words:
            case ["metrics"]:
                self._send(200, self._metrics().encode(), exposition.CONTENT_TYPE)
            case ["pods"]:
                kubelet = self.server.kubelet
                pods = kubelet.ask(lambda: podaccess.pod_list(kubelet.workers))
                self._send(200, _encode(pods), JSON)
            case ["containerLogs", _, _, _]:
                self._logs(words[1:], query)
            case ["exec", namespace, pod, container]:
                self._exec((namespace, pod, container), raw)
            case _:
                raise errors.ApiError(404, "NotFound", "404 page not found")

    def _demand_permission(self, words: Sequence[str]) -> None:
        access = self.server.access
        if access.cert_file is None and not access.token:
            return
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        good = access.token and hmac.compare_digest(token.strip().encode(), access.token.encode())
        if kind.lower() == "bearer" and good:
            return
        secure = isinstance(self.connection, ssl.SSLSocket)
        certificate = self.connection.getpeercert() if secure else None
        if not certificate:
            raise errors.ApiError(401, "Unauthorized", "Unauthorized")
        user = authentication.of_certificate(certificate["subject"])
        may = roles.reads_metrics(user) if words == ["metrics"] else identity.ADMINS in user.groups
        if not may:
            raise errors.ApiError(403, "Forbidden", f"Forbidden (user={user.name})")

    def _metrics(self) -> str:
        kubelet = self.server.kubelet
        kubelet.ask(kubelet.census).tell(kubelet.metrics)
        return kubelet.metrics.registry.text()

    def _logs(self, where: Sequence[str], query: dict[str, str]) -> None:
        options = containerlogs.LogOptions.parse(query, datetime.fromtimestamp(time.time(), UTC))
        kubelet = self.server.kubelet
        logged = kubelet.ask(
            lambda: podaccess.logged(
                kubelet.workers, kubelet.runtime, where, previous=options.previous
            )
        )

        def over() -> bool:
            return kubelet.ask(lambda: podaccess.is_over(kubelet.workers, logged, where[2]))

        # A generator, which holds files open.
        with contextlib.closing(containerlogs.read(logged.files, options, over=over)) as pieces:
            self._stream(pieces)

    def _stream(self, pieces: Iterable[bytes]) -> None:
        """Send pieces as they come, until they end or the client goes away."""
        self.send_response(200)
        self.send_header("Content-Type", TEXT)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            if piece:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            else:
                self.wfile.flush()
                if _gone(self.connection, containerlogs.LOOK_AGAIN):
                    self.close_connection = True
                    return
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _exec(self, where: tuple[str, str, str], raw: str) -> None:
        self.close_connection = True
        request = execstream.Request.parse(urllib.parse.parse_qsl(raw, keep_blank_values=True))
        if self.headers.get("Upgrade", "").lower() != "websocket":
            raise errors.ApiError(
                400,
                "BadRequest",
                "exec is spoken over WebSocket here, not SPDY: use a kubectl of 1.30 or newer, "
                "or kproxy lab exec",
            )
        kubelet = self.server.kubelet
        found = kubelet.ask(lambda: podaccess.running(kubelet.workers, *where))
        headers = [(name.lower().encode(), text.encode()) for name, text in self.headers.items()]
        execstream.serve(self.connection, self.path, headers, kubelet.runtime, found, request)

    def _discard_body(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if (
            not length.isdecimal()
            or int(length) > LARGEST_BODY
            or "chunked" in str(self.headers.get("Transfer-Encoding", ""))
        ):
            self.close_connection = True
            raise errors.ApiError(413, "RequestEntityTooLarge", "the body is not wanted")
        self.rfile.read(int(length))

    def _fail(self, error: errors.KproxyError) -> None:
        """Answer in words, as kubelets do; the API server makes a Status of them."""
        code = error.code if isinstance(error, errors.ApiError) else 500
        self._send(code, f"{error}\n".encode(), TEXT)

    def _send(self, code: int, body: bytes, content_type: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()


def start(address: tuple[str, int], kubelet: Kubelet, access: Access) -> Service:
    """Return the server of a kubelet, listening but not yet answering.

    Raises UsageError if the certificates cannot be used or the address is taken.
    """
    try:
        server = Server(address, kubelet, access)
    except OSError as error:
        host, port = address
        raise errors.UsageError(f"kubelet server on {host} port {port}: {error}") from None
    return Service("server", server.serve, server.stop)


def _gone(connection: socket.socket, seconds: float) -> bool:
    """Wait; return whether the client has closed its connection meanwhile."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    if not poll.poll(seconds * 1000):
        return False
    connection.settimeout(0.0)
    try:
        return not connection.recv(1)
    except (ssl.SSLWantReadError, BlockingIOError):
        return False
    finally:
        connection.settimeout(IDLE_SECONDS)

"""Serves the page: one document, what it shows, and orders for faults. On loopback unless told so.

Whoever has the token may look, and nobody else. It is in the page's URL; everything else is asked
for with a header that other sites' pages cannot send unasked (so a page elsewhere can neither read
the lab nor break it), and a request that names another host or origin is refused.

However many pages are open, the lab is looked at once in a while only (:attr:`Desk.pause_s`).
"""

import hmac
import ipaddress
import socket
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import msgspec

from kproxy import errors
from kproxy.api.addresses import with_port
from kproxy.exhaustion import PatientServer
from kproxy.lab.dashboard.messages import Answer, Order, Question

HEADER = "X-Kproxy-Token"
LARGEST_ORDER = 4096
IDLE_S = 15.0
ANSWER_S = 60.0
"""So long a look, or a fault, may take: an unplugged host is waited for."""
_PAUSE_S = 1.0
_JSON = "application/json"
_order = msgspec.json.Decoder(Order).decode  # here: see kproxy.api.codec.prepare


class Asked(Protocol):
    """What questions go to; see :class:`kproxy.lab.door.conversation.Conversation`."""

    def ask(self, line: bytes, timeout: float) -> bytes:
        """Return the answer. Raises KproxyError."""


class Desk:
    """Passes questions on, and looks seldom."""

    def __init__(self, asked: Asked, *, allow: bool) -> None:
        self.allow = allow
        self._asked = asked
        self._lock = threading.Lock()
        self._last = b""
        self._took = 0.0
        self._at = float("-inf")

    @property
    def pause_s(self) -> float:
        """How long the lab is left alone after a look: at least twice as long as that took."""
        return max(_PAUSE_S, 2 * self._took)

    def look(self) -> bytes:
        """Return an answer with a view, not older than :attr:`pause_s`."""
        with self._lock:
            began = time.monotonic()
            if began - self._at >= self.pause_s:
                self._last = self._pass_on(Question())
                self._at = time.monotonic()
                self._took = self._at - began
            return self._last

    def order(self, order: Order) -> bytes:
        """Return the answer to an order. The next look is a fresh one."""
        with self._lock:
            answer = self._pass_on(Question(order=order))
            self._at = float("-inf")
            return answer

    def _pass_on(self, question: Question) -> bytes:
        try:
            return self._asked.ask(msgspec.json.encode(question), ANSWER_S)
        except errors.KproxyError as error:
            return msgspec.json.encode(Answer(error=str(error)))


class Server(PatientServer, ThreadingHTTPServer):
    """Listens at once; :meth:`serve_forever` answers. To be closed. Raises UsageError."""

    daemon_threads = True
    block_on_close = False  # idle connections of browsers are not waited for
    request_queue_size = 32

    def __init__(self, host: str, port: int, page: str, desk: Desk, token: str) -> None:
        self.page = page.encode()
        self.desk = desk
        self.token = token
        try:
            family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self.address_family = family
            super().__init__((str(address[0]), int(address[1])), _Handler)
        except OSError as error:
            raise errors.UsageError(
                f"cannot listen at {host}:{port}: {error.strerror or error}",
                remedy="choose another --listen HOST:PORT; port 0 is any free one",
            ) from None
        found, number = self.socket.getsockname()[:2]
        self.loopback = ipaddress.ip_address(found).is_loopback
        self.authority = with_port(found, number)

    @property
    def url(self) -> str:
        """Return where the page is, token included."""
        return f"http://{self.authority}/?token={self.token}"

    def knows(self, token: str) -> bool:
        """Return whether it is the token; takes equally long for all wrong ones."""
        return hmac.compare_digest(token.encode(), self.token.encode())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a browser that goes away is no error."""


class _Handler(BaseHTTPRequestHandler):
    """One connection of a browser."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "kproxy", ""
    timeout = IDLE_S

    def do_GET(self) -> None:
        """Answer with the page, or with what it shows."""
        parts = urlsplit(self.path)
        if not self._is_for_us():
            return
        if parts.path == "/":
            given = parse_qs(parts.query).get("token", [""])[0]
            if self.server.knows(given):
                self._answer(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")
            else:
                self._refuse(HTTPStatus.FORBIDDEN, "the URL lacks the token that was printed")
        elif parts.path == "/view" and self._has_token():
            self._answer(HTTPStatus.OK, self.server.desk.look(), _JSON)
        elif parts.path != "/view":
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def do_POST(self) -> None:
        """Take an order."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST_ORDER:
            self.close_connection = True  # what else is sent is not read
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "that is no order")
            return
        body = self.rfile.read(int(length))
        if not self._is_for_us() or not self._has_token():
            return
        if self.path != "/order":
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")
        elif self.headers.get_content_type() != _JSON:
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"an order is {_JSON}")
        elif not self.server.desk.allow:
            self._refuse(HTTPStatus.FORBIDDEN, "started without --allow-faults")
        else:
            self._obey(body)

    def _obey(self, body: bytes) -> None:
        try:
            order = _order(body)
        except msgspec.DecodeError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, f"not understood: {error}")
            return
        self._answer(HTTPStatus.OK, self.server.desk.order(order), _JSON)

    def _is_for_us(self) -> bool:
        """Refuse requests that mean another server, or come from another one's page."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        port = self.server.authority.rpartition(":")[2]
        names = {self.server.authority, f"localhost:{port}"}
        if self.server.loopback and host not in names:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, f"this is {self.server.authority}")
            return False
        if origin is not None and origin != f"http://{host}":
            self._refuse(HTTPStatus.FORBIDDEN, "another page asks")
            return False
        return True

    def _has_token(self) -> bool:
        if self.server.knows(self.headers.get(HEADER, "")):
            return True
        self._refuse(HTTPStatus.FORBIDDEN, f"the header {HEADER} lacks the token")
        return False

    def _refuse(self, status: HTTPStatus, words: str) -> None:
        self._answer(status, msgspec.json.encode(Answer(error=words)), _JSON)

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  its name there
        """Keep silent: the terminal is the user's."""

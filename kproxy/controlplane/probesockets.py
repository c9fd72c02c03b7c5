"""One TCP connection of a probe, and what is asked over it, without ever waiting."""

import errno
import ipaddress
import os
import select
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from kproxy import errors
from kproxy.api.addresses import with_port

from . import grpchealth

_ANSWER_MOST = 10 * 1024
"""Kubernetes reads no more of an answer either."""
_IN_PROGRESS = (0, errno.EINPROGRESS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it, in words for the user."""

    success: bool
    message: str = ""


def request(host: str, port: int, path: str, headers: Sequence[tuple[str, str]]) -> bytes:
    """Return a GET request. Given headers take the place of our own; an empty one drops it."""
    fields = {
        "host": with_port(host, port),
        "user-agent": "kube-probe/kproxy",
        "accept": "*/*",
        **{name.lower(): value for name, value in headers},
        "connection": "close",
    }
    lines = [f"{name}: {value}" for name, value in fields.items() if value]
    path = path if path.startswith("/") else f"/{path}"
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode("utf-8")


class Reading(Protocol):
    """How an answer is read."""

    def is_complete(self, answer: bytes) -> bool:
        """Return whether it is all there; otherwise it ends with the connection."""
        ...

    def judge(self, answer: bytes, where: str) -> Outcome:
        """Return what it means; ``where``: who has answered."""
        ...


class Http:
    """The answer to :func:`request`: a status from 200 to 399 is success."""

    def is_complete(self, answer: bytes) -> bool:
        """See :class:`Reading`; answers without a known length end with the connection."""
        head, end, body = answer.partition(b"\r\n\r\n")
        if not end:
            return False
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length" and value.strip().isdigit():
                return len(body) >= int(value)
        return False

    def judge(self, answer: bytes, where: str) -> Outcome:
        """See :class:`Reading`."""
        words = answer.split(b"\r\n", 1)[0].split(b" ")
        if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
            return Outcome(success=False, message=f"{where}: the answer is not HTTP")
        code = int(words[1])
        if 200 <= code < 400:
            return Outcome(success=True)
        return Outcome(success=False, message=f"HTTP probe failed with statuscode: {code}")


class Health:
    """The answer to :func:`grpchealth.request`."""

    def is_complete(self, answer: bytes) -> bool:
        """See :class:`Reading`."""
        return grpchealth.is_complete(answer)

    def judge(self, answer: bytes, where: str) -> Outcome:
        """See :class:`Reading`. An error comes compressed, so it is not told which."""
        found = grpchealth.status(answer)
        if found == grpchealth.SERVING:
            return Outcome(success=True)
        if found is not None:
            message = f'service unhealthy (responded with "{found}")'
        elif grpchealth.is_spoken(answer):
            message = f"{where}: health rpc failed: no such service, or no gRPC health protocol"
        else:
            message = f"{where}: the answer is not gRPC"
        return Outcome(success=False, message=message)


class Exchange:
    """A connection; with a request, also its answer, which is read as ``read`` does.

    ``host``: an address, or ``localhost``. Raises OSError or KproxyError if it cannot even begin.
    """

    def __init__(
        self,
        host: str,
        port: int,
        request: bytes = b"",
        *,
        tls: bool = False,
        read: Reading | None = None,
    ) -> None:
        host = _checked("127.0.0.1" if host == "localhost" else host, port)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._request = request
        self._where = f"{host}:{port}"
        self._answer = b""
        self._read = read or Http()
        self._tls: ssl.SSLSocket | None = None
        self._want_tls = tls
        self._interest = select.EPOLLOUT
        self._connected = self._shaken = False
        self._sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = self._sock.connect_ex((host, port))
        except OSError as error:
            self._sock.close()
            raise OSError(error.errno, f"{self._where}: {error.strerror or error}") from None
        if number not in _IN_PROGRESS:
            self._sock.close()
            raise OSError(number, f"{self._where}: {_words(number)}")

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return (self._tls or self._sock).fileno()

    def interest(self) -> int:
        """Return the epoll events that it waits for."""
        return self._interest

    def ready(self) -> Outcome | None:
        """Go on; return the outcome if there is one."""
        try:
            return self._go_on()
        except ssl.SSLWantReadError:
            self._interest = select.EPOLLIN
        except ssl.SSLWantWriteError:
            self._interest = select.EPOLLOUT
        except BlockingIOError:
            self._interest = select.EPOLLOUT if self._request else select.EPOLLIN
        except OSError as error:
            return self._failed(f"{self._where}: {error.strerror or error}")
        return None

    def close(self) -> None:
        """Close the connection."""
        (self._tls or self._sock).close()

    def _go_on(self) -> Outcome | None:
        if not self._connected:
            number = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                return self._failed(f"dial tcp {self._where}: {_words(number)}")
            self._connected = True
        if not self._request and not self._shaken:
            return Outcome(success=True)
        if not self._shaken:
            self._shake_hands()
        sock = self._tls or self._sock
        while self._request:
            self._request = self._request[sock.send(self._request) :]
        while True:
            data = sock.recv(_ANSWER_MOST)
            self._answer += data
            if (
                not data
                or len(self._answer) >= _ANSWER_MOST
                or self._read.is_complete(self._answer)
            ):
                return self._read.judge(self._answer, self._where)

    def _shake_hands(self) -> None:
        if self._want_tls:
            if self._tls is None:
                self._tls = _wrapped(self._sock)
            self._tls.do_handshake()
        self._shaken = True

    def _failed(self, message: str) -> Outcome:
        return Outcome(success=False, message=message)


def _checked(host: str, port: int) -> str:
    """Return the host. To look up a name would hold up everybody else's probes."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise errors.KproxyError(
            f"host {host!r} is no address, and names are not looked up",
            remedy="give an address, or none for the pod's own",
        ) from None
    if not 0 < port < 65536:
        raise errors.KproxyError(f"{port} is no port", remedy="give a number from 1 to 65535")
    return host


def _wrapped(sock: socket.socket) -> ssl.SSLSocket:
    """Return a TLS client on a connection; like the kubelet, it takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(sock, do_handshake_on_connect=False)


def _words(number: int) -> str:
    return os.strerror(number).lower()

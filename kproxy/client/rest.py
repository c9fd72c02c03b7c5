"""Requests to a Kubernetes API server: lists and watches as typed objects, the rest as bytes.

Idle connections are kept and used again. A :class:`Rest` may be used from several threads;
:meth:`Rest.close` ends whatever they are waiting for.
"""

import contextlib
import re
import threading
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from kproxy.api import codec, kinds
from kproxy.api.meta import Object
from kproxy.errors import ApiError, Gone, KproxyError, UsageError

from .http1 import Connection, Exchange, Exchanges, Response, number
from .kubeconfig import Access

if TYPE_CHECKING:
    import socket

    from .tls import TlsContexts

T = TypeVar("T", bound=Object)

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
TIMEOUT = 30.0
"""Seconds without any byte after which a request has failed."""

FAILED = "<error>"


class Unreachable(KproxyError):
    """The API server cannot be reached, or broke off."""


class Rest:
    """A client of one API server; ``timeout``: see :data:`TIMEOUT`."""

    def __init__(self, access: Access, *, agent: str = "kproxy", timeout: float = TIMEOUT) -> None:
        secure, self._host, self._port, self._prefix = _place(access.server)
        self._access = access
        self._agent = agent
        self._timeout = timeout
        self._tls = _tls(access) if secure else None
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._closed = False
        self.exchanges = Exchanges()
        """Tells of the requests of this client and of all that were derived."""

    @property
    def host(self) -> str:
        """Return host and port of the server, as its URL has them."""
        return urlsplit(self._access.server).netloc.rpartition("@")[2]

    def derive(self) -> "Rest":
        """Return another client of the same server, which can be closed by itself."""
        twin = object.__new__(Rest)
        twin.__dict__.update(self.__dict__)
        twin._lock = threading.Lock()
        twin._idle, twin._busy, twin._closed = [], set(), False
        return twin

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all requests and watches, also those of other threads; no new ones are possible."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            for connection in self._busy:
                connection.abort()
        for connection in idle:
            connection.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        content_type: str = JSON,
    ) -> bytes:
        """Return the body of a successful answer.

        Raises ``ApiError`` (``Gone``, ``Conflict``) for an error status, and
        :class:`Unreachable`.
        """
        began = time.monotonic()
        response, connection = self._send(method, path, query, body, content_type)
        reuse, size = False, None
        try:
            data = response.read()
            reuse, size = response.reusable, len(data)
        except OSError as error:
            raise self._unreachable(error) from None
        finally:
            took, resolved = time.monotonic() - began, connection.take_resolved_s()
            self.exchanges.tell(
                Exchange(method, str(response.status), took, len(body), size, resolved)
            )
            self._give_back(connection, reuse)
        if response.status >= 300:
            raise _refusal(response, data)
        return data

    def list(
        self,
        wanted: type[T],
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
    ) -> codec.Page[T]:
        """Return all objects of a kind; with ``limit`` fetched by pages of so many.

        Objects that cannot be decoded are in the page's ``problems``.
        """
        path = kinds.for_type(wanted).path(namespace)
        query = _selectors(label_selector, field_selector)
        if limit:
            query["limit"] = str(limit)
        page = codec.decode_page(self.request("GET", path, query=query), wanted)
        items, problems = list(page.items), list(page.problems)
        while page.token:
            try:
                raw = self.request("GET", path, query={**query, "continue": page.token})
            except Gone:
                if not limit:
                    raise  # the server's own pages: beginning anew is the caller's to decide
                # The snapshot has expired between two pages: take all in one.
                return self.list(
                    wanted,
                    namespace,
                    label_selector=label_selector,
                    field_selector=field_selector,
                )
            page = codec.decode_page(raw, wanted)
            items += page.items
            problems += page.problems
        return codec.Page(items, page.resource_version, problems)

    def watch(
        self,
        wanted: type[Object],
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        seconds: int = 300,
    ) -> "Watch":
        """Open a watch from a version on; the server ends it after so many seconds.

        Raises :class:`Gone` if the version is too old, else as :meth:`request`.
        """
        query = _selectors(label_selector, field_selector)
        query |= {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(seconds),
        }
        path = kinds.for_type(wanted).path(namespace)
        response, connection = self._send("GET", path, query, b"", JSON, seconds + TIMEOUT)
        resolved = connection.take_resolved_s()
        self.exchanges.tell(Exchange("GET", str(response.status), resolved_s=resolved))
        if response.status >= 300:
            try:
                data = response.read()
            except OSError as error:
                raise self._unreachable(error) from None
            finally:
                self._give_back(connection, False)
            raise _refusal(response, data)
        return Watch(self, response, connection)

    @contextlib.contextmanager
    def dialled(self) -> Iterator["Dialled"]:
        """Connect anew, for what is no HTTP after its first answer; :meth:`close` ends it, too.

        Raises :class:`Unreachable`; what happens on the connection later raises OSError.
        """
        connection = self._take(fresh=True)
        try:
            try:
                raw = connection.dial()
            except OSError as error:
                raise self._unreachable(error) from None
            yield Dialled(raw, self.host, self._prefix, self._authorization())
        finally:
            self._give_back(connection, False)

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: bytes,
        content_type: str,
        timeout: float | None = None,
    ) -> tuple[Response, Connection]:
        target = quote(self._prefix + path)
        if query:
            target += "?" + urlencode(query)
        headers = {"Accept": JSON, "User-Agent": self._agent, **self._authorization()}
        if body:
            headers["Content-Type"] = content_type
        began = time.monotonic()
        while True:
            connection = self._take()
            fresh = connection.fresh
            try:
                response = connection.request(method, target, headers, body, timeout=timeout)
            except OSError as error:
                self._give_back(connection, False)
                # The server may have closed an idle connection at this very moment. A read can
                # be repeated; of a write nobody knows whether it was done.
                if fresh or method != "GET" or self._closed:
                    took = None if timeout else time.monotonic() - began
                    resolved = connection.take_resolved_s()
                    self.exchanges.tell(
                        Exchange(method, FAILED, took, len(body), resolved_s=resolved)
                    )
                    raise self._unreachable(error) from None
            else:
                return response, connection

    def _authorization(self) -> dict[str, str]:
        token = self._access.token
        if self._access.token_file is not None:
            try:
                token = self._access.token_file.read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                raise KproxyError(f"cannot read {self._access.token_file}: {reason}") from None
        if not (token.isascii() and token.isprintable()):
            raise KproxyError("the token for the API server is no printable ASCII text")
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _take(self, *, fresh: bool = False) -> Connection:
        with self._lock:
            if self._closed:
                raise Unreachable("the client is closed")
            while self._idle and not fresh:
                connection = self._idle.pop()
                if connection.usable():
                    break
                connection.close()
            else:
                name = self._access.tls_server_name or self._host
                tls = self._tls.current() if self._tls else None
                connection = Connection(
                    self._host, self._port, tls=tls, name=name, timeout=self._timeout
                )
            self._busy.add(connection)
            return connection

    def _give_back(self, connection: Connection, reuse: bool) -> None:
        with self._lock:
            self._busy.discard(connection)
            if reuse and not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _unreachable(self, error: OSError) -> Unreachable:
        reason = error.strerror or str(error)
        return Unreachable(
            f"API server {self._access.server}: {reason}",
            remedy="is it running, and is the server in the kubeconfig right?",
        )


class Dialled(NamedTuple):
    """A fresh connection to the API server."""

    socket: "socket.socket"
    host: str
    """For the header ``Host``."""
    prefix: str
    """What paths begin with on this server."""
    headers: Mapping[str, str]
    """What proves who we are, where the certificate does not."""


class Watch:
    """An open watch: an iterator over raw lines, for one thread. Closes itself at the end."""

    def __init__(self, rest: Rest, response: Response, connection: Connection) -> None:
        self._rest = rest
        self._response = response
        self._connection = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._rest._give_back(self._connection, False)

    def __iter__(self) -> Iterator[bytes]:
        """Return the lines until the server ends the watch.

        Raises :class:`Unreachable` if it breaks off.
        """
        try:
            yield from self._response.lines()
        except OSError as error:
            raise self._rest._unreachable(error) from None


_HOST = re.compile(r"(?:[^\s./@\[\]]{1,63}\.)*[^\s./@\[\]]{1,63}\.?")
"""A name, or an IPv6 address out of its brackets. What it leads to is the resolver's to say."""


def _place(server: str) -> tuple[bool, str, int, str]:
    """Return whether TLS is wanted, host, port and path of a URL. Raises UsageError."""
    try:
        url = urlsplit(server)
        host, port = url.hostname or "", url.port
    except ValueError as error:
        problem = str(error)
    else:
        secure = url.scheme == "https"
        if url.scheme not in ("http", "https"):
            problem = "it does not begin with http:// or https://"
        elif not _HOST.fullmatch(host) or len(host) > 253:
            problem = f"{host!r} is no name of a host" if host else "it names no host"
        elif port == 0:
            problem = "port 0 cannot be connected to"
        else:
            return secure, host, port or (443 if secure else 80), url.path.rstrip("/")
    raise UsageError(
        f"{server!r} is no URL of an API server: {problem}",
        remedy="write https://host:port, in the kubeconfig or for --master",
    )


def _tls(access: Access) -> "TlsContexts":
    from .tls import TlsContexts

    return TlsContexts(access)


def _refusal(response: Response, data: bytes) -> ApiError:
    error = codec.api_error(response.status, data)
    # It may also be a date; nobody sends that.
    error.retry_after = float(number(response.headers.get("retry-after")) or 0)
    return error


def _selectors(labels: str, fields: str) -> dict[str, str]:
    query = {"labelSelector": labels, "fieldSelector": fields}
    return {name: value for name, value in query.items() if value}

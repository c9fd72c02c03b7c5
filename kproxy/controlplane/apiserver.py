"""The API server: the Kubernetes API over HTTP for a cluster that lives in a store of its own.

    python -m kproxy.controlplane.apiserver --bind 192.0.2.1:6443 --store sqlite:/var/lib/lab/db

One thread per connection. A slow client holds up its own thread only: nothing is sent or read
while the store is locked, and a silent client is cut off after a time. The objects are kept where
``--store`` says, which any number of API servers may share; what is kept in ``memory`` dies with
the server. Nobody is asked who he is: bind it where only the lab can reach it.
"""

import argparse
import http.server
import os
import select
import signal
import socket
import socketserver
import sys
import urllib.parse
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from kproxy import errors, logs
from kproxy.api import catalog, kinds

from . import addresses, allocations, routes, status
from .rest import Answer, Api
from .storage import base, locations
from .store import Store

LARGEST_BODY = 3 * 1024 * 1024
IDLE_SECONDS = 120.0
VERSION = {"major": "1", "minor": "31", "gitVersion": "v1.31.0+kproxy", "platform": "linux"}

_encode = msgspec.json.Encoder().encode


class Server(http.server.ThreadingHTTPServer):
    """Listens on one address and answers for one :class:`Api`."""

    daemon_threads = True
    request_queue_size = 512
    timeout = 1.0  # a client that hangs up before it is accepted must not stop the others
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], api: Api, log: logs.Log) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.api = api
        self.log = log
        self._wake = os.eventfd(0)
        super().__init__(address, Handler)

    def serve(self) -> None:
        """Answer until :meth:`stop`, then end all watches and close the socket."""
        while True:
            readable, _, _ = select.select([self.fileno(), self._wake], [], [])
            if self._wake in readable:
                break
            self.handle_request()
        self.api.store.close()
        self.server_close()
        wake, self._wake = self._wake, -1
        os.close(wake)

    def stop(self) -> None:
        """Make :meth:`serve` return; may be called from a signal handler, and twice."""
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def server_bind(self) -> None:
        """Bind without the name look-up of the standard library, which may wait for DNS."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what a connection's thread died of; a client that went away is nothing."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self.log.error("connection failed", client=str(client_address), error=repr(error))


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers the requests of one connection, one after the other."""

    protocol_version = "HTTP/1.1"
    server_version = "kproxy"
    sys_version = ""
    disable_nagle_algorithm = True
    timeout = IDLE_SECONDS
    wbufsize = -1  # headers and body leave in one segment
    server: Server

    def do_GET(self) -> None:
        """Answer GET."""
        self._serve()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Write nothing: a line per request would cost more than the request."""

    def send_error(
        self, code: int, message: str | None = None, explain: str | None = None
    ) -> None:
        """Answer what is not even a request with a Status and end the connection."""
        self.close_connection = True
        # Until a request line has been understood this is "HTTP/0.9", which has no headers.
        self.request_version = self.protocol_version
        error = errors.ApiError(int(code), "BadRequest", message or "bad request")
        self._send(Answer(int(code), _encode(status.failure(error))))

    def handle_expect_100(self) -> bool:
        """Tell a client that waits for it (curl, with a large body) to go on."""
        going_on = super().handle_expect_100()
        self.wfile.flush()
        return going_on

    def _serve(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        path = urllib.parse.unquote(parts.path)
        try:
            body = self._body()
            if self.server.api.store.closed:
                self.close_connection = True
                raise errors.ApiError(503, "ServiceUnavailable", "the API server is stopping")
            fixed = _fixed(path) if self.command == "GET" else None
            if fixed is not None:
                self._send(fixed)
                return
            target = routes.target(path)
            if self.command == "GET" and query.get("watch") in ("true", "1"):
                self._stream(self.server.api.watch(target, query))
                return
            self._send(self._answer(target, query, body))
        except (errors.KproxyError, ExceptionGroup) as error:
            self._send_failure(error)
        except OSError:
            self.close_connection = True
        except Exception as error:
            self.server.log.error("request failed", path=self.path, error=repr(error))
            self._send_failure(error)

    def _answer(self, target: routes.Target, query: dict[str, str], body: bytes) -> Answer:
        api, one = self.server.api, bool(target.name)
        match self.command:
            case "GET" if one:
                return api.get(target)
            case "GET":
                return api.list(target, query)
            case "POST" if not one:
                return api.create(target, body)
            case "PUT" if one:
                return api.replace(target, body)
            case "PATCH" if one:
                kind = self.headers.get("Content-Type", "").partition(";")[0].strip()
                if kind != "application/merge-patch+json":
                    message = f"patch type {kind!r}: send application/merge-patch+json"
                    raise errors.ApiError(415, "UnsupportedMediaType", message)
                return api.merge_patch(target, body)
            case "DELETE" if one and not target.subresource:
                return api.delete(target, query, body)
        message = "the server does not allow this method on the requested resource"
        raise errors.ApiError(405, "MethodNotAllowed", message)

    def _body(self) -> bytes:
        """Read the body. Raises ApiError; then the rest of the connection cannot be read."""
        length = self.headers.get("Content-Length", "0")
        if self.headers.get("Transfer-Encoding") or not length.isdigit():
            self.close_connection = True
            raise errors.ApiError(411, "BadRequest", "send a body with Content-Length")
        if int(length) > LARGEST_BODY:
            self.close_connection = True
            message = f"the body is larger than {LARGEST_BODY} bytes"
            raise errors.ApiError(413, "RequestEntityTooLarge", message)
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise ConnectionError("the client went away within a request")
        return body

    def _send_failure(self, error: Exception) -> None:
        answer = status.failure(error)
        self._send(Answer(answer["code"], _encode(answer)))

    def _send(self, answer: Answer) -> None:
        self.send_response_only(answer.code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
        self.wfile.flush()

    def _stream(self, lines: Iterable[bytes]) -> None:
        """Send a watch as chunks until it ends or the client goes away."""
        self.send_response_only(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        for line in lines:
            if line:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
                self.wfile.flush()
            elif self._client_is_gone():
                self.close_connection = True
                return
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _client_is_gone(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)


def _fixed(path: str) -> Answer | None:
    """Answer what has nothing to do with objects: health, version, discovery."""
    if path in ("/healthz", "/readyz", "/livez"):
        return Answer(200, b'"ok"')
    document = _discovery(path.rstrip("/"))
    return None if document is None else Answer(200, _encode(document))


def _discovery(path: str) -> dict[str, Any] | None:
    versions = {kind.api_version for kind in kinds.known()}
    if path == "/version":
        return dict(VERSION)
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = [_group(version) for version in sorted(versions) if "/" in version]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    version = path.removeprefix("/apis/" if path.startswith("/apis/") else "/api/")
    if version not in versions or path not in (f"/apis/{version}", f"/api/{version}"):
        return None
    known = [_resource(kind) for kind in kinds.known() if kind.api_version == version]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": known}


def _group(api_version: str) -> dict[str, Any]:
    group, _, version = api_version.partition("/")
    preferred = {"groupVersion": api_version, "version": version}
    return {"name": group, "versions": [preferred], "preferredVersion": preferred}


_SHORT_NAMES = {
    kinds.NAMESPACE: ["ns"],
    kinds.NODE: ["no"],
    catalog.POD: ["po"],
    kinds.SERVICE: ["svc"],
    catalog.DAEMON_SET: ["ds"],
    catalog.DEPLOYMENT: ["deploy"],
}


def _resource(kind: kinds.Kind) -> dict[str, Any]:
    return {
        "name": kind.plural,
        "singularName": kind.name.lower(),
        "namespaced": kind.namespaced,
        "kind": kind.name,
        "shortNames": _SHORT_NAMES.get(kind, []),
        "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
    }


def start(
    address: tuple[str, int],
    cidrs: Sequence[addresses.Network],
    log: logs.Log,
    storage: base.Storage | None = None,
) -> Server:
    """Return a server that listens on an address; its :meth:`Server.serve` answers.

    Without a ``storage`` it keeps its objects in memory.
    """
    store = Store(storage or locations.parse("memory")())
    taken = allocations.Allocations(store, cidrs, draw=allocations.generator())
    server = Server(address, Api(store, taken), log)
    allocations.keep_repaired(taken, log)
    return server


def parse_address(text: str) -> tuple[str, int]:
    """Return (host, port) of ``192.0.2.1:6443`` or ``[2001:db8::1]:6443``. Raises UsageError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise errors.UsageError(f"address {text!r}", remedy="give it as address:port")
    return host.strip("[]"), int(port)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="kproxy.controlplane.apiserver")
    parser.add_argument("--bind", default="127.0.0.1:6443", metavar="ADDRESS:PORT")
    parser.add_argument("--service-cidr", default="10.96.0.0/16", metavar="CIDR[,CIDR]")
    parser.add_argument("--store", default="memory", metavar=locations.FORMS)
    options = parser.parse_args(arguments)
    log = logs.Log("apiserver")
    try:
        address = parse_address(options.bind)
        cidrs = addresses.parse_cidrs(options.service_cidr)
        server = start(address, cidrs, log, locations.parse(options.store)())
    except (errors.KproxyError, OSError) as error:
        log.error("cannot start", error=str(error), bind=options.bind)
        return 2
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    log.info("listening", address=options.bind)
    server.serve()
    log.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())

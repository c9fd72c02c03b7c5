"""What kubelets answer on behalf of the API: logs and exec of containers, passed through.

``kubectl logs`` is a GET whose body is handed on as it comes, byte by byte. ``kubectl exec`` of
today changes to a WebSocket, whose bytes are handed on both ways without looking at them. SPDY,
which older kubectls speak, is refused with a word on what to use.
"""

import contextlib
import http.client
import select
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode

from kproxy import errors

from ..presentation import cells
from ..store import Store
from ..versions import Object
from .http1 import Channel, Request, head, notice_absence

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
PORT = 10250
_PIECE = 64 * 1024
TEXT = "text/plain; charset=utf-8"
_LOG_OPTIONS = (
    "follow",
    "limitBytes",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "tailLines",
    "timestamps",
)
_HANDED_ON = ("upgrade", "connection", "origin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """How this server proves itself to kubelets, and whom it believes to be one."""

    certificate: Path
    key: Path
    authority: Path

    def context(self) -> ssl.SSLContext:
        """Return what connections to kubelets are made with. Raises UsageError."""
        try:
            context = ssl.create_default_context(cafile=self.authority)
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ValueError) as error:
            raise errors.UsageError(f"certificates for kubelets: {error}") from None
        return context


class Kubelets:
    """Finds the kubelet of a pod and speaks to it; without TLS where there is no identity."""

    def __init__(self, store: Store, context: ssl.SSLContext | None) -> None:
        self._store = store
        self._context = context

    def open_log(
        self, namespace: str, name: str, query: Mapping[str, str]
    ) -> tuple[socket.socket, bytes]:
        """Return a connection on which a container's log arrives, and what has arrived already.

        That begins with a head for the client; all of it is to be handed on as it is.
        """
        pod = self._store.get("pods", (namespace, name)).obj
        container = _container(pod, query.get("container", ""))
        options = {key: query[key] for key in _LOG_OPTIONS if key in query}
        path = f"/containerLogs/{namespace}/{name}/{container}"
        connection = self._connect(pod, self._place_of(pod))
        request = http.client.HTTPConnection("kubelet")
        request.sock = connection
        try:
            address = f"{quote(path)}?{urlencode(options)}"
            request.request("GET", address, headers={"Connection": "close"})
            response = request.getresponse()
            if response.status >= 300:
                message = response.read(_PIECE).decode(errors="replace").strip()
                raise errors.ApiError(response.status, "BadRequest", message)
            return connection, _head(response) + _buffered(response, connection)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise _unreachable(pod, error) from None
        except errors.ApiError:
            connection.close()
            raise

    def open_exec(self, namespace: str, name: str, request: Request) -> socket.socket:
        """Return a connection to the kubelet on which the client's exec has been asked for."""
        pod = self._store.get("pods", (namespace, name)).obj
        pairs = parse_qsl(request.query, keep_blank_values=True)
        container = _container(pod, dict(pairs).get("container", ""))
        connection = self._connect(pod, self._place_of(pod))
        if request.upgrade() != "websocket":
            connection.close()
            raise _no_spdy(pod, container)
        options = urlencode([(key, value) for key, value in pairs if key != "container"])
        path = f"/exec/{namespace}/{name}/{container}"
        kept = {
            key: value
            for key, value in request.headers.items()
            if key in _HANDED_ON or key.startswith("sec-websocket-")
        }
        lines = [f"GET {quote(path)}?{options} HTTP/1.1", "Host: kubelet"]
        lines += [f"{key}: {value}" for key, value in kept.items()]
        try:
            connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        except OSError as error:
            connection.close()
            raise _unreachable(pod, error) from None
        return connection

    def _place_of(self, pod: Object) -> tuple[str, int]:
        """Return where the kubelet of a pod listens. Raises ApiError 400 if it has none."""
        node = (pod.get("spec") or {}).get("nodeName")
        if not node:
            what = f"pod {pod['metadata']['name']} does not have a host assigned"
            raise errors.ApiError(400, "BadRequest", what)
        return _place(self._store.get("nodes", ("", node)).obj)

    def _connect(self, pod: Object, place: tuple[str, int]) -> socket.socket:
        host, port = place
        try:
            connection = socket.create_connection((host, port), CONNECT_SECONDS)
            notice_absence(connection)
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_hostname=host)
        except OSError as error:
            raise _unreachable(pod, error) from None
        connection.settimeout(ANSWER_SECONDS)
        return connection


def _head(response: http.client.HTTPResponse) -> bytes:
    """Return the head that goes before a kubelet's body, which is framed as the kubelet has it."""
    headers = [("Content-Type", TEXT), ("Connection", "close")]
    for name in ("Transfer-Encoding", "Content-Length"):
        if value := response.headers.get(name):
            headers.append((name, value))
    return head(response.status, headers)


def _buffered(response: http.client.HTTPResponse, connection: socket.socket) -> bytes:
    """Return what has been read of a body together with its head."""
    connection.settimeout(0.0)
    try:
        return bytes(response.fp.peek(1)) if response.fp is not None else b""
    except (BlockingIOError, ssl.SSLWantReadError):
        return b""
    finally:
        connection.settimeout(ANSWER_SECONDS)


def tunnel(
    client: Channel, kubelet: socket.socket, first: bytes = b"", *, listens: bool = False
) -> None:
    """Hand bytes on, both ways, until one side hangs up; ``first`` goes to the client first.

    Of a client that ``listens`` nothing is handed on: to the kubelet it would be one more request,
    and ours.
    """
    with kubelet:
        client.send(first)
        early = b"" if listens else client.take()
        sides: dict[socket.socket, socket.socket] = {
            client.connection: kubelet,
            kubelet: client.connection,
        }
        with contextlib.suppress(OSError):
            if early:
                kubelet.sendall(early)
            while True:
                for side in _ready(list(sides)):
                    side.settimeout(ANSWER_SECONDS)
                    try:
                        data = side.recv(_PIECE)
                    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                        continue
                    if not data:
                        return
                    if listens and side is client.connection:
                        continue
                    sides[side].settimeout(ANSWER_SECONDS)
                    sides[side].sendall(data)


def _ready(sides: list[socket.socket]) -> list[socket.socket]:
    """Return the sides from which something can be read; wait for one."""
    # TLS may have decrypted more than was asked for; the kernel no longer knows of that.
    full: list[socket.socket] = [
        side for side in sides if isinstance(side, ssl.SSLSocket) and side.pending()
    ]
    if full:
        return full
    poll = select.poll()  # select cannot look at the descriptors of a server with many clients
    for side in sides:
        poll.register(side, select.POLLIN)
    ready = {number for number, _ in poll.poll()}
    return [side for side in sides if side.fileno() in ready]


def _place(node: Object) -> tuple[str, int]:
    """Return where the kubelet of a node listens."""
    listed = cells.at(node, "status", "addresses") or ()
    found = {one.get("type"): one.get("address") for one in reversed(listed)}
    host = found.get("InternalIP") or found.get("Hostname")
    if not host:
        message = f"node {node['metadata']['name']} has no address"
        raise errors.ApiError(503, "ServiceUnavailable", message)
    port = cells.at(node, "status", "daemonEndpoints", "kubeletEndpoint", "Port") or PORT
    if type(port) is not int or port not in range(1, 65536):  # nobody checks what a node says
        message = f"node {node['metadata']['name']} has no port of a kubelet: {port!r}"
        raise errors.ApiError(503, "ServiceUnavailable", message)
    return str(host), port


def _container(pod: Object, asked: str) -> str:
    """Return the name of the container that is meant. Raises ApiError 400."""
    spec = pod.get("spec") or {}
    parts = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    names = [part["name"] for part in parts]
    name = pod["metadata"]["name"]
    if asked:
        if asked in names:
            return asked
        message = f"container {asked} is not valid for pod {name}"
        raise errors.ApiError(400, "BadRequest", message)
    if len(spec.get("containers") or ()) == 1:
        return str(spec["containers"][0]["name"])
    message = f"a container name must be specified for pod {name}, choose one of: {names}"
    raise errors.ApiError(400, "BadRequest", message)


def _no_spdy(pod: Object, container: str) -> errors.ApiError:
    """Return what is said to a client that speaks SPDY.

    That may be a newer kubectl whose WebSocket was refused: it tries SPDY next and shows that
    answer only. So what is wrong with the container comes first.
    """
    name = pod["metadata"]["name"]
    for one in cells.at(pod, "status", "containerStatuses") or ():
        if one.get("name") == container and not (one.get("state") or {}).get("running"):
            message = f'container "{container}" in pod "{name}" is not running'
            return errors.ApiError(400, "BadRequest", message)
    message = (
        "exec is served over WebSocket only (kubectl 1.30 and newer speak it); with an older "
        f"kubectl use: kproxy lab exec {name} -- COMMAND"
    )
    return errors.ApiError(400, "BadRequest", message)


def _unreachable(pod: Object, error: Exception) -> errors.ApiError:
    node = (pod.get("spec") or {}).get("nodeName", "")
    message = f"the kubelet of node {node} cannot be reached: {error}"
    return errors.ApiError(502, "ServiceUnavailable", message)

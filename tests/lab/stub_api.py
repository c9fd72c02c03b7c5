"""An API server of a few resources for one proxy: what it is told to hold, and when to answer.

Answers are bytes made beforehand, so that measuring a proxy's start measures the proxy.
"""

import json
import queue
import socket
import threading
from typing import Any

RESOURCES = {
    "Service": "services",
    "EndpointSlice": "endpointslices",
    "Node": "nodes",
    "ServiceCIDR": "servicecidrs",
}


class StubApi:
    """Listens where it is made: the caller's network namespace."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._version = 1
        self._lists: dict[str, bytes] = {}
        self._events: dict[str, list[tuple[int, bytes]]] = {
            name: [] for name in RESOURCES.values()
        }
        self._objects: dict[tuple[str, str], dict[str, Any]] = {}
        self._held: set[str] = set()
        self._cut: set[str] = set()
        self._mute: set[str] = set()
        self._closed = False
        self.posted: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        """What was posted, in order."""
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.put()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        """End it, and all watches."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        # Closing alone would leave the thread in accept(), on a number that another socket gets.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._socket.close()

    def hold(self, *resources: str) -> None:
        """Do not answer lists of these resources until :meth:`release`."""
        with self._changed:
            self._held = set(resources)

    def release(self) -> None:
        """Answer all lists."""
        with self._changed:
            self._held = set()
            self._changed.notify_all()

    def cut(self, resource: str) -> None:
        """End the watch of this resource in the middle of its next event."""
        with self._changed:
            self._cut.add(resource)

    def mute(self, *resources: str) -> None:
        """Tell nothing more by watches of these resources, which stay open; lists are true."""
        with self._changed:
            self._mute = set(resources)
            self._changed.notify_all()

    def put(self, *objects: dict[str, Any]) -> None:
        """Create or change objects."""
        with self._changed:
            for one in objects:
                self._version += 1
                one["metadata"]["resourceVersion"] = str(self._version)
                resource = RESOURCES[one["kind"]]
                key = resource, one["metadata"]["name"]
                kind = "MODIFIED" if key in self._objects else "ADDED"
                self._objects[key] = one
                event = _line({"type": kind, "object": one})
                self._events[resource].append((self._version, event))
            self._relist()

    def delete(self, kind: str, name: str) -> None:
        """Delete an object."""
        with self._changed:
            self._version += 1
            one = self._objects.pop((RESOURCES[kind], name))
            one["metadata"]["resourceVersion"] = str(self._version)
            event = _line({"type": "DELETED", "object": one})
            self._events[RESOURCES[kind]].append((self._version, event))
            self._relist()

    def _relist(self) -> None:
        for resource in RESOURCES.values():
            items = [one for (of, _), one in self._objects.items() if of == resource]
            metadata = {"resourceVersion": str(self._version)}
            self._lists[resource] = json.dumps({"metadata": metadata, "items": items}).encode()
        self._changed.notify_all()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, connection.makefile("rb") as stream:
            try:
                while line := stream.readline():
                    length = 0
                    while header := stream.readline().strip().lower():
                        name, _, value = header.partition(b":")
                        length = int(value) if name == b"content-length" else length
                    method, target = line.decode().split()[:2]
                    if method == "POST":
                        self.posted.put(json.loads(stream.read(length)))
                        connection.sendall(_answer("201 Created", b"{}"))
                        continue
                    path, _, query = target.partition("?")
                    resource = path.rsplit("/", 1)[1]
                    if "watch=1" in query:
                        version = query.partition("resourceVersion=")[2].partition("&")[0]
                        self._watch(connection, resource, int(version))
                        return
                    self._list(connection, resource)
            except OSError:
                return

    def _list(self, connection: socket.socket, resource: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: resource not in self._held or self._closed)
            body = self._lists.get(resource)
        if body is None:
            connection.sendall(_answer("404 Not Found", b'{"kind":"Status","code":404}'))
        else:
            connection.sendall(_answer("200 OK", body))

    def _watch(self, connection: socket.socket, resource: str, version: int) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        events = self._events[resource]
        sent = 0
        while True:
            with self._changed:
                while (len(events) == sent or resource in self._mute) and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                new, sent = events[sent:], len(events)
            for number, line in new:
                if number > version and resource in self._cut:
                    self._cut.discard(resource)
                    connection.sendall(b"%x\r\n%s" % (len(line), line[: len(line) // 2]))
                    return
                if number > version:
                    connection.sendall(b"%x\r\n%s\r\n" % (len(line), line))


def _answer(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode() + b"\n"


def service(name: str, ip: str, port: int = 80, protocol: str = "TCP") -> dict[str, Any]:
    """Return a Service with a ClusterIP."""
    return {
        "kind": "Service",
        "apiVersion": "v1",
        "metadata": {"namespace": "demo", "name": name},
        "spec": {
            "clusterIP": ip,
            "clusterIPs": [ip],
            "ports": [{"name": "p", "port": port, "protocol": protocol}],
        },
    }


def slice_of(
    name: str, *addresses: str, port: int = 8080, protocol: str = "TCP"
) -> dict[str, Any]:
    """Return the EndpointSlice of a Service."""
    return {
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {
            "namespace": "demo",
            "name": f"{name}-abc",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": [address], "conditions": {"ready": True}, "nodeName": "other"}
            for address in addresses
        ],
        "ports": [{"name": "p", "port": port, "protocol": protocol}],
    }

"""Who answers: connections from one namespace to another, told by the address that answered.

Every listener says at which address it was reached and whom it saw, so that a client learns which
endpoint it got, and under which address. ``world`` stands for endpoints on other nodes and for
whatever leaves the node: it answers under any address.
"""

import contextlib
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from netns import namespace

PATIENCE_S = 2.0
OUTSIDE = "198.51.100.7"
REMOTE_POD = "10.128.1.6"
NODE = ("192.168.1.1", "10.20.0.1")
PODS = {"pod5": "10.128.0.5", "client": "10.128.0.100"}
WIRED = PODS | {"outside": OUTSIDE}
PORTS = (80, 8080, 443, 2222)


@dataclass(frozen=True)
class Answer:
    """What a connection met: an endpoint, ``refused``, ``dropped`` or ``passes``."""

    end: str
    masqueraded: bool = False


def _run(commands: str) -> None:
    for line in commands.strip().splitlines():
        subprocess.run(["ip", *line.split()], check=True)


class Surroundings:
    """Pods and the world around a node that is there already."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._names = {name: f"{node}-{name}" for name in (*WIRED, "world")}
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def make(self) -> None:
        """Make the namespaces, wire them, and listen."""
        for name in self._names.values():
            namespace.create(name)
        for name in self._names:
            self._wire(name)
        with namespace.entered(self._node):
            _run(f"""
                addr add {NODE[0]}/24 dev world
                addr add {NODE[1]}/24 dev world
                route add default via 192.168.1.254
            """)
        with namespace.entered(self._names["world"]):
            _run(f"""
                addr add 192.168.1.254/24 dev eth0
                route add local 10.96.0.0/12 dev lo
                route add local 203.0.113.0/24 dev lo
                route add local 10.128.1.0/24 dev lo
                route add default via {NODE[0]}
            """)
            self._listen()
        with namespace.entered(self._names["pod5"]):
            self._listen()

    def _wire(self, name: str) -> None:
        far = self._names[name]
        with namespace.entered(self._node):
            _run(f"link add {name} type veth peer name eth0 netns {far}\nlink set {name} up")
        with namespace.entered(far):
            _run("link set lo up\nlink set eth0 up")
            if address := WIRED.get(name):
                _run(f"""
                    addr add {address}/32 dev eth0
                    route add 10.128.0.1/32 dev eth0
                    route add default via 10.128.0.1
                """)
        if address := WIRED.get(name):
            with namespace.entered(self._node):
                _run(f"addr add 10.128.0.1/32 dev {name}\nroute add {address}/32 dev {name}")

    def _listen(self) -> None:
        for port in PORTS:
            listener = socket.create_server(("0.0.0.0", port), backlog=16)
            self._sockets.append(listener)
            thread = threading.Thread(target=_serve, args=(listener,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Take everything away."""
        for listener in self._sockets:
            # Closing alone would leave the thread in accept().
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for listener in self._sockets:
            listener.close()
        for name in self._names.values():
            if namespace.exists(name):
                namespace.delete(name)

    def connect(self, source: str, address: str, port: int) -> Answer:
        """Connect once; ``source`` is an address of the node, a pod or outside."""
        places = {one: self._names[name] for name, one in WIRED.items()}
        where = places.get(source, self._node)
        with namespace.entered(where), socket.socket() as client:
            client.settimeout(PATIENCE_S)
            if source not in NODE:
                client.bind((source, 0))
            try:
                client.connect((address, port))
                said = json.loads(client.makefile().readline())
            except TimeoutError:
                return Answer("dropped")
            except ConnectionError:
                return Answer("refused")
            own = client.getsockname()[0]
        if said["reached"] == [address, port]:
            return Answer("passes")
        return Answer("{}:{}".format(*said["reached"]), said["saw"] != own)


def _serve(listener: socket.socket) -> None:
    while True:
        try:
            connection, peer = listener.accept()
        except OSError:
            return
        with connection:
            said = {"reached": connection.getsockname(), "saw": peer[0]}
            connection.sendall(json.dumps(said).encode() + b"\n")


@contextlib.contextmanager
def surroundings(node: str) -> Iterator[Surroundings]:
    """Put pods and a world around a node."""
    made = Surroundings(node)
    try:
        made.make()
        yield made
    finally:
        made.close()

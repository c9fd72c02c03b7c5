"""The lab of the benches of modes: hosts, and who answers in them.

::

    client ── node ── pods        the node is made anew for each run
       └────  bare  ────┘         no proxy has ever run there

``pods`` stands for all pods, and has the API server: every address of a pod and of a service is
its own, so that it takes connections to a pod's port, and refuses at once those to a service's
port, which only come to it if no proxy led them elsewhere.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, ip_network
from pathlib import Path

from kproxy.lab.benchcluster import CLUSTER_CIDR, FIRST_PORT, TCP, Cluster, Server, Size
from netns.host import LiveHost
from netns.lab import Lab
from netns.topology import Host, Interface, Link, Route, RouteKind, Topology

PODS, NODE, CLIENT, BARE = "pods", "node", "client", "bare"
SERVICE_CIDR = "10.96.0.0/16"
API_ADDRESS = IPv4Address("198.51.100.1")
"""Of the host ``pods`` whether or not a node is linked to it."""

BARE_POD = IPv4Address("10.255.255.254")
"""The pod to which the client comes by the node without a proxy."""

FREE_POD = IPv4Address("10.255.255.253")
"""A pod of no service. Were it one's, a connection straight to it might have the ports of one
that was translated to it, and be dropped by the node's conntrack."""

ANYWHERE = IPv4Network("0.0.0.0/0")


def topology(*, client: bool = False) -> Topology:
    """Return the hosts that stay: ``pods``, and with a client those that it needs."""
    own = (ip_network(CLUSTER_CIDR), ip_network(SERVICE_CIDR), ip_network(API_ADDRESS))
    local = tuple(Route(to=network, dev="lo", kind=RouteKind.LOCAL) for network in own)
    pods = Host(name=PODS, routes=local)
    if not client:
        return Topology(hosts=(pods,))
    bare = Host(name=BARE, sysctls={"net.ipv4.ip_forward": "1"})
    return Topology(
        hosts=(pods, bare, Host(name=CLIENT)),
        links=(
            _link(2, BARE, PODS, far_to=_network(3), near_to=ANYWHERE),
            _link(3, BARE, CLIENT, far_to=IPv4Network(BARE_POD), near_to=None),
        ),
    )


@contextlib.contextmanager
def fresh_node(lab: Lab, *, client: bool = False) -> Iterator[LiveHost]:
    """A node with nothing in its kernel, between the pods and, if wanted, the client."""
    far = _network(1) if client else None
    links = [_link(0, NODE, PODS, far_to=far, near_to=ANYWHERE)]
    if client:
        links.append(_link(1, NODE, CLIENT, far_to=ANYWHERE, near_to=None))
    lab.add(Host(name=NODE), links=links)
    try:
        yield lab[NODE]
    finally:
        lab.remove(NODE)


def _network(number: int) -> IPv4Network:
    return IPv4Network((int(IPv4Address("192.0.2.0")) + 4 * number, 30))


def _link(
    number: int, near: str, far: str, *, far_to: IPv4Network | None, near_to: IPv4Network | None
) -> Link:
    """Return a link; ``far_to`` is what the far end reaches by it, ``near_to`` what the near."""
    first, second = _network(number).hosts()

    def end(
        host: str, name: str, own: IPv4Address, to: IPv4Network | None, via: IPv4Address
    ) -> Interface:
        routes = (Route(to=to, via=via),) if to else ()
        address = IPv4Interface(f"{own}/30")
        return Interface(host=host, name=name, addresses=(address,), routes=routes)

    return Link(
        a=end(near, f"to-{far}", first, near_to, second),
        b=end(far, f"to-{near}", second, far_to, first),
    )


def cluster(lab: Lab, number: int, size: Size) -> Cluster:
    """Return a cluster of that size, to be entered; ``number`` tells it from others."""
    server = Server(host=lab[PODS], address=str(API_ADDRESS), port=FIRST_PORT + number)
    return Cluster(server, Path(lab.scratch) / f"size{number}", size, TCP)


def listening(pods: LiveHost) -> socket.socket:
    """Return a socket that takes connections to every pod."""
    with pods.entered():
        return socket.create_server(("0.0.0.0", TCP.target), backlog=1024)  # noqa: S104  the lab's namespace only


@contextlib.contextmanager
def answering(pods: LiveHost) -> Iterator[None]:
    """Accept all connections to a pod meanwhile, in a thread."""
    sock = listening(pods)

    def accept() -> None:
        with contextlib.suppress(OSError):  # shut down
            while True:
                sock.accept()[0].close()

    thread = threading.Thread(target=accept, name="pods", daemon=True)
    thread.start()
    try:
        yield
    finally:
        sock.shutdown(socket.SHUT_RDWR)
        thread.join()
        sock.close()

"""Small topologies, packets between hosts, and what a lab must not leave behind."""

import os
import socket
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

from netns.host import LiveHost
from netns.topology import Host, Interface, Link, Route, Segment, Topology

PORT = 9000
TIMEOUT = 5.0
MARK = "NETNS_TEST"


def line() -> Topology:
    """``left`` -- ``router`` -- ``right``, both IP versions."""
    return Topology(
        hosts=(
            Host(name="left", routes=default("192.0.2.1", "2001:db8:a::1")),
            Host(
                name="router",
                sysctls={
                    "net.ipv4.ip_forward": "1",
                    "net.ipv6.conf.all.forwarding": "1",
                    "net.ipv4.conf.toleft.log_martians": "1",
                },
            ),
            Host(name="right", routes=default("198.51.100.1", "2001:db8:b::1")),
        ),
        links=(
            Link(
                a=end("router", "toleft", "192.0.2.1/24", "2001:db8:a::1/64"),
                b=end("left", "eth0", "192.0.2.2/24", "2001:db8:a::2/64"),
            ),
            Link(
                a=end("router", "toright", "198.51.100.1/24", "2001:db8:b::1/64"),
                b=end("right", "eth0", "198.51.100.2/24", "2001:db8:b::2/64"),
            ),
        ),
    )


def lan(*hosts: str) -> Topology:
    """Hosts on one segment, 192.0.2.1 and upwards."""
    members = tuple(
        end(host, "eth0", f"192.0.2.{number}/24", f"2001:db8::{number}/64")
        for number, host in enumerate(hosts, 1)
    )
    return Topology(
        hosts=tuple(Host(name=host) for host in hosts),
        segments=(Segment(name="lan", interfaces=members),),
    )


def pod(name: str, node: str, address: str) -> tuple[Host, Link]:
    """A host with one address behind another host."""
    gateway = ip_address("169.254.1.1")
    link = Link(
        a=Interface(
            host=node,
            name=f"v{name}",
            addresses=(ip_interface("169.254.1.1/32"),),
            routes=(Route(to=ip_network(address)),),
        ),
        b=Interface(
            host=name,
            name="eth0",
            addresses=(ip_interface(address),),
            routes=(Route(to=ip_network("169.254.1.1/32")),),
        ),
    )
    return Host(name=name, routes=(Route(to=ip_network("0.0.0.0/0"), via=gateway),)), link


def end(host: str, name: str, *addresses: str, mtu: int = 1500) -> Interface:
    """An interface, its addresses as text."""
    return Interface(host=host, name=name, addresses=tuple(map(ip_interface, addresses)), mtu=mtu)


def default(*gateways: str) -> tuple[Route, ...]:
    """Default routes, one for each IP version."""
    return tuple(
        Route(
            to=ip_network("0.0.0.0/0" if ip_address(via).version == 4 else "::/0"),
            via=ip_address(via),
        )
        for via in gateways
    )


def udp(address: str) -> socket.socket:
    """A UDP socket bound to an address; any port for the unspecified address."""
    version = ip_address(address).version
    sock = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    sock.settimeout(TIMEOUT)
    sock.bind((address, 0 if ip_address(address).is_unspecified else PORT))
    return sock


def arrives(sender: LiveHost, receiver: LiveHost, address: str, payload: bytes = b"hello") -> str:
    """Send one datagram; the address from which it came. Raises TimeoutError if it gets lost."""
    anywhere = "0.0.0.0" if ip_address(address).version == 4 else "::"
    with receiver.call(udp, address) as inside, sender.call(udp, anywhere) as outside:
        outside.sendto(payload, (address, PORT))
        received, source = inside.recvfrom(65535)
    assert payload == received
    return str(source[0])


def remains(lab: str, state_dir: Path, marker: str) -> list[str]:
    """What there still is of a lab: namespaces, mounts, interfaces, files, marked processes."""
    found = [f"namespace {path}" for path in Path("/run/netns").glob(f"{lab}-*")]
    mounts = Path("/proc/mounts").read_text().splitlines()
    found += [f"mount {each}" for each in mounts if f"/{lab}-" in each]
    found += [
        f"interface {name}" for _, name in socket.if_nameindex() if name.startswith("toleft")
    ]
    found += [f"file {path}" for path in (state_dir, *state_dir.glob("**/*")) if path.exists()]
    return found + [f"process {pid}" for pid in marked(marker)]


def mark(marker: str) -> dict[str, str]:
    """The environment of a process that, with all its offspring, is to be found again."""
    return {**os.environ, MARK: marker}


def marked(marker: str) -> list[int]:
    """The living processes that were started with :func:`mark`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            words = path.read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if f"{MARK}={marker}".encode() in words:
            found.append(int(path.parent.name))
    return found

"""Names of chains and what is said in comments. Pure.

Names are kube-proxy's, so that a node where it ran is adopted: a prefix that tells what the chain
does, and a hash of the identity of its service port or endpoint.
"""

import struct

from kproxy.desired.model import Endpoint, ServicePort

try:
    # The interpreter's own: hashlib loads all of OpenSSL first, which costs 10 ms at every start.
    # Not every version of Python has this one, or the next: mypy finds them nowhere.
    from _sha2 import sha256  # type: ignore[import-not-found]  # since Python 3.12
except ImportError:
    try:
        from _sha256 import sha256  # type: ignore[import-not-found]  # before Python 3.12
    except ImportError:
        from hashlib import sha256

_FIRST_80_BITS = struct.Struct(">QH").unpack_from
"""So much of a hash is in a chain's name: 16 characters, so that it fits the kernel's 28."""

CLUSTER, LOCAL = "KUBE-SVC-", "KUBE-SVL-"
"""Chains that pick an endpoint: of all that are for the policy Cluster, of those for Local."""
EXTERNAL = "KUBE-EXT-"
"""What comes to a node port, an external or a load balancer address."""
FIREWALL = "KUBE-FW-"
"""Which sources may use load balancer addresses."""
ENDPOINT = "KUBE-SEP-"

LABEL_LENGTH_MAX = 180
"""With what else is in a comment this fits the kernel's 255."""

_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_PAIRS = [first + second for first in _BASE32 for second in _BASE32]
_HARMLESS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-./:_")


def hashed(*identity: str) -> str:
    """Return kube-proxy's hash of an identity: the part of a chain's name behind its prefix."""
    # base64.b32encode says the same, but ten times more slowly; every endpoint asks.
    high, low = _FIRST_80_BITS(sha256("".join(identity).encode()).digest())
    return (
        f"{_PAIRS[high >> 54]}{_PAIRS[high >> 44 & 1023]}{_PAIRS[high >> 34 & 1023]}"
        f"{_PAIRS[high >> 24 & 1023]}{_PAIRS[high >> 14 & 1023]}{_PAIRS[high >> 4 & 1023]}"
        f"{_PAIRS[(high & 15) << 6 | low >> 10]}{_PAIRS[low & 1023]}"
    )


def service_hash(service: ServicePort) -> str:
    """Return what the names of all chains of one service port end with."""
    return hashed(str(service.name), service.protocol.lower())


def service_chain(service: ServicePort, *, local: bool = False) -> str:
    """Return the chain that picks an endpoint of a service port (of this node, if ``local``)."""
    return (LOCAL if local else CLUSTER) + service_hash(service)


def endpoint_chain(service: ServicePort, endpoint: Endpoint) -> str:
    """Return the chain that translates to one endpoint of a service port."""
    protocol = service.protocol.lower()
    return ENDPOINT + hashed(str(service.name), protocol, place(endpoint))


def place(endpoint: Endpoint) -> str:
    """Return address and port as ``--to-destination`` takes them."""
    address = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    return f"{address}:{endpoint.port}"


def label(service: ServicePort) -> str:
    """Return the name of a service port for comments.

    An API server gives out nothing but DNS names; should another one do so, its quotes and line
    ends must not become rules, nor its length make the kernel refuse the rules of all others.
    """
    name = str(service.name)
    if not _HARMLESS.issuperset(name):
        name = "".join(letter if letter in _HARMLESS else "?" for letter in name)
    return name[:LABEL_LENGTH_MAX]

"""The words of IP that every kernel library shares. Pure."""

import enum
import ipaddress

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


class Family(enum.IntEnum):
    """An IP version, as ``ipaddress`` numbers it."""

    IPV4 = 4
    IPV6 = 6

    @property
    def af(self) -> int:
        """The kernel's address family (AF_INET, AF_INET6)."""
        return 2 if self is Family.IPV4 else 10

    @property
    def bits(self) -> int:
        """Length of an address in bits."""
        return 32 if self is Family.IPV4 else 128


class Protocol(enum.StrEnum):
    """A transport protocol with ports."""

    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"

    @property
    def number(self) -> int:
        """The protocol's number in the IP header (IANA)."""
        return PROTOCOL_NUMBERS[self]


PROTOCOL_NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132}
PROTOCOLS = {number: protocol for protocol, number in PROTOCOL_NUMBERS.items()}


def with_port(address: IPAddress, port: int) -> str:
    """Return an address with its port, IPv6 in brackets."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def unpacked(address: bytes) -> IPAddress:
    """Return the address of these 4 or 16 bytes."""
    if len(address) == 4:
        return ipaddress.IPv4Address(address)
    return ipaddress.IPv6Address(address)

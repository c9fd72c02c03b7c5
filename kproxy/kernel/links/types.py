"""What the proxy needs to know of network devices. Pure."""

import ipaddress
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from kproxy.errors import KernelError
from kproxy.kernel.inet import IPAddress, IPInterface


class DeviceAddress(NamedTuple):
    """An address and the device that carries it."""

    device: str
    address: IPInterface


Given = IPInterface | IPAddress
"""An address to add or remove; its prefix is the longest (/32, /128) unless it is told."""


class LinksClient(Protocol):
    """What :class:`~kproxy.kernel.links.client.Links` and its fake have in common."""

    def ensure_dummy(self, name: str, addresses: Iterable[Given] = ()) -> None:
        """See to it that there is a dummy device of this name, up, with these addresses at least.

        Addresses are given to a new device before it is brought up: while it is up each addition
        costs more than the one before. KernelError if a device of another kind has this name;
        Unsupported if the kernel has no dummy devices.
        """

    def remove(self, name: str) -> None:
        """Remove the device with its addresses. NotFound."""

    def exists(self, name: str) -> bool:
        """Tell whether there is a device of this name."""

    def is_up(self, name: str) -> bool:
        """Tell whether a device is up. NotFound.

        IPv6 addresses that stay on one that is set down (``keep_addr_on_down``) are not local.
        """

    def addresses(self, name: str) -> frozenset[IPInterface]:
        """Return the addresses of a device, without IPv6 link-local ones. NotFound."""

    def host_addresses(self, name: str) -> frozenset[bytes]:
        """Return those addresses of a device that have the longest prefix, packed. NotFound.

        Many times faster than ``addresses`` where there are thousands.
        """

    def add_addresses(self, name: str, addresses: Sequence[Given]) -> list[KernelError | None]:
        """Give a device addresses; for each None or why not (AlreadyExists).

        NotFound is raised if the device is missing.
        """

    def remove_addresses(self, name: str, addresses: Sequence[Given]) -> list[KernelError | None]:
        """Take addresses away; for each None or why not (NotFound).

        NotFound is raised if the device is missing.
        """

    def local_addresses(self) -> frozenset[DeviceAddress]:
        """Return all addresses of this namespace, without IPv6 link-local ones."""

    def close(self) -> None:
        """Give the socket back."""


def with_prefix(address: Given) -> IPInterface:
    """Return the address with its prefix."""
    if isinstance(address, ipaddress.IPv4Interface | ipaddress.IPv6Interface):
        return address
    # Three times faster than ipaddress.ip_interface(address), which tries and formats.
    if address.version == 4:
        return ipaddress.IPv4Interface((address.packed, 32))
    return ipaddress.IPv6Interface((address.packed, 128))

"""Devices and addresses in memory that refuse what the kernel refuses."""

import errno
from collections.abc import Iterable, Sequence

from kproxy.errors import KernelError, NotFound, Unsupported
from kproxy.kernel.inet import IPInterface
from kproxy.kernel.links.types import DeviceAddress, Given, with_prefix
from kproxy.kernel.netlink import Refusal, kernel_error


class FakeLinks:
    """Implements :class:`~kproxy.kernel.links.types.LinksClient`.

    Faults to order: ``fail_write[n] = errno`` makes the n-th change of an address from now (0 is
    the next) fail; ``no_dummy`` makes the kernel lack dummy devices. ``put`` adds a device of
    another kind, as others make them; ``down`` holds the names of devices that are not up.
    """

    def __init__(self) -> None:
        self.fail_write: dict[int, int] = {}
        self.no_dummy = False
        self.kinds: dict[str, str] = {}
        self.down: set[str] = set()
        self._addresses: dict[str, set[IPInterface]] = {}

    def put(self, name: str, addresses: Iterable[IPInterface] = (), kind: str = "") -> None:
        """Let there be a device (kind "": a physical one) with these addresses."""
        self.kinds[name] = kind
        self._addresses[name] = set(addresses)

    def ensure_dummy(self, name: str, addresses: Iterable[Given] = ()) -> None:
        """See to it that there is a dummy device of this name with these addresses."""
        if name not in self.kinds:
            if self.no_dummy:
                raise Unsupported("this kernel has no dummy devices")
            self.put(name, kind="dummy")
        if self.kinds[name] != "dummy":
            raise KernelError(f"make dummy device {name}", errno.EEXIST, "another device")
        missing = [one for one in addresses if with_prefix(one) not in self._addresses[name]]
        results = self.add_addresses(name, missing)
        self.down.discard(name)
        for result in results:
            if result is not None:
                raise result

    def remove(self, name: str) -> None:
        """Remove the device with its addresses. NotFound."""
        self._of(name)
        del self.kinds[name], self._addresses[name]
        self.down.discard(name)

    def exists(self, name: str) -> bool:
        """Tell whether there is a device of this name."""
        return name in self.kinds

    def is_up(self, name: str) -> bool:
        """Tell whether a device is up. NotFound."""
        self._of(name)
        return name not in self.down

    def addresses(self, name: str) -> frozenset[IPInterface]:
        """Return the addresses of a device. NotFound."""
        return frozenset(filter(_told, self._of(name)))

    def host_addresses(self, name: str) -> frozenset[bytes]:
        """Return those addresses of a device that have the longest prefix, packed. NotFound."""
        return frozenset(
            address.packed
            for address in self._of(name)
            if address.network.prefixlen == address.max_prefixlen and _told(address)
        )

    def add_addresses(self, name: str, addresses: Sequence[Given]) -> list[KernelError | None]:
        """Give a device addresses; for each None or why not (AlreadyExists)."""
        have = self._of(name)
        results: list[KernelError | None] = []
        for given, fault in zip(addresses, self._faults(len(addresses)), strict=True):
            address = with_prefix(given)
            refused = fault or (errno.EEXIST if address in have else 0)
            if not refused:
                have.add(address)
            results.append(_result(f"add address {address} to {name}", refused))
        return results

    def remove_addresses(self, name: str, addresses: Sequence[Given]) -> list[KernelError | None]:
        """Take addresses away; for each None or why not (NotFound)."""
        have = self._of(name)
        results: list[KernelError | None] = []
        for given, fault in zip(addresses, self._faults(len(addresses)), strict=True):
            address = with_prefix(given)
            refused = fault or (0 if address in have else errno.EADDRNOTAVAIL)
            if not refused:
                have.remove(address)
            results.append(_result(f"remove address {address} from {name}", refused))
        return results

    def local_addresses(self) -> frozenset[DeviceAddress]:
        """Return all addresses with their devices."""
        return frozenset(
            DeviceAddress(name, address)
            for name, addresses in self._addresses.items()
            for address in filter(_told, addresses)
        )

    def close(self) -> None:
        """Do nothing."""

    def _of(self, name: str) -> set[IPInterface]:
        if name not in self._addresses:
            raise NotFound(f"look for device {name}", errno.ENODEV, "no such device")
        return self._addresses[name]

    def _faults(self, count: int) -> list[int]:
        """Return the errno ordered for each of the next changes, 0 for none."""
        faults = self.fail_write
        self.fail_write = {at - count: code for at, code in faults.items() if at >= count}
        return [faults.get(at, 0) for at in range(count)]


def _told(address: IPInterface) -> bool:
    """IPv6 link-local addresses, which the kernel makes itself, are left out of every answer."""
    return not (address.version == 6 and address.is_link_local)


def _result(what: str, refused: int) -> KernelError | None:
    if refused == errno.EADDRNOTAVAIL:
        return NotFound(what, refused, "not there")
    return kernel_error(what, Refusal(refused)) if refused else None

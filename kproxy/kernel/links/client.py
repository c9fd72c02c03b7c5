"""Devices and their addresses, through rtnetlink.

Addresses go and come in batches, because a proxy binds one for every service.
"""

import errno
import ipaddress
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from kproxy.errors import AlreadyExists, KernelError, NotFound, Unsupported
from kproxy.kernel import netlink
from kproxy.kernel.attributes import Buffer, attribute, find, nest, text, u32, walk
from kproxy.kernel.client import NetlinkClient
from kproxy.kernel.inet import Family, IPInterface
from kproxy.kernel.links.types import DeviceAddress, Given, with_prefix
from kproxy.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, Refusal

_NEWLINK, _DELLINK, _GETLINK, _NEWADDR, _DELADDR, _GETADDR = 16, 17, 18, 20, 21, 22
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_INFO_KIND = 3, 18, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFF_UP = 1
_IFA_F_NODAD = 0x02

_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_MESSAGE_ADDRESS = struct.Struct("=IHHIIBBBBI")

RawAddress = tuple[int, bytes, int]
"""Index of the device, address, length of the prefix: objects of ``ipaddress`` cost much more."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device as the kernel has it. ``kind`` is empty for a physical one."""

    index: int
    name: str
    kind: str
    up: bool


class Links(NetlinkClient):
    """Devices of the network namespace in which it is first used. Not for two threads.

    Nothing is opened before the first call. Contract:
    :class:`~kproxy.kernel.links.types.LinksClient`.
    """

    def __init__(self) -> None:
        super().__init__(netlink.NETLINK_ROUTE)

    def ensure_dummy(self, name: str, addresses: Iterable[Given] = ()) -> None:
        """See to it that there is a dummy device of this name, up, with these addresses."""
        device = self._find(name)
        if device is None:
            self._create_dummy(name)
            device = self.device(name)
        if device.kind != "dummy":
            what = f"make dummy device {name}"
            kind = device.kind or "physical"
            raise KernelError(
                what, errno.EEXIST, f"a {kind} device has this name", remedy="rename that device"
            )
        there = self._addresses_of(device) if device.up else frozenset()
        missing = [one for one in addresses if not there or with_prefix(one) not in there]
        results = self._change(device, missing, _add_address, "add")
        if not device.up:
            self._bring_up(device)
        for result in results:
            if result is not None and not isinstance(result, AlreadyExists):
                raise result

    def remove(self, name: str) -> None:
        """Remove the device with its addresses. NotFound."""
        device = self.device(name)

        def message(device: Device, sequence: int) -> bytes:
            return _link_message(_DELLINK, 0, device.index, sequence)

        for refusal in self._open().execute([device], message).values():
            raise _translated(f"remove device {name}", refusal)

    def exists(self, name: str) -> bool:
        """Tell whether there is a device of this name."""
        return self._find(name) is not None

    def is_up(self, name: str) -> bool:
        """Tell whether a device is up. NotFound."""
        return self.device(name).up

    def device(self, name: str) -> Device:
        """Return the device of this name. NotFound."""
        found = self._find(name)
        if found is None:
            raise NotFound(f"look for device {name}", errno.ENODEV, "no such device")
        return found

    def addresses(self, name: str) -> frozenset[IPInterface]:
        """Return the addresses of a device, without IPv6 link-local ones. NotFound."""
        return self._addresses_of(self.device(name))

    def host_addresses(self, name: str) -> frozenset[bytes]:
        """Return those addresses of a device that have the longest prefix, packed. NotFound."""
        index = self.device(name).index
        found = self._dump_addresses(index)
        return frozenset(
            packed for at, packed, prefix in found if at == index and prefix == len(packed) * 8
        )

    def add_addresses(self, name: str, addresses: Sequence[Given]) -> list[KernelError | None]:
        """Give a device addresses; for each None or why not (AlreadyExists)."""
        return self._change(self.device(name), addresses, _add_address, "add")

    def remove_addresses(self, name: str, addresses: Sequence[Given]) -> list[KernelError | None]:
        """Take addresses away; for each None or why not (NotFound)."""
        return self._change(self.device(name), addresses, _remove_address, "remove")

    def local_addresses(self) -> frozenset[DeviceAddress]:
        """Return all addresses of this namespace, without IPv6 link-local ones."""
        payload = _LINK.pack(0, 0, 0, 0, 0)
        devices = self._open().dump(_GETLINK, payload, _read_device, "list devices")
        names = {device.index: device.name for device in devices}
        return frozenset(
            DeviceAddress(names[index], _interface(packed, prefix))
            for index, packed, prefix in self._dump_addresses(0)
            if index in names
        )

    def _find(self, name: str) -> Device | None:
        payload = _LINK.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name)
        try:
            return self._open().ask(_GETLINK, payload, _read_device, f"look for device {name}")
        except KernelError as error:
            # EINVAL, ERANGE: no device can have such a name.
            if error.errno in (errno.ENODEV, errno.EINVAL, errno.ERANGE):
                return None
            raise

    def _create_dummy(self, name: str) -> None:
        info = nest(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "dummy"))

        def message(name: str, sequence: int) -> bytes:
            body = text(_IFLA_IFNAME, name) + info
            return _link_message(_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0, sequence, body)

        for refusal in self._open().execute([name], message).values():
            if refusal.errno == errno.EOPNOTSUPP:
                raise Unsupported(
                    "this kernel has no dummy devices",
                    remedy="load the module dummy, or use a kernel that has it",
                )
            raise _translated(f"make dummy device {name}", refusal)

    def _bring_up(self, device: Device) -> None:
        def message(device: Device, sequence: int) -> bytes:
            return _link_message(_NEWLINK, 0, device.index, sequence, state=_IFF_UP)

        for refusal in self._open().execute([device], message).values():
            raise _translated(f"bring device {device.name} up", refusal)

    def _change(
        self,
        device: Device,
        addresses: Sequence[Given],
        pack: Callable[[int, Given, int], bytes],
        verb: str,
    ) -> list[KernelError | None]:
        def message(address: Given, sequence: int) -> bytes:
            return pack(device.index, address, sequence)

        results: list[KernelError | None] = [None] * len(addresses)
        for index, refusal in self._open().execute(addresses, message).items():
            preposition = "to" if verb == "add" else "from"
            address = with_prefix(addresses[index])
            what = f"{verb} address {address} {preposition} {device.name}"
            results[index] = _translated(what, refusal)
        return results

    def _addresses_of(self, device: Device) -> frozenset[IPInterface]:
        found = self._dump_addresses(device.index)
        return frozenset(
            _interface(packed, prefix) for at, packed, prefix in found if at == device.index
        )

    def _dump_addresses(self, index: int) -> list[RawAddress]:
        """Return the addresses; of one device only where the kernel can select (from 4.20)."""
        found: list[RawAddress] = []
        for family in Family:
            payload = _ADDRESS.pack(family.af, 0, 0, 0, index)
            answers = self._open().dump(_GETADDR, payload, _read_address, "list addresses")
            found.extend(answer for answer in answers if answer is not None)
        return found


def _link_message(
    kind: int, flags: int, index: int, sequence: int, body: bytes = b"", state: int = 0
) -> bytes:
    """Return a message about a device; ``state``: flags of the device to set."""
    body = _LINK.pack(0, 0, index, state, state) + body
    length = netlink.HEADER.size + len(body)
    return netlink.HEADER.pack(length, kind, NLM_F_REQUEST | flags, sequence, 0) + body


def _add_address(index: int, address: Given, sequence: int) -> bytes:
    flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL
    return _address_message(_NEWADDR, flags, index, address, sequence)


def _remove_address(index: int, address: Given, sequence: int) -> bytes:
    return _address_message(_DELADDR, NLM_F_REQUEST, index, address, sequence)


def _address_message(kind: int, flags: int, index: int, address: Given, sequence: int) -> bytes:
    packed = address.packed
    body = attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    af = 2
    if address.version == 6:
        # Nobody else can have the address of a service: no need to ask around and wait.
        body += u32(_IFA_FLAGS, _IFA_F_NODAD)
        af = 10
    prefix = len(packed) * 8
    if isinstance(address, ipaddress.IPv4Interface | ipaddress.IPv6Interface):
        prefix = address.network.prefixlen
    head = _MESSAGE_ADDRESS.pack(
        _MESSAGE_ADDRESS.size + len(body), kind, flags, sequence, 0, af, prefix, 0, 0, index
    )
    return head + body


def _read_address(buffer: Buffer, start: int, end: int) -> RawAddress | None:
    """Return an address; None for what the kernel gave itself (IPv6 link-local)."""
    family, prefix, _flags, _scope, index = _ADDRESS.unpack_from(buffer, start)
    local = peer = None
    for kind, begin, stop in walk(buffer, start + _ADDRESS.size, end):
        if kind == _IFA_LOCAL:
            local = bytes(buffer[begin:stop])
        elif kind == _IFA_ADDRESS:
            peer = bytes(buffer[begin:stop])
    # IFA_ADDRESS is the far end of a point-to-point device, otherwise the same, or the only one.
    packed = local or peer
    if packed is None or (family == 10 and packed[0] == 0xFE and packed[1] & 0xC0 == 0x80):
        return None
    return index, packed, prefix


def _interface(packed: bytes, prefix: int) -> IPInterface:
    kind = ipaddress.IPv4Interface if len(packed) == 4 else ipaddress.IPv6Interface
    return kind((packed, prefix))


def _read_device(buffer: Buffer, start: int, end: int) -> Device:
    _family, _type, index, flags, _change = _LINK.unpack_from(buffer, start)
    places = find(buffer, start + _LINK.size, end)
    kind = ""
    if _IFLA_LINKINFO in places:
        info = find(buffer, *places[_IFLA_LINKINFO])
        kind = _text(buffer, info.get(_IFLA_INFO_KIND))
    return Device(index, _text(buffer, places.get(_IFLA_IFNAME)), kind, bool(flags & _IFF_UP))


def _text(buffer: Buffer, place: tuple[int, int] | None) -> str:
    return bytes(buffer[place[0] : place[1]]).rstrip(b"\0").decode() if place else ""


def _translated(what: str, refusal: Refusal) -> KernelError:
    if refusal.errno in (errno.ENODEV, errno.EADDRNOTAVAIL):
        return NotFound(what, refusal.errno, "not there")
    return netlink.kernel_error(what, refusal)

"""Interfaces in namespaces: veth pairs, bridges, and what is configured on them.

Each function works in one namespace through one netlink socket; :mod:`netns.build` puts them in
order. Links are made directly in the two namespaces they join: none is ever seen in the initial
one, so none can be left there.

Every veth end has transmit checksum offload off. With it on, the kernel leaves checksums blank
that no hardware will ever fill in, and whoever reads or crafts packets sees wrong ones.
"""

import array
import contextlib
import errno
import fcntl
import hashlib
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address, ip_address

from pyroute2 import IPRoute
from pyroute2.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_NEWQDISC, TC_H_ROOT
from pyroute2.netlink.rtnl.tcmsg import sched_netem, tcmsg

from netns import addressing, namespace
from netns.errors import NetnsError
from netns.impairment import Impairment
from netns.topology import Interface, InterfaceAddress, Neighbour, Route, RouteKind

BRIDGE = "bridge"

_SIOCETHTOOL = 0x8946
_ETHTOOL_STXCSUM = 0x17
_NTF_MASTER = 0x04
_NUD_NOARP = 0x40  # a bridge takes it as: static, does not age
_NUD_PERMANENT = 0x80
_IFA_F_NODAD = 0x02
_IFA_F_TENTATIVE = 0x40
LOWER_UP = 0x10000  # of an interface's flags: it has a carrier
_RTN_LOCAL = 2
_RTNH_F_ONLINK = 0x04
_FIRST_INDEX = 1000
_NETEM = 0x10000  # the handle 1: of a queueing discipline


@contextlib.contextmanager
def netlink(namespace_name: str) -> Iterator[IPRoute]:
    """The calling thread is in the namespace, with a route netlink socket there.

    Being in it, an interface's index is a cheap :func:`socket.if_nametoindex` away.
    Must not be used in a thread with a running event loop: pyroute2 has one of its own.
    """
    with namespace.entered(namespace_name), IPRoute() as ipr:
        yield ipr


@contextlib.contextmanager
def naming(what: str) -> Iterator[None]:
    """Turn the kernel's refusal into a :class:`NetnsError` that says what was refused."""
    try:
        yield
    except NetlinkError as problem:
        detail = os.strerror(problem.code)
        raise NetnsError(f"{what}: the kernel refuses: {detail}") from problem
    except OSError as problem:
        raise NetnsError(f"{what}: {problem.strerror or problem}") from problem


def create_veth(ipr: IPRoute, here: Interface, there: Interface, peer_namespace: str) -> None:
    """A veth pair, one end here, the other in ``peer_namespace``; both down."""
    with naming(f"link {here}--{there}"):
        ipr.link(
            "add",
            kind="veth",
            index=_distinct_index(),
            ifname=here.name,
            address=here.mac,
            mtu=here.mtu,
            peer={
                "ifname": there.name,
                "address": there.mac,
                "mtu": there.mtu,
                "net_ns_fd": str(namespace.path_of(peer_namespace)),
            },
        )


def create_bridge(ipr: IPRoute, segment: str) -> None:
    """The bridge of a segment, up: no spanning tree, no snooping, ports forward at once."""
    with naming(f"segment {segment}: bridge"):
        ipr.link(
            "add",
            kind="bridge",
            ifname=BRIDGE,
            address=addressing.mac_of(segment, BRIDGE),
            br_stp_state=0,
            br_forward_delay=0,
            br_mcast_snooping=0,
        )
        ipr.link("set", index=socket.if_nametoindex(BRIDGE), state="up")


def port_of(segment: str, member: Interface) -> Interface:
    """The bridge's end of a member's link, named by a hash: two names do not fit in 15 bytes."""
    digest = hashlib.blake2b(str(member).encode(), digest_size=6).hexdigest()
    return Interface(
        host=segment,
        name=f"p-{digest}",
        mac=addressing.mac_of(segment, str(member)),
        mtu=member.mtu,
        impairment=member.impairment,
    )


def join_bridge(ipr: IPRoute, port: Interface, member: Interface) -> None:
    """Make an interface a port of the bridge, up, with the member's MAC in its table for good.

    (A bridge floods what it has not learnt; that would be seen as traffic by everybody else.)
    """
    with naming(f"segment {port.host}: port of {member}"):
        bridge = socket.if_nametoindex(BRIDGE)
        index = socket.if_nametoindex(port.name)
        ipr.link("set", index=index, master=bridge, state="up")
        ipr.fdb("add", ifindex=index, lladdr=member.mac, flags=_NTF_MASTER, state=_NUD_NOARP)


def delete(ipr: IPRoute, name: str) -> None:
    """Delete an interface, and with a veth its other end, now. Absent is fine."""
    with naming(f"interface {name}"):
        for index in ipr.link_lookup(ifname=name):
            try:
                ipr.link("del", index=index)
            except NetlinkError as problem:
                if problem.code != errno.ENODEV:
                    raise


def bring_up(ipr: IPRoute, interface: Interface) -> None:
    """Checksum offload off, then up. A card is left to do what it can."""
    with naming(f"interface {interface}"):
        if interface.uplink is None:
            _checksum_offload_off(interface.name)
        ipr.link("set", index=socket.if_nametoindex(interface.name), state="up")


def impair(ipr: IPRoute, name: str, impairment: Impairment | None) -> None:
    """Impair what an interface sends, in place of what did so before; None: nothing any more."""
    with naming(f"interface {name}: impairment"):
        index = socket.if_nametoindex(name)
        if impairment is not None:
            try:
                _replace_netem(ipr, index, impairment)
            except NetlinkError as problem:
                if problem.code != errno.ENOENT:
                    raise
                remedy = "load the module sch_netem, or use a kernel that has it"
                text = f"interface {name}: impairment: this kernel has no netem"
                raise NetnsError(text, remedy=remedy) from problem
            return
        try:
            ipr.tc("del", index=index, root=True)
        except NetlinkError as problem:
            if problem.code not in (errno.ENOENT, errno.EINVAL):  # there was none
                raise


def _replace_netem(ipr: IPRoute, index: int, impairment: Impairment) -> None:
    """Not by ``ipr.tc``, which takes netem's rate for an attribute of all disciplines."""
    message = tcmsg()
    message["index"] = index
    message["handle"] = _NETEM
    message["parent"] = TC_H_ROOT
    options = sched_netem.get_parameters(impairment.netem())
    message["attrs"] = [("TCA_KIND", "netem"), ("TCA_OPTIONS", options)]
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE
    sequence = ipr.addr_pool.alloc()
    ipr.put(message, RTM_NEWQDISC, flags, msg_seq=sequence)
    list(ipr.get(msg_seq=sequence))  # the acknowledgement, or NetlinkError


def set_state(ipr: IPRoute, name: str, *, up: bool) -> None:
    """Switch an interface on or off; off, a veth's other end loses its carrier: a pulled cable."""
    with naming(f"interface {name}"):
        index = socket.if_nametoindex(name)
        ipr.link("set", index=index, state="up" if up else "down")


def bring_up_loopback(ipr: IPRoute) -> None:
    """First of all: IPVS refuses destinations in a namespace whose ``lo`` is down."""
    ipr.link("set", index=1, state="up")


def carrier_up(ipr: IPRoute, names: Iterable[str]) -> bool:
    """Whether packets pass: an interface drops what is sent before its operational state is up."""
    wanted = set(names)
    for message in ipr.get_links():
        if message.get("ifname") in wanted and message.get("operstate") == "UP":
            wanted.remove(message.get("ifname"))
    return not wanted


def card_up(ipr: IPRoute, name: str) -> bool:
    """Whether a card has a carrier. Some drivers never say more than that."""
    for message in ipr.get_links():
        if message.get("ifname") == name:
            lower_up = bool(message["flags"] & LOWER_UP)
            return lower_up and message.get("operstate") in ("UP", "UNKNOWN")
    return False


def addresses_usable(ipr: IPRoute, addresses: Iterable[IPv6Address]) -> bool:
    """Whether IPv6 packets to these addresses arrive, and no address is tentative any more.

    The kernel has an address before it has the local route to it, which a worker adds: until
    then packets are dropped as somebody else's.
    """
    local = {
        ip_address(message.get("dst"))
        for message in ipr.get_routes(family=socket.AF_INET6)
        if message["type"] == _RTN_LOCAL
    }
    return set(addresses) <= local and not any(
        (message.get("flags") or message["flags"]) & _IFA_F_TENTATIVE
        for message in ipr.get_addr(family=socket.AF_INET6)
    )


def add_address(ipr: IPRoute, interface: Interface, address: InterfaceAddress) -> None:
    """An address of an interface; IPv6 without duplicate address detection."""
    flags = {"flags": _IFA_F_NODAD} if address.version == 6 else {}
    with naming(f"interface {interface}: address {address}"):
        ipr.addr(
            "add",
            index=socket.if_nametoindex(interface.name),
            address=str(address.ip),
            prefixlen=address.network.prefixlen,
            **flags,
        )


def set_neighbour(ipr: IPRoute, host: str, neighbour: Neighbour) -> None:
    """A permanent neighbour entry; one that is there already is replaced."""
    with naming(f"host {host}: neighbour {neighbour.address}"):
        ipr.neigh(
            "replace",
            dst=str(neighbour.address),
            lladdr=neighbour.mac,
            ifindex=socket.if_nametoindex(neighbour.dev),
            state=_NUD_PERMANENT,
        )


def delete_neighbour(ipr: IPRoute, host: str, neighbour: Neighbour) -> None:
    """Delete a neighbour entry. Absent is fine."""
    with naming(f"host {host}: neighbour {neighbour.address}"):
        for index in ipr.link_lookup(ifname=neighbour.dev):
            try:
                ipr.neigh("del", dst=str(neighbour.address), ifindex=index)
            except NetlinkError as problem:
                if problem.code != errno.ENOENT:
                    raise


def set_route(ipr: IPRoute, host: str, route: Route, *, delete: bool = False) -> None:
    """Add or replace a route of the main table, or delete it (absent is fine)."""
    request: dict[str, object] = {
        "dst": str(route.to),
        "family": socket.AF_INET if route.to.version == 4 else socket.AF_INET6,
        "type": str(route.kind),
    }
    if route.kind is RouteKind.LOCAL:
        request["table"] = 255
        request["scope"] = 254
    if route.via is not None:
        request["gateway"] = str(route.via)
    elif route.kind is RouteKind.UNICAST:
        request["scope"] = 253
    with naming(f"host {host}: route to {route.to}"):
        if route.dev is not None:
            request["oif"] = socket.if_nametoindex(route.dev)
        if route.onlink:
            request["flags"] = _RTNH_F_ONLINK
        try:
            ipr.route("del" if delete else "replace", **request)
        except NetlinkError as problem:
            if not (delete and problem.code in (errno.ESRCH, errno.ENOENT)):
                raise


def _distinct_index() -> int:
    """A free interface index far from those that the kernel gives (1, 2, 3 …).

    The kernel notes the carrier of a link at once only if the indexes of the two ends differ
    (``linkwatch_urgent_event``); as the first interfaces of two fresh namespaces they would be
    equal, and the link would be dead for up to a second.
    """
    return max(_FIRST_INDEX, *(index + 1 for index, _ in socket.if_nameindex()))


def _checksum_offload_off(name: str) -> None:
    value = array.array("B", struct.pack("II", _ETHTOOL_STXCSUM, 0))
    request = struct.pack("16sP", name.encode(), value.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCETHTOOL, request.ljust(40, b"\0"))

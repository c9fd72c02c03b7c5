"""The kernel's connection tracking table, through nfnetlink (ctnetlink)."""

import errno
import ipaddress
import socket
from collections.abc import Sequence

from kproxy.errors import KernelError, Unsupported
from kproxy.kernel import bulk, inet, netlink, nfnetlink
from kproxy.kernel.attributes import (
    Buffer,
    Records,
    Schema,
    attribute,
    be16,
    be32,
    nest,
    u8,
    u32,
)
from kproxy.kernel.client import NetlinkClient
from kproxy.kernel.conntrack.types import Flow
from kproxy.kernel.inet import PROTOCOLS, Family, IPAddress
from kproxy.kernel.netlink import NLM_F_REQUEST

_GET, _DELETE = 1, 2
_TUPLE_ORIG, _TUPLE_REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP_SOURCE = {Family.IPV4: 1, Family.IPV6: 3}
_IP_DESTINATION = {Family.IPV4: 2, Family.IPV6: 4}
_PROTO_NUM, _PROTO_SRC_PORT, _PROTO_DST_PORT = 1, 2, 3
_FILTER_ORIG_FLAGS, _FILTER_REPLY_FLAGS = 1, 2
_FILTER_BY_PROTOCOL = 1 << 3

_KIND_GET = nfnetlink.message_type(nfnetlink.SUBSYSTEM_CONNTRACK, _GET)
_KIND_DELETE = nfnetlink.message_type(nfnetlink.SUBSYSTEM_CONNTRACK, _DELETE)


class Conntrack(NetlinkClient):
    """Tracked flows of the network namespace in which it is first used. Not for two threads.

    Nothing is opened before the first call. Methods raise Unsupported if the kernel tracks no
    connections and KernelError if it refuses. Contract:
    :class:`~kproxy.kernel.conntrack.types.ConntrackClient`.
    """

    def __init__(self) -> None:
        super().__init__(netlink.NETLINK_NETFILTER)
        self._readers = {family: _FlowReader(family) for family in Family}

    def supported(self) -> str | None:
        """Return None, or in words why the table cannot be read here."""
        try:
            # SCTP flows are rare: what is asked for is whether the question is understood.
            self.flows(Family.IPV4, inet.Protocol.SCTP)
        except (KernelError, Unsupported) as error:
            return f"tracked connections cannot be read: {error}"
        return None

    def flows(self, family: Family, protocol: inet.Protocol = inet.Protocol.UDP) -> list[Flow]:
        """Return the tracked flows of one protocol."""
        sock = self._open()
        what = f"list tracked {protocol} flows"
        read = self._readers[family].read
        with bulk.collector_paused():
            try:
                found = sock.dump(_KIND_GET, _filtered(family, protocol), read, what)
            except KernelError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise
                # A kernel that cannot filter by protocol alone tells everything.
                found = sock.dump(_KIND_GET, nfnetlink.header(family.af), read, what)
            return [flow for flow in found if flow is not None and flow.protocol is protocol]

    def delete(self, flows: Sequence[Flow]) -> list[KernelError | None]:
        """Forget these flows; return for each None or why not."""
        results: list[KernelError | None] = [None] * len(flows)
        if flows:
            for index, refusal in self._open().execute(flows, _delete).items():
                what = f"forget the flow {flows[index]}"
                results[index] = netlink.kernel_error(what, refusal)
        return results


class _FlowReader:
    """Reads the answers to GET of one family."""

    def __init__(self, family: Family) -> None:
        raw = "4s" if family is Family.IPV4 else "16s"
        one_way: Schema = {
            _TUPLE_IP: {_IP_SOURCE[family]: raw, _IP_DESTINATION[family]: raw},
            _TUPLE_PROTO: {_PROTO_NUM: "B", _PROTO_SRC_PORT: "H", _PROTO_DST_PORT: "H"},
        }
        self._records = Records(
            {_TUPLE_ORIG: one_way, _TUPLE_REPLY: one_way, _ID: "I", _ZONE: "H"}
        )
        self._version: type[IPAddress] = (
            ipaddress.IPv4Address if family is Family.IPV4 else ipaddress.IPv6Address
        )

    def read(self, buffer: Buffer, start: int, end: int) -> Flow | None:
        """Return a flow; None for one of a protocol without ports, or of another family."""
        raw = self._records.read(buffer, start + nfnetlink.HEADER_SIZE, end)
        source, destination, number, sport, dport = raw[0:5]
        reply_source, reply_destination, _number, reply_sport, reply_dport = raw[5:10]
        identity, zone = raw[10:12]
        protocol = PROTOCOLS.get(number)
        if protocol is None or source is None or sport is None:
            return None
        version, ntohs = self._version, socket.ntohs
        return Flow(
            protocol,
            version(source),
            ntohs(sport),
            version(destination),
            ntohs(dport),
            version(reply_source),
            ntohs(reply_sport),
            version(reply_destination),
            ntohs(reply_dport),
            ntohs(zone or 0),
            socket.ntohl(identity or 0),
        )


def _filtered(family: Family, protocol: inet.Protocol) -> bytes:
    """Return the request for the flows of a protocol. Kernels before 5.8 ignore the filter."""
    tuple_filter = nest(_TUPLE_ORIG, nest(_TUPLE_PROTO, u8(_PROTO_NUM, protocol.number)))
    flags = u32(_FILTER_ORIG_FLAGS, _FILTER_BY_PROTOCOL) + u32(_FILTER_REPLY_FLAGS, 0)
    return nfnetlink.header(family.af) + tuple_filter + nest(_FILTER, flags)


def _delete(flow: Flow, sequence: int) -> bytes:
    """Return the message that deletes exactly this flow.

    The original tuple must be there: a request without one would empty the whole table.
    """
    family = Family(flow.source.version)
    addresses = attribute(_IP_SOURCE[family], flow.source.packed)
    addresses += attribute(_IP_DESTINATION[family], flow.destination.packed)
    protocol = u8(_PROTO_NUM, flow.protocol.number)
    protocol += be16(_PROTO_SRC_PORT, flow.source_port)
    protocol += be16(_PROTO_DST_PORT, flow.destination_port)
    body = nest(_TUPLE_ORIG, nest(_TUPLE_IP, addresses), nest(_TUPLE_PROTO, protocol))
    if flow.zone:
        body += be16(_ZONE, flow.zone)
    if flow.id:
        body += be32(_ID, flow.id)
    return nfnetlink.message(_KIND_DELETE, NLM_F_REQUEST, sequence, family.af, body)

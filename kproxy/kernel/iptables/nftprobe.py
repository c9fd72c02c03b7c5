"""Whether the kernel's nf_tables serves an IP family, asked without leaving a trace.

A table is added in a batch that is not brought to its end: the kernel checks every message of it,
answers, and undoes all (``nft --check`` does the same).
"""

import errno
import struct

from kproxy.errors import Unsupported
from kproxy.kernel import netlink, nfnetlink
from kproxy.kernel.attributes import text
from kproxy.kernel.inet import Family

_BATCH_BEGIN = 0x10
_NEWTABLE = 0
_TABLE_NAME = 1

_PASSING = (errno.ENOBUFS, errno.ENOMEM, errno.EINTR, errno.EAGAIN)
"""Refusals that say nothing of nf_tables."""


def supports(family: Family) -> bool:
    """Return whether nf_tables has this family. The kernel loads its module if it can.

    KernelError: it could not be asked. To take that for a no would mean to use the other tool.
    """
    try:
        sock = netlink.NetlinkSocket(netlink.NETLINK_NETFILTER)
    except Unsupported:
        return False
    try:
        refused = sock.execute([None, family], _message)
    finally:
        sock.close()
    for refusal in refused.values():
        if refusal.errno in _PASSING:
            raise netlink.kernel_error("ask for nf_tables", refusal)
    return not refused


def _message(what: Family | None, sequence: int) -> bytes:
    if what is None:
        body = struct.pack("!BBH", 0, 0, nfnetlink.SUBSYSTEM_NFTABLES)
        return netlink.HEADER.pack(20, _BATCH_BEGIN, netlink.NLM_F_REQUEST, sequence, 0) + body
    kind = nfnetlink.message_type(nfnetlink.SUBSYSTEM_NFTABLES, _NEWTABLE)
    flags = netlink.NLM_F_REQUEST | netlink.NLM_F_CREATE
    return nfnetlink.message(kind, flags, sequence, what.af, text(_TABLE_NAME, "kproxy-probe"))

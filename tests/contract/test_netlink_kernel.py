"""The netlink transport against a kernel: answers go to their operations, whatever happens."""

import errno
import ipaddress
import socket
import struct

import pytest

from kproxy.errors import KernelError, NotFound
from kproxy.kernel import attributes, netlink
from kproxy.kernel.links import client as links
from kproxy.kernel.netlink import NetlinkSocket

pytestmark = pytest.mark.kernel

LOOPBACK_INDEX = 1


@pytest.fixture
def sock(request: pytest.FixtureRequest) -> NetlinkSocket:
    opened: NetlinkSocket = request.getfixturevalue("opened")(NetlinkSocket(netlink.NETLINK_ROUTE))
    return opened


def removal(number: int, sequence: int) -> bytes:
    """Message that removes an address which is not there."""
    address = ipaddress.ip_interface(ipaddress.IPv4Address(0x0A000000 + number))
    return links._remove_address(LOOPBACK_INDEX, address, sequence)


def test_more_failures_than_a_small_buffer_holds(sock: NetlinkSocket) -> None:
    """Batches are made as small as the receive buffer demands."""
    sock._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
    room = sock._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    sock._batch_messages = room // netlink._ANSWER_COST
    refused = sock.execute(range(3000), removal)
    assert set(refused) == set(range(3000))
    assert {refusal.errno for refusal in refused.values()} == {errno.EADDRNOTAVAIL}


def test_lost_answers_are_failures(sock: NetlinkSocket) -> None:
    """If the buffer runs over all the same, nothing is called done that may not have been."""
    sock._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 5000)
    refused = sock.execute(range(500), removal)
    assert set(refused) == set(range(500))
    assert {refusal.errno for refusal in refused.values()} == {
        errno.EADDRNOTAVAIL,
        errno.ENOBUFS,
    }
    # The next batch is not confused by what was left over.
    assert set(sock.execute(range(2), removal)) == {0, 1}


def test_single_refusals_are_found_among_successes(sock: NetlinkSocket) -> None:
    addresses = [ipaddress.ip_interface(f"10.0.{n >> 8}.{n & 255}/32") for n in range(1000)]
    twice = [*addresses[:700], addresses[3], *addresses[700:], addresses[999]]

    def addition(address: ipaddress.IPv4Interface, sequence: int) -> bytes:
        return links._add_address(LOOPBACK_INDEX, address, sequence)

    refused = sock.execute(twice, addition)
    assert {at: refusal.errno for at, refusal in refused.items()} == {
        700: errno.EEXIST,
        1001: errno.EEXIST,
    }


def test_words_of_the_kernel_reach_the_error(sock: NetlinkSocket) -> None:
    """Extended acknowledgements, which every kernel since 4.12 gives."""
    label = attributes.text(3, "longer than any name of a device")
    body = struct.pack("=BBBBI", 2, 32, 0, 0, LOOPBACK_INDEX) + label

    def message(_operation: int, sequence: int) -> bytes:
        return netlink.HEADER.pack(16 + len(body), 20, 1, sequence, 0) + body

    (refusal,) = sock.execute([0], message).values()
    assert "Attribute failed policy validation" in refusal.text
    assert str(netlink.kernel_error("add label", refusal)).startswith("add label: ")
    assert refusal.text in str(netlink.kernel_error("add label", refusal))


def test_an_unknown_family_is_not_found(namespace: None) -> None:
    generic = NetlinkSocket(netlink.NETLINK_GENERIC)
    try:
        assert netlink.generic_family(generic, "nlctrl") == 16
        with pytest.raises(NotFound, match="no-such-family"):
            netlink.generic_family(generic, "no-such-family")
    finally:
        generic.close()


def test_a_refused_dump_is_an_error(sock: NetlinkSocket) -> None:
    nonsense = struct.pack("=BBBBI", 2, 0, 0, 0, 4_000_000)
    with pytest.raises(KernelError, match="list nonsense"):
        sock.dump(22, nonsense, lambda *_: None, "list nonsense")


def test_a_message_larger_than_the_send_buffer_is_a_failure(sock: NetlinkSocket) -> None:
    sock._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    big = attributes.attribute(1, bytes(30000))

    def message(_operation: int, sequence: int) -> bytes:
        return netlink.HEADER.pack(16 + len(big), 20, 1, sequence, 0) + big

    (refusal,) = sock.execute([0], message).values()
    assert refusal.errno == errno.EMSGSIZE

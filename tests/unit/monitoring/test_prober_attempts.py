"""Probes over loopback: what is an answer, what is none, and from which port they come."""

import select
import socket
from collections.abc import Iterator

import ports
import pytest

from kproxy.monitoring.prober.attempts import Attempt, Fate, attempt
from kproxy.monitoring.prober.targets import Probe, Target

PATIENCE_MS = 60_000
HERE = "127.0.0.1"


def target(probe: Probe, port: int, address: str = HERE) -> Target:
    protocol = "TCP" if probe is Probe.TCP_CONNECT else "UDP"
    return Target(
        namespace="demo",
        service="web",
        port=port,
        protocol=protocol,
        probe=probe,
        address=address,
    )


def fate_of(one: Attempt, at_once: Fate) -> Fate:
    """Return what becomes of a probe that was begun."""
    fate = at_once
    while fate is Fate.WAITING:
        assert one.sock is not None
        poll = select.poll()
        is_tcp = one.sock.type is socket.SOCK_STREAM
        poll.register(one.sock, select.POLLOUT if is_tcp else select.POLLIN)
        assert poll.poll(PATIENCE_MS), "nothing has come"
        fate = one.look()
    return fate


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((HERE, 0)) as made:
        yield made


@pytest.fixture
def echo() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind((HERE, 0))
        made.settimeout(PATIENCE_MS / 1000)
        yield made


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def test_a_connection_that_is_made_is_an_answer_and_leaves_nothing(
    listener: socket.socket,
) -> None:
    one = attempt(target(Probe.TCP_CONNECT, port_of(listener)))
    for _ in range(2):
        assert fate_of(one, one.begin()) is Fate.ANSWERED
        theirs, _place = listener.accept()
        one.end()
        assert one.sock is None
        with theirs, pytest.raises(ConnectionResetError):
            theirs.recv(1)


def test_a_connection_that_is_refused_is_lost() -> None:
    one = attempt(target(Probe.TCP_CONNECT, ports.unused()))
    assert fate_of(one, one.begin()) is Fate.LOST
    one.close()


@pytest.mark.parametrize("probe", [Probe.TCP_CONNECT, Probe.UDP_FLOW, Probe.UDP_FRESH])
def test_an_address_that_cannot_be_reached_is_lost_and_tried_again(probe: Probe) -> None:
    # An address of a link, without saying of which.
    one = attempt(target(probe, 80, address="fe80::1"))
    for _ in range(2):
        assert one.begin() is Fate.LOST
        one.end()
    one.close()


def test_a_datagram_that_comes_back_is_an_answer(echo: socket.socket) -> None:
    one = attempt(target(Probe.UDP_FLOW, port_of(echo)))
    assert one.begin() is Fate.WAITING
    assert one.look() is Fate.WAITING
    payload, place = echo.recvfrom(2048)
    echo.sendto(b"something else", place)
    echo.sendto(payload, place)
    assert fate_of(one, Fate.WAITING) is Fate.ANSWERED
    one.close()


def test_an_answer_to_an_earlier_probe_is_none(echo: socket.socket) -> None:
    one = attempt(target(Probe.UDP_FLOW, port_of(echo)))
    one.begin()
    late, place = echo.recvfrom(2048)
    one.end()
    assert one.begin() is Fate.WAITING
    echo.sendto(late, place)
    payload, place = echo.recvfrom(2048)
    assert payload != late
    assert one.look() is Fate.WAITING
    echo.sendto(payload, place)
    assert fate_of(one, Fate.WAITING) is Fate.ANSWERED
    one.end()
    assert one.look() is Fate.WAITING, "nothing is outstanding"
    one.close()


def test_a_lasting_flow_keeps_its_port_and_a_fresh_one_does_not(echo: socket.socket) -> None:
    lasting = attempt(target(Probe.UDP_FLOW, port_of(echo)))
    fresh = attempt(target(Probe.UDP_FRESH, port_of(echo)))
    ports: dict[str, list[int]] = {"lasting": [], "fresh": []}
    held = []
    for _ in range(5):
        for name, one in (("lasting", lasting), ("fresh", fresh)):
            assert one.begin() is Fate.WAITING
            ports[name].append(echo.recvfrom(2048)[1][1])
            if name == "fresh":
                # While it is open the kernel cannot give the port away again.
                assert one.sock is not None
                held.append(one.sock.dup())
            one.end()
    assert len(set(ports["lasting"])) == 1
    assert len(set(ports["fresh"])) == 5
    for sock in held:
        sock.close()
    lasting.close()


def test_nobody_listening_is_lost_at_once_and_answers_count_again(echo: socket.socket) -> None:
    port = port_of(echo)
    echo.close()
    one = attempt(target(Probe.UDP_FLOW, port))
    for _ in range(3):
        assert fate_of(one, one.begin()) is Fate.LOST
        one.end()
    assert one.sock is not None
    source = port_of(one.sock)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
        back.bind((HERE, port))
        back.settimeout(PATIENCE_MS / 1000)
        begun = one.begin()
        payload, place = back.recvfrom(2048)
        assert place[1] == source
        back.sendto(payload, place)
        assert fate_of(one, begun) is Fate.ANSWERED
    one.close()


def test_a_refusal_that_nobody_waits_for_does_not_spoil_the_next_probe(
    echo: socket.socket,
) -> None:
    port = port_of(echo)
    echo.close()
    one = attempt(target(Probe.UDP_FLOW, port))
    one.begin()
    one.end()  # its time was up before the refusal was read
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
        back.bind((HERE, port))
        back.settimeout(PATIENCE_MS / 1000)
        assert one.begin() is Fate.WAITING
        payload, place = back.recvfrom(2048)
        back.sendto(payload, place)
        assert fate_of(one, Fate.WAITING) is Fate.ANSWERED
    one.close()

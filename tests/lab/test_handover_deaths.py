"""Whoever of two proxies dies in the middle of the hand-over, the other one goes on."""

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import agent_node
import pytest
from agent_node import Node
from handover_nodes import (
    CHECK_EVERY_S,
    FLAG,
    HealthCheck,
    ended,
    node,
    one_writer,
    synced_to,
)
from stub_api import slice_of

from kproxy.agent import handover, nodelock
from kproxy.agent.handover import Message, Word
from netns import namespace
from netns.wait import wait_until

__all__ = ["node"]

pytestmark = [pytest.mark.lab, pytest.mark.needs_tool("ip", "iptables-legacy-save")]


class Peer:
    """Plays one side of the hand-over, word by word."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.given: list[int] = []

    def say(self, word: Word) -> None:
        self.sock.send(handover.encode(Message(word)))

    def hear(self, word: Word) -> None:
        packet, self.given, _, _ = socket.recv_fds(self.sock, 4096, 16)
        assert handover.decode(packet).word is word

    def die(self) -> None:
        """Close everything at once, as the kernel does for one that is killed."""
        self.sock.close()
        for descriptor in self.given:
            socket.close(descriptor)
        self.given = []


def ready(standby: Peer) -> None:
    standby.say(Word.READY)


def offered(standby: Peer) -> None:
    ready(standby)
    standby.hear(Word.OFFER)


def accepted(standby: Peer) -> None:
    offered(standby)
    standby.say(Word.ACCEPT)


def given(standby: Peer) -> None:
    accepted(standby)
    standby.hear(Word.YOURS)


STEPS = pytest.mark.parametrize("step", [ready, offered, accepted, given])
Step = Callable[[Peer], None]


@STEPS
def test_a_standby_that_dies_leaves_the_old_one_working(node: Node, step: Step) -> None:
    holder = node.start(None, FLAG)
    holder.wait_for("synced", first=True)
    node.await_healthy()
    with HealthCheck(node) as check, _standby(node) as standby:
        step(standby)
        standby.die()
        if step is given:
            assert holder.wait_for("released")
            assert holder.wait_for("holding")["how"] == "successor died"
        node.api.put(slice_of("web", "10.128.1.7"))
        synced_to(holder, node, "10.128.1.7:8080")
        check.await_more(5)
    assert check.failed == []
    # It hands over to the next one as if nothing had been.
    successor = node.start(None, FLAG)
    successor.wait_for("synced", first=True)
    one_writer({holder: ended(holder), successor: ended(successor, signal.SIGTERM)})


@STEPS
def test_a_holder_that_dies_is_succeeded_at_once(node: Node, step: Step) -> None:
    """Whether or not the standby that it spoke with dies, too; here it does."""
    holder = node.start(None, FLAG)
    holder.wait_for("synced", first=True)
    reserve = node.start()
    reserve.wait_for("standby")
    with _standby(node) as standby:
        step(standby)
        ends = {holder: ended(holder, signal.SIGKILL)}
        if step is given:
            # The standby holds the lock: it is not free while that lives.
            assert reserve.pending("holding") == 0
        standby.die()
        assert reserve.wait_for("holding")["how"] == "holder has gone"
    reserve.wait_for("synced", first=True)
    ends[reserve] = ended(reserve, signal.SIGTERM)
    one_writer(ends)


@pytest.mark.parametrize("words", [0, 1, 2])
def test_a_standby_whose_holder_dies_takes_over_at_once(node: Node, words: int) -> None:
    with _holder(node) as listener:
        standby = node.start(None, FLAG)
        standby.wait_for("listed")
        peer = Peer(listener.accept()[0])
        peer.hear(Word.READY)
        if words:
            peer.say(Word.OFFER)
            peer.hear(Word.ACCEPT)
        assert standby.pending("holding") == 0
        if words > 1:
            message = handover.encode(Message(Word.YOURS))
            socket.send_fds(peer.sock, [message], [listener.fileno()])
        listener.close()
        peer.die()
        how = "handed over" if words > 1 else "holder has gone"
        assert standby.wait_for("holding")["how"] == how
    assert standby.wait_for("synced", first=True)["endpoints"] == 2


@pytest.mark.parametrize("words", [0, 1, 2])
def test_a_standby_that_is_killed_gives_back_what_it_has(node: Node, words: int) -> None:
    with _holder(node) as listener:
        standby = node.start(None, FLAG)
        peer = Peer(listener.accept()[0])
        peer.hear(Word.READY)
        if words:
            peer.say(Word.OFFER)
            peer.hear(Word.ACCEPT)
        if words > 1:
            message = handover.encode(Message(Word.YOURS))
            socket.send_fds(peer.sock, [message], [listener.fileno()])
            standby.wait_for("holding")
        standby.end(signal.SIGKILL)
        while peer.sock.recv(4096):  # SYNCED, if it got so far
            pass
        peer.die()
    successor = node.start(None, FLAG)
    assert successor.wait_for("holding")["how"] == "free"


def test_a_killed_proxys_restore_does_not_keep_the_lock(node: Node, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    pid_file = tmp_path / "pid"
    for name in ("iptables-restore", "iptables-legacy-restore", "iptables-nft-restore"):
        stand_in = programs / name
        stand_in.write_text(f"#!/bin/sh\necho $$ > {pid_file}.new\n"
                            f"mv {pid_file}.new {pid_file}\nexec sleep 3600\n")  # fmt: skip
        stand_in.chmod(0o755)
    holder = node.start(programs)
    holder.wait_for("listed")
    wait_until(pid_file.exists, agent_node.PATIENCE_S, "a restore", interval=CHECK_EVERY_S)
    holder.end(signal.SIGKILL)
    successor = node.start()
    assert successor.wait_for("holding")["how"] == "free"
    # It does not write before the program has ended, which it does not do by itself.
    assert successor.pending("synced") == 0
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(_pidfd(int(pid_file.read_text())), signal.SIGKILL)
    successor.wait_for("synced", first=True)


@contextlib.contextmanager
def _standby(node: Node) -> Iterator[Peer]:
    with namespace.entered(node.name):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with sock:
        sock.settimeout(agent_node.PATIENCE_S)
        sock.connect(f"\0{nodelock.NAME}")
        peer = Peer(sock)
        yield peer
        peer.die()


@contextlib.contextmanager
def _holder(node: Node) -> Iterator[socket.socket]:
    with namespace.entered(node.name):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with sock:
        sock.settimeout(agent_node.PATIENCE_S)
        sock.bind(f"\0{nodelock.NAME}")
        sock.listen()
        yield sock


def _pidfd(pid: int) -> int:
    return os.pidfd_open(pid)

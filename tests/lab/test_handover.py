"""Two proxies of one node: one writes, and that changes hands, whoever dies meanwhile."""

import contextlib
import itertools
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import agent_node
import pytest
from agent_node import Node, Proxy
from stub_api import service, slice_of

from kproxy import costfile, costs
from kproxy.agent import handover, nodelock
from kproxy.agent.handover import Message, Word
from netns import namespace

pytestmark = [pytest.mark.lab, pytest.mark.needs_tool("ip", "iptables-legacy-save")]

FLAG = "--make-before-break"
CHECK_EVERY_S = 0.01
HEALTHZ, METRICS, CHECKED = 10256, 10249, 30999


@pytest.fixture(
    params=[
        "iptables",
        pytest.param("ipvs", marks=pytest.mark.needs_module("ip_vs", "dummy", "ip_set")),
    ]
)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    with agent_node.running(tmp_path, request.param) as node:
        node.api.put(service("web", "10.96.0.10"), slice_of("web", "10.128.0.5", "10.128.1.6"))
        yield node


class HealthCheck:
    """Asks a port every 10 ms, each time on a new connection, and keeps what went wrong."""

    def __init__(self, node: Node, port: int = HEALTHZ, path: str = "/healthz") -> None:
        self.asked = 0
        self.failed: list[str] = []
        self._node = node
        self._port = port
        self._path = path
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "HealthCheck":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(CHECK_EVERY_S):
            self.asked += 1
            try:
                answer = self._ask()
            except OSError as error:
                answer = str(error)
            if not answer.startswith("HTTP/1.1 200"):
                self.failed.append(answer)

    def _ask(self) -> str:
        with namespace.entered(self._node.name):
            connection = socket.create_connection(("127.0.0.1", self._port), 30)
        with connection:
            connection.sendall(f"GET {self._path} HTTP/1.1\r\n\r\n".encode())
            return connection.recv(4096).decode()

    def until_answered(self) -> None:
        """Wait until the first answer is as it should be."""
        while not self._works():
            time.sleep(CHECK_EVERY_S)

    def _works(self) -> bool:
        try:
            return self._ask().startswith("HTTP/1.1 200")
        except ConnectionError:
            return False


def events(proxy: Proxy) -> list[dict[str, Any]]:
    return [json.loads(line) for line in proxy.lines if line.startswith("{")]


def holdings(proxy: Proxy, ended_ns: int) -> list[tuple[int, int]]:
    """Return from when to when a proxy that ended at that time held the lock."""
    found, since = [], None
    for event in events(proxy):
        if event["msg"] == "holding":
            since = event["mono_ns"]
        elif event["msg"] == "released":
            assert since is not None
            found.append((since, event["mono_ns"]))
            since = None
    return found if since is None else [*found, (since, ended_ns)]


def one_writer(proxies: dict[Proxy, int]) -> None:
    """Check that no two held the lock at once, and that nobody wrote without it."""
    periods = []
    for proxy, ended_ns in proxies.items():
        own = holdings(proxy, ended_ns)
        for event in events(proxy):
            if event["msg"] == "synced":
                assert any(since <= event["mono_ns"] <= until for since, until in own)
        periods += own
    periods.sort()
    for (_, until), (since, _) in itertools.pairwise(periods):
        assert until <= since, "two held the lock at once"


def ended(proxy: Proxy, number: int = 0) -> int:
    """Wait for the end of a proxy, or bring it about; return when it was, or was begun."""
    if number:
        sent = time.monotonic_ns()
        proxy.end(number)
        return sent
    assert proxy.process.wait(agent_node.PATIENCE_S) == 0, "".join(proxy.lines)
    proxy._reader.join(agent_node.PATIENCE_S)
    return time.monotonic_ns()


PLACES = {costs.START: 0.1, costs.LIST: 0.05, costs.SYNC_ADOPT: 0.2, costs.SYNC_PARTIAL: 0.02}
"""What takes time in reality, in seconds: without it all would happen at once in virtual time."""


def slow(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = tuple(
        costfile.Entry(
            process=costs.PROXY,
            place=place,
            mode="",
            seconds=costfile.Terms(constant=seconds),
            kernel="none",
            machine="none",
            date="2026-01-02",
        )
        for place, seconds in PLACES.items()
    )
    path = directory / "model.json"
    path.write_bytes(costfile.encode(costfile.Model(name="test", entries=entries)))
    monkeypatch.setenv(costs.VARIABLE, str(path))


def test_a_planned_restart_leaves_no_moment_without_a_proxy(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(tmp_path, monkeypatch)
    ends: dict[Proxy, int] = {}
    node.api.put(*_checked_service())
    old = node.start(None, FLAG)
    old.wait_for("synced", first=True)
    checks = [
        HealthCheck(node),
        HealthCheck(node, METRICS, "/metrics"),
        HealthCheck(node, CHECKED, "/"),
    ]
    for check in checks:
        check.until_answered()
    contents = node.contents()
    with contextlib.ExitStack() as stack:
        for check in checks:
            stack.enter_context(check)
        for number in range(3):
            # While it changes hands the world goes on.
            new = node.start(None, FLAG, pod=f"p{number}")
            new.wait_for("standby")
            node.api.put(slice_of("web", "10.128.0.5", f"10.128.1.{number + 7}"))
            first = new.wait_for("synced", first=True)
            ends[old] = ended(old)
            assert events(old)[-1]["msg"] == "stopped"
            gone, taken = _one(old, "released"), _one(new, "holding")
            assert taken["how"] == "handed over"
            assert gone["mono_ns"] <= taken["mono_ns"] <= first["mono_ns"]
            _synced_to(new, node, f"10.128.1.{number + 7}:8080")
            old = new
    assert checks[0].asked > 3 * PLACES[costs.SYNC_ADOPT] / CHECK_EVERY_S / 2
    assert [check.failed for check in checks] == [[], [], []]
    node.api.put(slice_of("web", "10.128.0.5", "10.128.1.6"))
    while node.contents() != contents:
        old.wait_for("synced")
    ends[old] = ended(old, signal.SIGTERM)
    one_writer(ends)


def test_without_the_flag_the_second_waits_for_the_end_of_the_first(node: Node) -> None:
    first = node.start()
    first.wait_for("synced", first=True)
    second = node.start()
    assert second.wait_for("standby")["reserve"] is True
    node.api.put(slice_of("web", "10.128.1.7"))
    first.wait_for("synced")
    assert second.pending("synced") == 0
    ends = {first: ended(first, signal.SIGKILL)}
    assert second.wait_for("holding")["how"] == "holder has gone"
    assert second.wait_for("synced", first=True)["writes"] == 0
    _until_healthy(node)
    ends[second] = ended(second, signal.SIGTERM)
    one_writer(ends)


def test_a_holder_that_is_told_to_stop_hands_over_to_who_waits(node: Node) -> None:
    first = node.start()
    first.wait_for("synced", first=True)
    _until_healthy(node)
    second = node.start()
    second.wait_for("standby")
    with HealthCheck(node) as check:
        ends = {first: ended(first, signal.SIGTERM)}
        assert second.wait_for("holding")["how"] == "handed over"
        second.wait_for("synced", first=True)
        asked = check.asked
        while check.asked < asked + 5:
            time.sleep(CHECK_EVERY_S)
    assert check.failed == []
    ends[second] = ended(second, signal.SIGTERM)
    one_writer(ends)


def test_the_pod_that_handed_over_does_not_ask_for_it_again(node: Node) -> None:
    old = node.start(None, FLAG, pod="old")
    old.wait_for("synced", first=True)
    new = node.start(None, FLAG, pod="new")
    new.wait_for("synced", first=True)
    ended(old)
    restarted = node.start(None, FLAG, pod="old")
    restarted.wait_for("standby")
    node.api.put(slice_of("web", "10.128.1.7"))
    _synced_to(new, node, "10.128.1.7:8080")
    assert restarted.pending("holding") == 0
    new.end(signal.SIGKILL)
    restarted.wait_for("holding")
    restarted.wait_for("synced", first=True)


def test_of_two_standbys_one_takes_over_and_the_other_after_it(node: Node) -> None:
    old = node.start(None, FLAG)
    old.wait_for("synced", first=True)
    node.api.hold("services")
    both = [node.start(None, FLAG), node.start(None, FLAG)]
    for one in both:
        one.wait_for("another proxy writes")
    node.api.release()
    ends = {old: ended(old)}
    # The other one has found out that it was too late, whoever it is.
    while not all(one.pending("synced") or _reserve(one) for one in both):
        time.sleep(CHECK_EVERY_S)
    winner, loser = sorted(both, key=lambda one: one.pending("synced"), reverse=True)
    assert loser.pending("holding") == 0
    ends[winner] = ended(winner, signal.SIGKILL)
    loser.wait_for("holding")
    loser.wait_for("synced", first=True)
    ends[loser] = ended(loser, signal.SIGTERM)
    one_writer(ends)


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
    _until_healthy(node)
    with HealthCheck(node) as check, _standby(node) as standby:
        step(standby)
        standby.die()
        if step is given:
            assert holder.wait_for("released")
            assert holder.wait_for("holding")["how"] == "successor died"
        node.api.put(slice_of("web", "10.128.1.7"))
        _synced_to(holder, node, "10.128.1.7:8080")
        asked = check.asked
        while check.asked < asked + 5:
            time.sleep(CHECK_EVERY_S)
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
    while not pid_file.exists():
        time.sleep(CHECK_EVERY_S)
    holder.end(signal.SIGKILL)
    successor = node.start()
    assert successor.wait_for("holding")["how"] == "free"
    # It does not write before the program has ended, which it does not do by itself.
    assert successor.pending("synced") == 0
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(_pidfd(int(pid_file.read_text())), signal.SIGKILL)
    successor.wait_for("synced", first=True)


def test_a_stuck_holder_is_waited_for(node: Node) -> None:
    holder = node.start(None, FLAG)
    holder.wait_for("synced", first=True)
    holder.process.send_signal(signal.SIGSTOP)
    standby = node.start(None, FLAG)
    standby.wait_for("the holder of the lock does not answer: waiting on")
    assert standby.pending("holding") == 0
    holder.process.send_signal(signal.SIGCONT)
    standby.wait_for("synced", first=True)
    one_writer({holder: ended(holder), standby: ended(standby, signal.SIGTERM)})


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


def _checked_service() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a Service that load balancers ask this node for, and its endpoint here."""
    balanced, local = service("lb", "10.96.0.14"), slice_of("lb", "10.128.0.9")
    balanced["spec"] |= {
        "type": "LoadBalancer",
        "externalTrafficPolicy": "Local",
        "healthCheckNodePort": CHECKED,
    }
    local["endpoints"][0]["nodeName"] = "node1"
    return balanced, local


def _one(proxy: Proxy, msg: str) -> dict[str, Any]:
    (event,) = [event for event in events(proxy) if event["msg"] == msg]
    return event


def _reserve(proxy: Proxy) -> bool:
    return any(event["msg"] == "standby" and event["reserve"] for event in events(proxy))


def _until_healthy(node: Node) -> None:
    while not node.healthz().startswith("HTTP/1.1 200"):
        time.sleep(CHECK_EVERY_S)


def _synced_to(proxy: Proxy, node: Node, text: str) -> None:
    """Wait until the kernel holds something, which this proxy has written."""
    while text not in node.contents():
        proxy.wait_for("synced")

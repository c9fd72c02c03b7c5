"""The loop of probes, with a clock of its own and probes whose fate a test decides."""

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest
from exposition_parser import parse

from kproxy.monitoring.prober.attempts import Attempt, Fate
from kproxy.monitoring.prober.loop import Loop, Terms
from kproxy.monitoring.prober.metrics import ProbeMetrics
from kproxy.monitoring.prober.targets import Probe, Target

TERMS = Terms(period=1.0, timeout=0.25, most=5)


def target(service: str = "web", port: int = 80, address: str = "10.96.0.1") -> Target:
    return Target(
        namespace="demo",
        service=service,
        port=port,
        protocol="TCP",
        probe=Probe.TCP_CONNECT,
        address=address,
    )


class Scripted:
    """A probe without any network: what it comes to is what :attr:`fate` says."""

    sock: socket.socket | None = None
    events = 0

    def __init__(self) -> None:
        self.fate = Fate.WAITING
        self.at_once: Fate | None = None
        self.begun = self.ended = 0
        self.closed = False

    def begin(self) -> Fate:
        self.begun += 1
        return self.at_once or Fate.WAITING

    def look(self) -> Fate:
        return self.fate

    def end(self) -> None:
        self.ended += 1

    def close(self) -> None:
        self.closed = True


@contextlib.contextmanager
def open_many(one: socket.socket) -> Iterator[None]:
    """Give a file many numbers, those that were freed last among them."""
    taken = [os.dup(one.fileno()) for _ in range(8)]
    try:
        yield
    finally:
        for number in taken:
            os.close(number)


class World:
    def __init__(self) -> None:
        self.time = 100.0
        self.attempts: dict[Target, Scripted] = {}
        self.metrics = ProbeMetrics("n1")
        self.loop = Loop(self.metrics, TERMS, make=self._make, now=lambda: self.time)

    def _make(self, one: Target) -> Attempt:
        self.attempts[one] = Scripted()
        return self.attempts[one]

    def until(self, end: float) -> None:
        """Let time pass from one thing that is due to the next."""
        while (due := self.loop.step()) is not None and due <= end:
            assert due > self.time, "it would spin"
            self.time = due
        self.time = end
        self.loop.step()

    def told(self, name: str, **labels: str) -> float:
        samples = parse(self.metrics.registry.text())[name].samples
        whole = {"namespace": "demo", "service": "web", "port": "80", "protocol": "TCP"}
        wanted = {**whole, "probe": "tcp-connect", "node": "n1", **labels}
        suffixed = f"{name}_count" if f"{name}_seconds" and "duration" in name else name
        return samples[suffixed, tuple(sorted(wanted.items()))]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.loop.stop()
    made.loop.run()


def test_each_target_is_probed_once_in_a_period(world: World) -> None:
    world.loop.follow([target(), target(port=81)])
    world.until(110.0)
    assert {one.begun for one in world.attempts.values()} == {10}
    assert world.told("kproxy_probe_sent_total") == 10


def test_a_probe_without_an_answer_in_time_is_lost(world: World) -> None:
    world.loop.follow([target()])
    world.until(101.3)
    assert world.told("kproxy_probe_lost_total") in (1, 2)
    assert world.told("kproxy_probe_duration_seconds") == 0
    (attempt,) = world.attempts.values()
    assert attempt.ended == world.told("kproxy_probe_lost_total")


def test_what_has_come_when_the_time_is_up_is_an_answer(world: World) -> None:
    world.loop.follow([target()])
    world.loop.step()
    (attempt,) = world.attempts.values()
    attempt.fate = Fate.ANSWERED
    world.until(110.0)
    assert world.told("kproxy_probe_lost_total") == 0
    assert world.told("kproxy_probe_duration_seconds") in (9, 10)


@pytest.mark.parametrize("fate", [Fate.ANSWERED, Fate.LOST])
def test_what_is_known_at_once_is_counted_at_once(world: World, fate: Fate) -> None:
    world.loop.follow([target()])
    world.loop.step()
    (attempt,) = world.attempts.values()
    attempt.at_once = fate
    world.until(101.0)
    lost = world.told("kproxy_probe_lost_total")
    answered = world.told("kproxy_probe_duration_seconds")
    assert (lost, answered) == ((1, 0) if fate is Fate.LOST else (0, 1))


def test_what_was_not_sent_while_the_process_did_not_run_is_not_made_up_for(world: World) -> None:
    world.loop.follow([target()])
    world.until(103.0)
    world.time = 160.0
    world.until(163.0)
    assert world.told("kproxy_probe_sent_total") in (6, 7)
    samples = parse(world.metrics.registry.text())["kproxy_prober_lag_seconds"].samples
    late = [
        value
        for (name, labels), value in samples.items()
        if name.endswith("_bucket") and dict(labels)["le"] == "5"
    ]
    assert late == [samples["kproxy_prober_lag_seconds_count", ()] - 1]


def test_a_service_that_is_gone_loses_its_series_and_its_socket(world: World) -> None:
    world.loop.follow([target(), target("other")])
    world.until(102.0)
    world.loop.follow([target("other")])
    world.until(103.0)
    assert 'service="web"' not in world.metrics.registry.text()
    assert world.told("kproxy_probe_sent_total", service="other") == 3
    assert world.attempts[target()].closed
    assert not world.attempts[target("other")].closed
    world.loop.follow([target(), target("other")])
    world.until(103.5)
    assert world.told("kproxy_probe_sent_total") <= 1, "it begins anew"


def test_a_series_lasts_as_long_as_one_of_its_addresses(world: World) -> None:
    six = target(address="fd00::1")
    world.loop.follow([target(), six])
    world.until(101.0)
    assert world.told("kproxy_probe_sent_total") == 2
    world.loop.follow([six])
    world.until(102.0)
    assert world.told("kproxy_probe_sent_total") == 3


def test_a_series_is_there_before_anything_is_sent(world: World) -> None:
    world.loop.follow([target()])
    world.loop.step()
    for name in ("sent_total", "lost_total", "duration_seconds"):
        assert world.told(f"kproxy_probe_{name}") == 0


def test_too_many_targets_are_left_out_and_counted(world: World) -> None:
    world.loop.follow([target(f"s{number}") for number in range(8)])
    world.until(105.0)
    families = parse(world.metrics.registry.text())
    assert families["kproxy_prober_targets"].samples["kproxy_prober_targets", ()] == 5
    name = "kproxy_prober_targets_left_out"
    assert families[name].samples[name, ()] == 3
    assert sorted(one.service for one in world.attempts) == ["s0", "s1", "s2", "s3", "s4"]


def test_timers_do_not_pile_up(world: World) -> None:
    world.loop.follow([target()])
    world.loop.step()
    (attempt,) = world.attempts.values()
    attempt.at_once = Fate.ANSWERED
    world.until(200.0)
    assert len(world.loop._timers) <= 3


def test_news_and_signals_after_its_end_are_written_to_nobody() -> None:
    world = World()
    world.loop.stop()
    world.loop.run()
    ends = socket.socketpair()
    with ends[0], ends[1], open_many(ends[0]):
        world.loop.follow([target()])
        world.loop.stop()
        for end in ends:
            end.setblocking(False)
            with pytest.raises(BlockingIOError):
                end.recv(8)

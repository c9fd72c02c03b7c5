"""What the balancer hands to a backend, and when it ends connections."""

from collections.abc import Collection
from typing import Any

import pytest

from kproxy import logs
from kproxy.backends.base import SyncResult, untold
from kproxy.desired.build import NodeSettings
from kproxy.desired.model import Family, State
from kproxy.errors import KernelError, UsageError
from kproxy.lab import modes
from kproxy.lab.balancing import dead, fronts, kernelside
from kproxy.lab.balancing.health import Probe
from kproxy.lab.balancing.kernelside import Forwarder
from kproxy.proxier import DualStack, Proxier

ADDRESSES = ["192.168.50.201", "192.168.50.202"]
API = fronts.of_api("192.168.49.1", 6443, [(one, 6443) for one in ADDRESSES], "https")


class Recording:
    """A backend that keeps what it was given."""

    name = "recording"

    def __init__(self) -> None:
        self.states: list[State] = []
        self.result = SyncResult(writes=1)

    def sync(self, want: State, planned: Any = untold) -> SyncResult:
        self.states.append(want)
        return self.result

    def left_over(self) -> bool:
        return False

    def close(self) -> None:
        """Do nothing."""


class Judge:
    """Says who is how."""

    def __init__(self) -> None:
        self.well = set(ADDRESSES)
        self.dead: set[str] = set()

    def is_well(self, probe: Probe) -> bool:
        return probe.address in self.well

    def is_dead(self, probe: Probe) -> bool:
        return probe.address in self.dead


class Recorder(dead.Undertaker):
    """Notes whose connections are ended."""

    def __init__(self) -> None:
        self.ended: list[list[str]] = []

    def end(self, places: Collection[dead.Place]) -> list[KernelError]:
        self.ended.append([place.server for place in places])
        return []


class World:
    """A forwarder and what it meets."""

    def __init__(self) -> None:
        self.backend: Any = Recording()
        self.judge, self.undertaker = Judge(), Recorder()
        settings = NodeSettings(family=Family.IPV4, node="edge")
        proxier = DualStack([Proxier(settings, lambda family: self.backend)])
        log = logs.Log("test", "error")
        self.forwarder = Forwarder("ipvs", "edge", {}, log, self.undertaker, proxier)

    def sync(self, *wanted: fronts.Front) -> list[str]:
        self.forwarder.sync({front.key: front for front in wanted}, self.judge)
        return [
            endpoint.address
            for state in self.backend.states[-1].services.values()
            for endpoint in state.cluster
        ]


def test_only_those_who_are_well_are_given_connections() -> None:
    world = World()
    assert world.sync(API) == ADDRESSES
    world.judge.well.remove(ADDRESSES[0])
    assert world.sync(API) == ADDRESSES[1:]
    world.judge.well.clear()
    assert world.sync(API) == []
    assert len(world.backend.states[-1].services) == 1
    world.sync()
    assert not world.backend.states[-1].services


def test_nothing_is_said_anew_when_nothing_has_changed() -> None:
    world = World()
    world.sync(API)
    world.sync(API)
    first, second = world.backend.states
    assert first is second


def test_connections_to_the_dead_are_ended_once_and_again_after_a_resurrection() -> None:
    world = World()
    world.sync(API)
    world.judge.well.remove(ADDRESSES[0])
    world.sync(API)  # unwell, but there: connections go on
    assert world.undertaker.ended == [[], []]
    world.judge.dead.add(ADDRESSES[0])
    world.sync(API)
    world.sync(API)
    assert world.undertaker.ended[2:] == [[ADDRESSES[0]], []]
    world.judge.dead.clear()
    world.judge.well.add(ADDRESSES[0])
    world.sync(API)
    world.judge.well.remove(ADDRESSES[0])
    world.judge.dead.add(ADDRESSES[0])
    world.sync(API)
    assert world.undertaker.ended[-1] == [ADDRESSES[0]]


def test_who_never_was_well_has_no_connections_to_end() -> None:
    world = World()
    world.judge.well.clear()
    world.judge.dead.update(ADDRESSES)
    world.sync(API)
    assert world.undertaker.ended == [[]]


def test_a_sync_that_fails_is_told() -> None:
    world = World()
    world.backend.result = SyncResult(writes=0, failures=(KernelError("x", 1, "no"),))
    with pytest.raises(KernelError):
        world.sync(API)


def test_the_first_mode_that_the_kernel_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = {"ipvs": "no IPVS", "nftables": None, "iptables": None}
    monkeypatch.setattr(modes, "unsupported", reasons.__getitem__)
    log = logs.Log("test", "error")
    assert kernelside.choose_mode(log) == "nftables"
    assert kernelside.choose_mode(log, "iptables") == "iptables"
    with pytest.raises(UsageError, match="ipvs: no IPVS"):
        kernelside.choose_mode(log, "ipvs")

"""What software cannot pull is found out before anything is measured, and left to a hand."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kproxy import errors
from kproxy.lab.cablepull import Cable
from netns.errors import NetnsError, WaitTimeout
from netns.topology import Host, Interface, Link, Topology
from netns.uplink import Uplink

ENDS = (
    Interface(host="node1", name="client1", uplink=Uplink(nic="eth1")),
    Interface(host="client1", name="eth0", uplink=Uplink(nic="eth2")),
)
KEPT = "client1:eth0: it keeps its carrier while node1:client1 is down"


class Lab:
    """A lab of one cable; a carrier comes and goes if ``noticed``."""

    def __init__(self, *, switched: bool = False, noticed: bool = True) -> None:
        self.topology = Topology(
            hosts=(Host(name="node1"), Host(name="client1")), links=(Link(a=ENDS[0], b=ENDS[1]),)
        )
        self.pulls: list[bool] = []
        self._switched = switched
        self._noticed = noticed
        self._clock = itertools.count(1)

    def plug(self, host: str, interface: str, *, connected: bool) -> int:
        assert (host, interface) == ("client1", "eth0")
        self.pulls.append(connected)
        if self._switched:
            raise NetnsError(KEPT, remedy="pull the cable of eth2 by hand")
        return next(self._clock)

    def host(self, name: str) -> "Lab":
        assert name == "client1"
        return self

    @contextlib.contextmanager
    def call(self, watch: object, interface: str) -> Iterator["Lab"]:
        yield self

    def await_state(self, *, up: bool, timeout: float) -> int:
        if not self._noticed:
            raise WaitTimeout(f"waited {timeout:g} s in vain")
        return next(self._clock)


def cable_of(lab: Any, tell: Callable[[str], None]) -> Cable:
    return Cable(lab, "node1", tell)


def test_software_pulls_where_it_can() -> None:
    lab = Lab()
    cable = cable_of(lab, pytest.fail)
    assert lab.pulls == [False, True]
    for move in (cable.pull, cable.plug):
        done, noticed = move()
        assert done != noticed
    assert lab.pulls == [False, True] * 2
    assert cable.end == "client1"


def test_a_hand_is_asked_without_switching_anything_off_under_traffic() -> None:
    said: list[str] = []
    lab = Lab(switched=True)
    cable = cable_of(lab, said.append)
    assert lab.pulls == [False]
    assert cable.pull() == (1, 1)
    assert cable.plug() == (2, 2)
    assert lab.pulls == [False]
    assert said == [
        f"{KEPT}: now pull the cable of eth2 by hand",
        "it was pulled by hand: now plug in the cable of eth2 by hand",
    ]


def test_what_is_not_noticed_is_a_problem_of_the_trial() -> None:
    for lab in (Lab(noticed=False), Lab(switched=True, noticed=False)):
        cable = cable_of(lab, list[str]().append)
        with pytest.raises(errors.MeasurementError, match="in vain"):
            cable.pull()

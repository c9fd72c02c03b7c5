"""What buttons do, on a cluster that notes it, and what they refuse."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from kproxy import errors
from kproxy.lab.clusterfile import parse
from kproxy.lab.dashboard import faults, inside
from kproxy.lab.dashboard.messages import Answer, Fault, Order, Question
from kproxy.lab.site import Site
from kproxy.lab.whole.roles import Role
from netns.errors import NetnsError


class Recorder:
    """Stands in for a cluster, its processes and its API."""

    def __init__(self) -> None:
        self.site = Site(parse("nodes: 2", "lab.yaml"))
        self.acts: list[str] = []
        self.processes = self
        self.api = self
        self.lab: Any = None
        self.broken = False

    def wanted(self) -> list[tuple[str, Role]]:
        return [
            ("edge", Role.BALANCER),
            ("control1", Role.MANAGER),
            ("node1", Role.KUBELET),
            ("node1", Role.PROXY),
            ("node2", Role.PROXY),
        ]

    def _act(self, *words: object) -> None:
        if self.broken:
            raise NetnsError("there is no such host")
        self.acts.append(" ".join(map(str, words)))

    def kill(self, host: str, role: Role) -> tuple[Any, int]:
        self._act("kill", host, role)
        return SimpleNamespace(pid=7), 0

    def pause(self, host: str, role: Role) -> Any:
        self._act("pause", host, role)
        return SimpleNamespace(pid=7)

    def resume(self, host: str, role: Role) -> Any:
        self._act("resume", host, role)
        return SimpleNamespace(pid=7)

    def unplug(self, host: str) -> None:
        self._act("unplug", host)

    def plug(self, host: str) -> None:
        self._act("plug", host)

    def power_off(self, host: str) -> None:
        self._act("power off", host)

    def power_on(self, host: str) -> None:
        self._act("power on", host)

    def delete(self, kind: Any, namespace: str, name: str) -> None:
        self._act("delete", kind.name, namespace, name)


def do(cluster: Any, **order: Any) -> Any:
    return faults.do(cluster, Order(**order))


@pytest.mark.parametrize(
    ("order", "act", "told"),
    [
        ({"fault": Fault.KILL, "host": "node1", "role": "proxy"}, "kill node1 proxy", "killed"),
        ({"fault": Fault.HANG, "host": "node1", "role": "proxy"}, "pause node1 proxy", "stopped"),
        (
            {"fault": Fault.RESUME, "host": "node2", "role": "proxy"},
            "resume node2 proxy",
            "goes on",
        ),
        (
            {"fault": Fault.KILL, "host": "edge", "role": "balancer"},
            "kill edge balancer",
            "killed",
        ),
        ({"fault": Fault.UNPLUG, "host": "node1"}, "unplug node1", "cable pulled"),
        ({"fault": Fault.PLUG, "host": "control1"}, "plug control1", "cable plugged in again"),
        ({"fault": Fault.POWER_OFF, "host": "node1"}, "power off node1", "switched off"),
        ({"fault": Fault.POWER_ON, "host": "node1"}, "power on node1", "switched on"),
        ({"fault": Fault.DELETE, "pod": "shop/front-1"}, "delete Pod shop front-1", "deleted"),
    ],
)
def test_each_button_does_what_it_says(order: dict[str, Any], act: str, told: str) -> None:
    cluster = Recorder()
    event = do(cluster, **order)
    assert cluster.acts == [act]
    assert event.text.startswith(told)
    assert order.get("host") or order["pod"]
    assert (order.get("host") or order["pod"]) in event.about


@pytest.mark.parametrize(
    "order",
    [
        {"fault": Fault.KILL, "host": "node1", "role": "manager"},
        {"fault": Fault.KILL, "host": "elsewhere", "role": "proxy"},
        {"fault": Fault.HANG, "host": "node1"},
        {"fault": Fault.UNPLUG, "host": "edge"},
        {"fault": Fault.POWER_OFF, "host": "admin"},
        {"fault": Fault.UNPLUG, "host": "../node1"},
        {"fault": Fault.DELETE, "pod": "front-1"},
        {"fault": Fault.DELETE, "pod": "shop/"},
        {"fault": Fault.DELETE, "pod": "shop/a/b"},
    ],
)
def test_what_is_not_there_or_would_take_the_page_away_is_refused(order: dict[str, Any]) -> None:
    cluster = Recorder()
    with pytest.raises(errors.UsageError):
        do(cluster, **order)
    assert cluster.acts == []


def attendant(cluster: Any, *, allow: bool) -> inside.Attendant:
    return inside.Attendant(cluster, allow=allow)


def ask(one: inside.Attendant, question: Question) -> Answer:
    return one.answer(msgspec.json.encode(question))


KILL = Question(order=Order(fault=Fault.KILL, host="node1", role="proxy"))


def test_an_order_is_done_and_told() -> None:
    cluster = Recorder()
    answer = ask(attendant(cluster, allow=True), KILL)
    assert answer.done == "proxy on node1: killed (SIGKILL, process 7)"
    assert cluster.acts == ["kill node1 proxy"]


def test_beside_the_lab_no_order_is_done_without_the_option_either() -> None:
    cluster = Recorder()
    assert "--allow-faults" in ask(attendant(cluster, allow=False), KILL).error
    assert cluster.acts == []


def test_what_goes_wrong_is_an_answer() -> None:
    cluster = Recorder()
    cluster.broken = True
    assert ask(attendant(cluster, allow=True), KILL).error == "there is no such host"
    assert attendant(cluster, allow=True).answer(b"nonsense").error.startswith("not understood")

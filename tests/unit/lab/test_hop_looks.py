"""A look at all hosts: who is gone is left out, and who cannot be read is as before."""

import contextlib
import errno
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from kproxy.errors import KernelError, Unsupported
from kproxy.kernel.counters import conntrack, rules
from kproxy.kernel.netlink import NetlinkSocket
from kproxy.lab import hops
from kproxy.lab.hopcounts import NOTHING, HostCounters
from netns.errors import NetnsError
from netns.journal import namespace_name
from netns.topology import Host, Topology

CHANGING = KernelError("read what rules counted", errno.EAGAIN, "kept changing")


class Machine:
    """Namespaces that can be entered, and what reading in them gives, call after call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gone: set[str] = set()
        self.answers: list[HostCounters | Exception] = []
        monkeypatch.setattr(hops.namespace, "entered", self._entered)
        monkeypatch.setattr(hops, "read", self._read)
        monkeypatch.setattr(hops.proc, "backlog_drops", lambda: 0)
        lab: Any = SimpleNamespace(name="lab", topology=Topology(hosts=(Host(name="node1"),)))
        self.hops = hops.Hops(lab, senders={}, routers=["node1"], monitor=False)

    @contextlib.contextmanager
    def _entered(self, name: str) -> Iterator[None]:
        if name in self.gone:
            raise NetnsError("there is no such namespace")
        yield

    def _read(self) -> HostCounters:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def look(self, *answers: HostCounters | Exception) -> dict[str, HostCounters]:
        self.answers += answers
        self.hops._look()
        return dict(self.hops._looks[-1].hosts)


def counted(packets: int) -> HostCounters:
    return NOTHING._replace(protocols={"Udp.NoPorts": packets})


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.mark.parametrize("trouble", [CHANGING, Unsupported("no IPVS"), OSError("busy")])
def test_what_changes_while_it_is_read_is_read_again(machine: Machine, trouble: Exception) -> None:
    assert machine.look(trouble, trouble, counted(3)) == {"node1": counted(3)}


def test_a_host_that_cannot_be_read_has_not_gone_and_begins_not_anew(machine: Machine) -> None:
    """Otherwise all that it has ever counted would be taken for the losses of one interval."""
    machine.look(counted(7))
    assert machine.look(*[CHANGING] * 3) == {"node1": counted(7)}
    assert machine.look(counted(8)) == {"node1": counted(8)}


def test_a_host_that_is_gone_is_left_out(machine: Machine) -> None:
    machine.look(counted(7))
    machine.gone.add(namespace_name("lab", "node1"))
    assert machine.look() == {}


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EINVAL])
@pytest.mark.parametrize("reader", [rules._of_nft, conntrack.conntrack])
def test_rules_that_cannot_be_read_are_not_none(
    monkeypatch: pytest.MonkeyPatch, reader: Any, number: int
) -> None:
    """Only a kernel that has none says that there are none."""

    def dump(*arguments: Any) -> None:
        raise KernelError("read", number, "no")

    monkeypatch.setattr(NetlinkSocket, "dump", dump)
    if number == errno.EAGAIN:
        with pytest.raises(KernelError):
            reader()
    else:
        assert not any(reader())

"""What a result says of the machine and the kernel, also of those that a guest cannot see."""

import os

import pytest

from kproxy.lab import facts
from netns.kernels import base

MEMORY = 2048 * base.MIB


@pytest.fixture(autouse=True)
def no_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(base.GUEST_VARIABLE, raising=False)
    monkeypatch.setenv(facts.HOST_VARIABLE, "")  # so that it is as before afterwards
    monkeypatch.delenv(facts.HOST_VARIABLE)


def test_a_guest_is_told_machine_kernel_memory_and_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = facts.host()
    facts.tell_guest()
    begun = facts.started()
    facts.tell_kernel("6.12-own", MEMORY)
    monkeypatch.setenv(base.GUEST_VARIABLE, "1")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    kernel = facts.kernel()
    assert (kernel["name"], kernel["memory_limit_bytes"]) == ("6.12-own", MEMORY)
    assert kernel["provider"] == "uml"
    assert facts.started() >= begun
    found = facts.host()
    assert found.pop("guest")
    for name in ("guest", "load_average"):  # that moves by itself
        machine.pop(name, None)
        found.pop(name, None)
    assert found == machine


def test_what_a_guest_is_told_is_as_long_whatever_the_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is in its environment moves the memory of its processes, and what they do then."""
    lengths = set()
    for loads in ((0.0, 0.5, 12.0), (3.25634765625, 0.77392578125, 1234.5), (99.999, 1e3, 7.1)):
        monkeypatch.delenv(base.GUEST_VARIABLE, raising=False)
        monkeypatch.setattr("os.getloadavg", lambda told=loads: told)
        facts.tell_guest()
        facts.tell_kernel("6.12-own", MEMORY)
        lengths.add(len(os.environ[facts.HOST_VARIABLE]))
        monkeypatch.setenv(base.GUEST_VARIABLE, "1")
        assert facts.host()["load_average"] == [round(load, 2) for load in loads]
    assert len(lengths) == 1


def test_a_machines_own_kernel_has_no_such_name() -> None:
    facts.tell_guest()
    facts.tell_kernel("6.12-own", MEMORY)
    kernel = facts.kernel()
    assert (kernel["name"], kernel["memory_limit_bytes"]) == (None, None)
    assert kernel["provider"] == "native"


def test_who_was_told_nothing_knows_no_kernel_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    facts.tell_kernel("6.12-own", MEMORY)
    monkeypatch.setenv(base.GUEST_VARIABLE, "1")
    assert facts.kernel()["name"] is None

"""The ways, not only the places: whatever states follow each other, and whatever fails between."""

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import pytest
from examples import examples
from fake_node import FakeNode
from hypothesis import given
from hypothesis import strategies as st

from kproxy.backends.ipvs import render as ipvs_render
from kproxy.desired.model import (
    Address,
    Endpoint,
    Family,
    Prefix,
    Protocol,
    ServicePort,
    ServicePortName,
    ServiceState,
    State,
)
from kproxy.kernel.ipset.types import DelEntry
from kproxy.kernel.ipvs.types import DelDestination, DelService

NAMES = [
    ServicePortName("demo", name, port, protocol)
    for name in ("api", "web")
    for port, protocol in (("a", Protocol.TCP), ("b", Protocol.UDP))
]
PLACES = {"api": "10.96.0.1", "web": "10.96.0.2"}

endpoints = st.builds(
    Endpoint,
    address=st.sampled_from([Address(f"10.128.0.{n}") for n in range(1, 5)]),
    port=st.sampled_from([80, 81]),
    local=st.booleans(),
)


@st.composite
def services(draw: st.DrawFn, name: ServicePortName) -> ServiceState:
    chosen = tuple(
        draw(st.lists(endpoints, max_size=4, unique_by=lambda one: (one.address, one.port)))
    )
    return ServiceState(
        service=ServicePort(
            name=name,
            cluster_ip=Address(PLACES[name.name]),
            port=draw(st.sampled_from([80, 443])) + (name.protocol is Protocol.UDP),
        ),
        cluster=chosen,
        known=chosen,
        anywhere=bool(chosen),
    )


@st.composite
def states(draw: st.DrawFn) -> State:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    return State(
        family=Family.IPV4,
        services={name: draw(services(name)) for name in names},
        cluster_cidrs=(Prefix("10.128.0.0/9"),),
    )


modes = pytest.mark.parametrize("mode", ["ipvs", "iptables", "nftables"])
sequences = st.lists(states(), min_size=1, max_size=5)


def fresh(mode: str, wanted: State) -> FakeNode:
    kernel = FakeNode()
    assert kernel.backend(mode).sync(wanted).failures == ()
    return kernel


@modes
@given(sequence=sequences, restarts=st.sets(st.integers(0, 4)))
def test_every_way_leads_where_the_shortest_does(
    mode: str, sequence: list[State], restarts: set[int]
) -> None:
    kernel = FakeNode()
    backend = kernel.backend(mode)
    for index, wanted in enumerate(sequence):
        if index in restarts:
            backend = kernel.backend(mode)
        result = backend.sync(wanted)
        assert result.failures == ()
    reached, direct = kernel.contents(), fresh(mode, sequence[-1]).contents()
    # A set or device that is there but empty is as good as none.
    assert reached == direct


@modes
@given(sequence=sequences, restart=st.booleans())
def test_twice_the_same_writes_nothing(mode: str, sequence: list[State], restart: bool) -> None:
    kernel = FakeNode()
    backend = kernel.backend(mode)
    for wanted in sequence:
        backend.sync(wanted)
    if restart:
        backend = kernel.backend(mode)
    before = (
        kernel.iptables.restored.copy(),
        kernel.ipvs.written.copy(),
        kernel.ipset.written.copy(),
    )
    assert backend.sync(sequence[-1]).writes == 0
    assert before == (kernel.iptables.restored, kernel.ipvs.written, kernel.ipset.written)


@given(a=states(), b=states())
def test_ipvs_removes_nothing_that_both_states_have(a: State, b: State) -> None:
    kernel = fresh("ipvs", a)
    before = kernel.contents()
    kernel.ipvs.written.clear()
    kernel.ipset.written.clear()
    kernel.backend("ipvs").sync(b)
    after = kernel.contents()
    for op in kernel.ipvs.written:
        if isinstance(op, DelService):
            assert op.service not in after["ipvs"]
        if isinstance(op, DelDestination):
            assert op.destination not in after["ipvs"][op.service].destinations
    for step in kernel.ipset.written:
        if isinstance(step, DelEntry):
            assert step.entry not in after["sets"][step.name]
    assert (
        before["addresses"] & after["addresses"] <= kernel.links.addresses(ipvs_render.DEVICE)
        if after["addresses"]
        else True
    )


@given(a=states(), b=states())
def test_iptables_touches_no_chain_that_both_states_have(a: State, b: State) -> None:
    kernel = fresh("iptables", a)
    before = kernel.contents()["rules"]
    kernel.iptables.restored.clear()
    kernel.backend("iptables").sync(b)
    for change in kernel.iptables.restored:
        after = kernel.contents()["rules"][change.table]
        for name in change.replace:
            assert before[change.table].get(name) != after[name]
        assert not set(change.delete) & after.keys()
        assert change.remove == ()


def fail_ipvs(kernel: FakeNode, at: int) -> None:
    kernel.ipvs.fail_write = {at: 12}


def fail_ipset(kernel: FakeNode, at: int) -> None:
    kernel.ipset.fail_write = {at: 12}


def fail_iptables(kernel: FakeNode, at: int) -> None:
    kernel.iptables.fail_restore = 1


@modes
@pytest.mark.parametrize("fail", [fail_ipvs, fail_ipset, fail_iptables])
@given(a=states(), b=states(), at=st.integers(0, 12))
@examples(50)
def test_the_next_sync_heals_what_failed(
    mode: str, fail: Callable[[FakeNode, int], None], a: State, b: State, at: int
) -> None:
    kernel = fresh(mode, a)
    backend = kernel.backend(mode)
    fail(kernel, at)
    first = backend.sync(b)
    kernel.ipvs.fail_write, kernel.ipset.fail_write, kernel.iptables.fail_restore = {}, {}, 0
    if not first.failures:
        return
    second = backend.sync(b)
    assert second.failures == ()
    assert kernel.contents() == fresh(mode, b).contents()


class Killed(BaseException):
    """What SIGKILL is to a process: nothing of it runs any more."""


WRITES = (
    ("ipset", ("run",)),
    ("iptables", ("restore",)),
    ("ipvs", ("run",)),
    ("links", ("ensure_dummy", "add_addresses", "remove_addresses")),
    ("conntrack", ("delete",)),
)


def kill_at(kernel: FakeNode, operation: int) -> None:
    """Let the process die at its n-th operation, which is not done any more.

    Operations of one transaction count singly: the kernel takes messages one by one. Only a
    change of an iptables table is one, however much is in it.
    """
    left = [operation]

    def dying(write: Callable[..., Any]) -> Callable[..., Any]:
        def maybe(*args: Any) -> Any:
            *place, transaction = args
            if left[0] < len(transaction):
                if left[0]:
                    write(*place, transaction[: left[0]])
                raise Killed
            left[0] -= len(transaction)
            return write(*args)

        return maybe

    for name, methods in WRITES:
        client = getattr(kernel, name)
        for method in methods:
            setattr(client, method, dying(getattr(client, method)))


def revive(kernel: FakeNode) -> None:
    for name, methods in WRITES:
        for method in methods:
            delattr(getattr(kernel, name), method)


@modes
@given(
    a=states(),
    b=states(),
    c=states(),
    operation=st.integers(0, 40),
    at_once=st.sampled_from([None, 1, 3]),
)
def test_a_restart_heals_what_a_kill_between_two_operations_left(
    mode: str, a: State, b: State, c: State, operation: int, at_once: int | None
) -> None:
    kernel = fresh(mode, a)
    kernel.iptables.best = at_once
    kill_at(kernel, operation)
    with contextlib.suppress(Killed):
        kernel.backend(mode).sync(b)
    revive(kernel)
    assert kernel.backend(mode).sync(c).failures == ()
    assert kernel.contents() == fresh(mode, c).contents()


@modes
@given(wanted=states())
def test_cleanup_leaves_what_was_there_before(mode: str, wanted: State) -> None:
    kernel = FakeNode()
    kernel.iptables.load(
        "*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n"
        ":INPUT ACCEPT [0:0]\n:MINE - [0:0]\n-A PREROUTING -j MINE\nCOMMIT\n"
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n"
        '-A INPUT -p tcp -m comment --comment "do not -j KUBE-SERVICES here" -j ACCEPT\n'
        '-A FORWARD -m comment --comment "-g KUBE-FORWARD"\nCOMMIT\n'
    )
    before = copy.deepcopy(kernel.contents())
    backend = kernel.backend(mode)
    backend.sync(wanted)
    assert backend.cleanup() > 0
    after = kernel.contents()
    assert {**before, "sysctl": None} == {**after, "sysctl": None}
    assert kernel.backend(mode).cleanup() == 0

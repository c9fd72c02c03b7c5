"""From every named cluster state to every other, on the kernel; and with a write failing between.

Wherever a node comes from, it ends with exactly what a fresh node would hold. If a write fails on
the way, what both states have in common is there all the time, and the next sync reaches the goal.
One kind of failure is tried for each pair, another one for the next pair; with
``KPROXY_ALL_FAULTS=1`` all of them for every pair.
"""

import dataclasses
import functools
import ipaddress
import itertools
import os
import time
from collections.abc import Iterator
from typing import Any

import cluster_states
import pytest
from faulty import ERRNOS, Faults, Faulty
from fresh_netns import fresh_namespace

from kproxy.backends import base, chains
from kproxy.desired.model import Family
from kproxy.kernel.ipset.client import Ipset
from kproxy.kernel.iptables.client import Iptables
from kproxy.kernel.ipvs.client import IPVS
from kproxy.kernel.links.client import Links

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

MODES = (
    "ipvs",
    pytest.param("iptables", marks=pytest.mark.once),
    pytest.param("nftables", marks=pytest.mark.once),
)
NAMES = tuple(cluster_states.STATES)
DEVICE = "kube-ipvs0"
ONCE = ("links ensure_dummy", "ipset CreateSet")
"""Kinds of writes by which things are made that then stay; see the test of first syncs."""
CLIENTS = ("ipvs", "ipset", "iptables", "links", "nft")


def backend(mode: str, faults: Faults | None = None) -> Any:
    """Return a backend as a proxy that has just started would make it."""
    made: Any = base.loader(mode)(Family.IPV4, base.Options())
    if faults is not None:
        kernel = made._kernel
        wrapped = {
            field.name: Faulty(field.name, getattr(kernel, field.name), faults)
            for field in dataclasses.fields(kernel)
            if field.name in CLIENTS
        }
        assert wrapped
        made._kernel = dataclasses.replace(kernel, **wrapped)
    return made


def contents(mode: str) -> frozenset[str]:
    """Return all of ours that the kernel holds, a line for each thing that can come and go."""
    if mode == "nftables":
        return frozenset(_nft_lines())
    lines = set(_rule_lines())
    if mode == "ipvs":
        lines |= set(_ipvs_lines())
    return frozenset(lines)


def _rule_lines() -> Iterator[str]:
    for table, found in Iptables().save(*chains.TABLES).items():
        for name, chain in found.items():
            yield f"{table} {name}"
            yield from (f"{table} {rule}" for rule in chain.rules)


def _ipvs_lines() -> Iterator[str]:
    ipvs, ipset, links = IPVS(), Ipset(), Links()
    try:
        for service, entry in ipvs.dump().items():
            yield f"{service} {entry.config}"
            yield f"{service}"
            for destination, real in entry.destinations.items():
                yield f"{service} {destination}"
                yield f"{service} {destination} {real.config}"
        for name, one in ipset.dump().items():
            yield from (f"{name} {element}" for element in one.entries)
        if links.exists(DEVICE):
            yield from (f"{DEVICE} {address}" for address in links.addresses(DEVICE))
    finally:
        for client in (ipvs, ipset, links):
            client.close()


def _nft_lines() -> Iterator[str]:
    probe = backend("nftables")
    try:
        table = probe._kernel.nft.read()
    finally:
        probe.close()
    if table is None:
        return
    yield "table"
    yield from (f"set {name} {spec}" for name, spec in table.sets.items())
    for name, chain in table.chains.items():
        yield f"chain {name}"
        yield f"chain {name} {chain}"
    for name, elements in table.elements.items():
        yield from (f"element of {name}: {key!r} {data!r}" for key, data in elements.items())


@functools.cache
def direct(mode: str, name: str) -> frozenset[str]:
    """Return what a fresh node holds in a state."""
    with fresh_namespace():
        fresh = backend(mode)
        try:
            assert fresh.sync(cluster_states.build(name)).failures == ()
            return contents(mode)
        finally:
            fresh.close()


def reach(goes: Any, mode: str, name: str) -> None:
    """Sync to a state and look whether exactly that is there."""
    result = goes.sync(cluster_states.build(name))
    assert result.failures == ()
    assert result.refused == ()
    assert sorted(contents(mode) ^ direct(mode, name)) == []


def removals(faults: Faults) -> set[str]:
    """Return what was taken away, as :func:`contents` writes it."""
    found = set()
    for kind, what in faults.written:
        match kind:
            case "ipvs DelService":
                found.add(f"{what[0].service}")
            case "ipvs DelDestination":
                found.add(f"{what[0].service} {what[0].destination}")
            case "ipset DelEntry":
                found.add(f"{what[0].name} {what[0].entry}")
            case "links remove_addresses":
                found.add(f"{what[0]} {ipaddress.ip_interface(what[1])}")
    return found


def kinds_to_try(seen: list[str], pair: int) -> list[tuple[str, int]]:
    """Return which kinds of writes are to fail, and with which error."""
    again = [kind for kind in seen if kind not in ONCE]
    errors = [(kind, ERRNOS[(pair + at) % len(ERRNOS)]) for at, kind in enumerate(again)]
    if not errors or os.environ.get("KPROXY_ALL_FAULTS"):
        return errors
    return [errors[pair % len(errors)]]


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest, namespace: None) -> str:
    name: str = request.param
    probe = backend(name)
    why = probe.supported()
    probe.close()
    if why is not None:
        pytest.skip(f"needs a kernel that can: {why}")
    return name


@pytest.mark.parametrize("distance", range(1, len(NAMES)))
def test_every_way_leads_there_and_a_failure_is_made_good(mode: str, distance: int) -> None:
    """Walk round all states in steps of a distance: together the tests go every ordered pair.

    The first round is undisturbed, in the second one a write of each way fails.
    """
    goes = backend(mode)
    reach(goes, mode, NAMES[0])
    goes.close()
    seen = [_go(mode, way, restart=bool(at % 2)) for at, way in enumerate(_round(distance))]
    for at, way in enumerate(_round(distance)):
        for kind, error in kinds_to_try(seen[at], at + distance):
            _fail_once(mode, way, Faults(kind=kind, number=error))


@pytest.mark.parametrize("name", ["two services", "load balancer, ranges"])
def test_a_first_sync_of_which_any_write_fails_is_made_good(mode: str, name: str) -> None:
    with fresh_namespace():
        faults = Faults()
        goes = backend(mode, faults)
        reach(goes, mode, name)
        goes.close()
    assert faults.seen
    for at, kind in enumerate(faults.seen):
        with fresh_namespace():
            _fail_once(mode, ("nothing", name), Faults(kind=kind, number=ERRNOS[at % len(ERRNOS)]))


def test_the_rounds_meet_every_pair() -> None:
    pairs = [way for distance in range(1, len(NAMES)) for way in _round(distance)]
    assert len(set(pairs)) == len(pairs) == len(NAMES) * (len(NAMES) - 1)


def _round(distance: int) -> list[tuple[str, str]]:
    """Return the ways of a round; it meets every state once, as their number is prime."""
    count = len(NAMES)
    places = [at * distance % count for at in range(count + 1)]
    return [(NAMES[a], NAMES[b]) for a, b in itertools.pairwise(places)]


def _go(mode: str, way: tuple[str, str], *, restart: bool) -> list[str]:
    """Go a way undisturbed, in one proxy's life or by a new one; return the kinds of writes."""
    # Nothing here ever waits: without this a virtual clock would stand still all the time.
    time.sleep(0.001)
    start, goal = way
    faults = Faults()
    goes = backend(mode, faults)
    if not restart:
        assert goes.sync(cluster_states.build(start)).writes == 0
    faults.written.clear()
    reach(goes, mode, goal)
    assert removals(faults) & direct(mode, start) & direct(mode, goal) == set()
    goes.close()
    return faults.seen


def _fail_once(mode: str, way: tuple[str, str], faults: Faults) -> None:
    start, goal = way
    there: frozenset[str] = frozenset()
    if start in NAMES:
        there = direct(mode, start)
        if os.environ.get("KPROXY_ALL_FAULTS"):
            first = backend(mode)
            reach(first, mode, start)
            first.close()
    goes = backend(mode, faults)
    result = goes.sync(cluster_states.build(goal))
    assert faults.failed, f"{way}: there was no {faults.kind}"
    assert result.failures, f"{way}: {faults.kind} failed and nobody was told"
    common = there & direct(mode, goal)
    assert sorted(common - contents(mode)) == [], f"{way}: {faults.kind}"
    assert removals(faults) & common == set()
    reach(goes, mode, goal)
    goes.close()


def test_what_was_reached_does_not_differ(mode: str) -> None:
    for name in NAMES:
        state = cluster_states.build(name)
        goes = backend(mode)
        goes.sync(state)
        assert list(goes.differences(state)) == [], name
        assert goes.sync(state).writes == 0
        goes.close()

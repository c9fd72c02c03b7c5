"""Which Service gets which address, and who keeps his."""

from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy.api import core
from kproxy.lab.balancing.addresses import Assigned, Pool

RANGES = (ip_network("203.0.113.0/29"), ip_network("fd00:113::/112"))


def service(name: str, *told: str, made: int = 0, **spec: Any) -> core.Service:
    status = {"loadBalancer": {"ingress": [{"ip": one} for one in told]}}
    meta = {"name": name, "namespace": "shop", "creationTimestamp": f"2024-01-01T00:00:{made:02}Z"}
    spec = {"type": "LoadBalancer", "clusterIP": "10.96.0.7", **spec}
    return msgspec.convert({"metadata": meta, "spec": spec, "status": status}, core.Service)


def shown(assigned: Assigned) -> dict[str, list[str]]:
    return {key[1]: [str(one) for one in found] for key, found in assigned.addresses.items()}


def test_the_lowest_free_address_of_each_family() -> None:
    pool = Pool(RANGES)
    both = service("b", made=1, ipFamilies=["IPv6", "IPv4"])
    assert shown(pool.assign([both, service("a")])) == {
        "a": ["203.0.113.1"],
        "b": ["fd00:113::1", "203.0.113.2"],
    }


def test_who_has_an_address_keeps_it_and_who_goes_gives_it_back() -> None:
    pool = Pool(RANGES)
    pool.assign([service("a"), service("b", made=1)])
    assert shown(pool.assign([service("b", made=1)])) == {"b": ["203.0.113.2"]}
    assert shown(pool.assign([service("b", made=1), service("c")])) == {
        "b": ["203.0.113.2"],
        "c": ["203.0.113.1"],
    }


def test_what_statuses_say_is_taken_over() -> None:
    told = service("a", "203.0.113.5", made=9)
    assert shown(Pool(RANGES).assign([told, service("b")])) == {
        "a": ["203.0.113.5"],
        "b": ["203.0.113.1"],
    }


def test_of_two_that_claim_one_address_the_older_keeps_it() -> None:
    old, new = service("z", "203.0.113.5", made=1), service("a", "203.0.113.5", made=2)
    assert shown(Pool(RANGES).assign([new, old])) == {"z": ["203.0.113.5"], "a": ["203.0.113.1"]}


@pytest.mark.parametrize("told", ["198.51.100.7", "203.0.113.0", "203.0.113.7", "nonsense"])
def test_addresses_of_others_are_not_taken_over(told: str) -> None:
    assert shown(Pool(RANGES).assign([service("a", told)])) == {"a": ["203.0.113.1"]}


def test_a_service_may_ask_for_an_address_and_change_its_mind() -> None:
    pool = Pool(RANGES)
    assert shown(pool.assign([service("a", loadBalancerIP="203.0.113.4")]))["a"] == ["203.0.113.4"]
    moved = service("a", "203.0.113.4", loadBalancerIP="203.0.113.3")
    assert shown(pool.assign([moved]))["a"] == ["203.0.113.3"]
    assert shown(pool.assign([moved, service("b", loadBalancerIP="203.0.113.4")])) == {
        "a": ["203.0.113.3"],
        "b": ["203.0.113.4"],
    }


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ("198.51.100.7", "is not in"),
        ("203.0.113.0", "is not in"),
        ("nonsense", "is not in"),
        ("fd00:113::5", "no family"),
        ("203.0.113.1", "belongs to Service shop/first"),
    ],
)
def test_what_cannot_be_asked_for(asked: str, problem: str) -> None:
    pool = Pool(RANGES)
    first = service("first")
    pool.assign([first])
    found = pool.assign([first, service("a", made=1, loadBalancerIP=asked)])
    ((key, fault),) = found.problems
    assert key == ("shop", "a")
    assert problem in str(fault)
    assert shown(found) == {"first": ["203.0.113.1"]}


def test_who_asks_for_what_cannot_be_had_keeps_what_he_has() -> None:
    pool = Pool(RANGES)
    pool.assign([service("a")])
    found = pool.assign([service("a", loadBalancerIP="198.51.100.7")])
    assert found.problems
    assert shown(found) == {"a": ["203.0.113.1"]}


def test_an_empty_range_is_told_and_others_have_theirs() -> None:
    found = Pool(RANGES).assign([service(f"s{number}", made=number) for number in range(7)])
    assert len(found.addresses) == 6
    ((key, fault),) = found.problems
    assert key[1] == "s6"
    assert "no IPv4 address is free" in str(fault)


TOLD = st.lists(st.sampled_from(["203.0.113.1", "203.0.113.2", "203.0.113.9"]), max_size=2)
SERVICES = st.dictionaries(
    st.sampled_from("abcd"), st.tuples(TOLD, st.integers(0, 3), st.booleans()), max_size=4
)


@given(st.lists(SERVICES, max_size=5))
def test_no_address_is_given_twice_and_none_moves(
    history: list[dict[str, tuple[list[str], int, bool]]],
) -> None:
    pool, before = Pool(RANGES), {}
    for present in history:
        services = [
            service(name, *told, made=made, **({"loadBalancerIP": "203.0.113.2"} if asks else {}))
            for name, (told, made, asks) in present.items()
        ]
        given = shown(pool.assign(services))
        everything = [address for found in given.values() for address in found]
        assert len(everything) == len(set(everything))
        assert all(ip_address(one) in RANGES[0] for one in everything)
        for name in before.keys() & given.keys():
            assert present[name][2] or before[name] == given[name]
        before = given

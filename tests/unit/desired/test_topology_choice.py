"""Which endpoints traffic may go to (kube-proxy's rules)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy.desired.model import Address, Endpoint, Protocol, ServicePort, ServicePortName
from kproxy.desired.topology import Place, categorize_endpoints

HERE = Place("n1", "zone-a")


def service(**more):
    name = ServicePortName("demo", "web", "", Protocol.TCP)
    return ServicePort(name=name, cluster_ip=Address("10.96.0.1"), port=80, **more)


CLUSTER = service()
EXTERNAL_LOCAL = service(node_port=30080, external_local=True)
INTERNAL_LOCAL = service(internal_local=True)


def endpoint(number, state="ready", *, local=False, zones="", nodes=""):
    ready, serving, terminating = {
        "ready": (True, True, False),
        "unready": (False, False, False),
        "serving": (False, True, False),
        "draining": (False, True, True),
        "dead": (False, False, True),
    }[state]
    return Endpoint(
        address=Address(f"10.0.0.{number}"),
        port=80,
        ready=ready,
        serving=serving,
        terminating=terminating,
        local=local,
        zone_hints=frozenset(zones.split()),
        node_hints=frozenset(nodes.split()),
    )


def choose(wanted, *endpoints, place=HERE):
    return categorize_endpoints(wanted, endpoints, place)


def numbers(endpoints):
    return [int(one.address.rpartition(".")[2]) for one in endpoints]


def test_only_ready_endpoints_are_used():
    state = choose(CLUSTER, endpoint(1), endpoint(2, "unready"), endpoint(3, "draining"))
    assert numbers(state.cluster) == [1]
    assert numbers(state.known) == [1, 3]
    assert state.local == ()
    assert state.anywhere


def test_draining_endpoints_are_the_fallback():
    state = choose(CLUSTER, endpoint(1, "draining"), endpoint(2, "dead"), endpoint(3, "serving"))
    assert numbers(state.cluster) == [1]
    assert state.anywhere


@pytest.mark.parametrize("endpoints", [(), (endpoint(1, "unready"), endpoint(2, "dead"))])
def test_without_usable_endpoints_there_are_none_anywhere(endpoints):
    state = choose(CLUSTER, *endpoints)
    assert (state.cluster, state.anywhere) == ((), False)


def test_local_policy_uses_local_endpoints_and_cluster_policy_all():
    state = choose(EXTERNAL_LOCAL, endpoint(1, local=True), endpoint(2))
    assert (numbers(state.cluster), numbers(state.local)) == ([1, 2], [1])


def test_local_policy_falls_back_to_local_draining_ones():
    state = choose(EXTERNAL_LOCAL, endpoint(1, "draining", local=True), endpoint(2))
    assert (numbers(state.cluster), numbers(state.local)) == ([2], [1])


def test_no_local_endpoint_but_some_elsewhere():
    state = choose(EXTERNAL_LOCAL, endpoint(2))
    assert (state.local, state.anywhere) == ((), True)


def test_internal_local_without_external_access_has_no_cluster_endpoints():
    state = choose(INTERNAL_LOCAL, endpoint(1, local=True), endpoint(2))
    assert (numbers(state.cluster), numbers(state.local)) == ([], [1])
    assert choose(INTERNAL_LOCAL, endpoint(2)).anywhere


def test_external_access_uses_cluster_endpoints_even_if_internal_traffic_stays_local():
    wanted = service(internal_local=True, node_port=30080)
    state = choose(wanted, endpoint(1, local=True), endpoint(2))
    assert (numbers(state.cluster), numbers(state.local)) == ([1, 2], [1])


def test_external_policy_does_not_count_without_external_access():
    state = choose(service(external_local=True), endpoint(1, local=True))
    assert (numbers(state.cluster), state.local) == ([1], ())


def test_zone_hints_narrow_the_choice():
    state = choose(CLUSTER, endpoint(1, zones="zone-a"), endpoint(2, zones="zone-b zone-a"),
                   endpoint(3, zones="zone-b"))  # fmt: skip
    assert numbers(state.cluster) == [1, 2]
    assert numbers(state.known) == [1, 2, 3]


def test_one_hint_missing_turns_hints_off():
    state = choose(CLUSTER, endpoint(1, zones="zone-a"), endpoint(2))
    assert numbers(state.cluster) == [1, 2]


def test_a_hint_missing_on_an_endpoint_that_is_not_ready_does_not_matter():
    state = choose(CLUSTER, endpoint(1, zones="zone-a"), endpoint(2, zones="zone-b"),
                   endpoint(3, "draining"))  # fmt: skip
    assert numbers(state.cluster) == [1]


def test_hints_for_other_zones_only_are_not_followed():
    assert numbers(choose(CLUSTER, endpoint(1, zones="zone-b")).cluster) == [1]


def test_without_a_known_zone_zone_hints_are_not_followed():
    endpoints = endpoint(1, zones="zone-a"), endpoint(2, zones="zone-b")
    assert numbers(choose(CLUSTER, *endpoints, place=Place("n1")).cluster) == [1, 2]


def test_node_hints_come_before_zone_hints():
    state = choose(CLUSTER, endpoint(1, zones="zone-a", nodes="n2"),
                   endpoint(2, zones="zone-b", nodes="n1"))  # fmt: skip
    assert numbers(state.cluster) == [2]


def test_node_hints_for_other_nodes_leave_the_choice_to_zone_hints():
    state = choose(CLUSTER, endpoint(1, zones="zone-a", nodes="n2"),
                   endpoint(2, zones="zone-b", nodes="n3"))  # fmt: skip
    assert numbers(state.cluster) == [1]


def test_hints_do_not_narrow_local_endpoints():
    state = choose(EXTERNAL_LOCAL, endpoint(1, local=True, zones="zone-b"),
                   endpoint(2, zones="zone-a"))  # fmt: skip
    assert (numbers(state.cluster), numbers(state.local)) == ([2], [1])


def test_hints_do_not_narrow_the_fallback():
    state = choose(CLUSTER, endpoint(1, "draining", zones="zone-b"),
                   endpoint(2, "draining", zones="zone-a"))  # fmt: skip
    assert numbers(state.cluster) == [1, 2]


ENDPOINTS = st.lists(
    st.builds(
        endpoint,
        st.integers(1, 200),
        st.sampled_from(["ready", "unready", "serving", "draining", "dead"]),
        local=st.booleans(),
        zones=st.sampled_from(["", "zone-a", "zone-b"]),
        nodes=st.sampled_from(["", "n1", "n2"]),
    ),
    max_size=6,
)


@given(st.sampled_from([CLUSTER, EXTERNAL_LOCAL, INTERNAL_LOCAL]), ENDPOINTS)
def test_rules_that_always_hold(wanted, endpoints):
    state = choose(wanted, *endpoints)
    assert set(state.cluster) | set(state.local) <= set(endpoints)
    assert all(one.local for one in state.local)
    assert set(state.cluster) | set(state.local) <= set(state.known)
    usable = [one for one in endpoints if one.ready or (one.serving and one.terminating)]
    assert state.anywhere == bool(usable)
    if wanted is not INTERNAL_LOCAL:
        assert bool(state.cluster) == bool(usable)
    # The fallback is used only where nothing is ready.
    if any(one.ready for one in state.cluster):
        assert all(one.ready for one in state.cluster)

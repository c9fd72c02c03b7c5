"""Nodes that fall silent are lost in time, lose their pods in time, and are taken back."""

import itertools

import pytest
from clusterwide_world import RENEW, ClusterwideWorld
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from kproxy.api import catalog, kinds
from kproxy.controlplane.controllers import owned, times, zones

UNREACHABLE = {"unreachable:NoSchedule", "unreachable:NoExecute"}


def lively(nodes=3, **options):
    """Return a cluster of nodes that live, whose controllers have seen it for a minute."""
    world = ClusterwideWorld("nodelifecycle", "nodetaints", "tainteviction", **options)
    for number in range(1, nodes + 1):
        world.node(f"n{number}")
    world.run(60)
    return world


def leaving(world):
    return world.pods(owned.terminating)


def test_nodes_that_renew_their_leases_stay():
    world = lively()
    world.run(600)
    assert [world.status_of(f"n{number}") for number in (1, 2, 3)] == ["True"] * 3
    assert world.taints_of("n1") == set()


def test_a_silent_node_is_lost_after_its_grace_and_one_look():
    world = lively()
    world.die("n1")
    world.run(45)
    assert world.status_of("n1") == "True"
    world.run(10)
    assert world.status_of("n1") == "Unknown"
    assert world.taints_of("n1") == UNREACHABLE
    assert world.taints_of("n2") == set()
    assert ("NodeNotReady", "Node n1 status is now: NodeNotReady") in world.events.all


def test_its_pods_are_not_ready_at_once_and_evicted_when_their_time_is_over():
    world = lively()
    world.pod("plain")
    world.pod("elsewhere", node="n2")
    stays = {"key": "node.kubernetes.io/unreachable", "operator": "Exists"}
    world.pod("daemon", tolerations=[{**stays, "effect": "NoExecute"}])
    world.pod("hasty", tolerations=[{**stays, "effect": "NoExecute", "tolerationSeconds": 7}])
    world.die("n1")
    world.run(55)
    assert world.pods(owned.ready) == ["elsewhere"]
    assert leaving(world) == []
    world.run(10)
    assert leaving(world) == ["hasty"]
    world.run(280)
    assert leaving(world) == ["hasty"]
    world.run(20)
    assert leaving(world) == ["hasty", "plain"]
    world.run(10_000)
    assert leaving(world) == ["hasty", "plain"]
    told = world.cluster.get(catalog.POD, "default", "plain")["status"]["conditions"]
    assert [one["reason"] for one in told if one["type"] == "DisruptionTarget"] == [
        "DeletionByTaintManager"
    ]


def test_a_node_that_comes_back_in_time_keeps_its_pods():
    world = lively()
    world.pod("plain")
    world.die("n1")
    world.run(200)
    assert world.taints_of("n1") == UNREACHABLE
    world.come_back("n1")
    world.run(5)
    assert (world.status_of("n1"), world.taints_of("n1")) == ("True", set())
    world.run(600)
    assert leaving(world) == []
    assert ("TaintManagerEviction", "Cancelling deletion of Pod default/plain") in world.events.all


def test_a_new_leader_gives_every_node_its_whole_time_again():
    world = lively()
    world.die("n1")
    world.run(40)
    world.restart()
    world.run(45)
    assert world.status_of("n1") == "True"
    world.run(15)
    assert world.status_of("n1") == "Unknown"


def test_a_new_leader_marks_pods_that_the_old_one_did_not():
    world = lively()
    world.die("n1")
    world.run(60)
    world.pod("late")
    world.restart()
    world.run(5)
    assert world.pods(owned.ready) == []


def test_whoever_says_so_no_pod_of_a_lost_node_is_ready():
    world = lively()
    world.die("n1")
    world.run(60)
    world.pod("late")
    world.run(5)
    assert world.pods(owned.ready) == []


def test_a_node_that_never_reported_is_lost_after_a_minute():
    world = lively()
    world.node("n4", ready="")
    world.die("n4")
    world.run(55)
    assert not world.cluster.get(kinds.NODE, "", "n4").get("status")
    world.run(15)
    assert world.status_of("n4") == "Unknown"


def test_a_node_that_says_it_is_not_ready_is_tainted():
    world = lively()
    world.pod("plain")
    condition = {"type": "Ready", "status": "False"}
    body = {"metadata": {"name": "n1"}, "status": {"conditions": [condition]}}
    world.cluster.update_status(kinds.NODE, body)
    world.run(6)
    assert world.taints_of("n1") == {"not-ready:NoSchedule", "not-ready:NoExecute"}
    assert world.pods(owned.ready) == []


def test_a_cordoned_node_is_tainted_and_other_peoples_taints_stay():
    world = lively()
    mine = {"key": "mine", "value": "x", "effect": "NoSchedule"}
    patch = {"spec": {"unschedulable": True, "taints": [mine]}}
    world.cluster.patch(kinds.NODE, "", "n1", patch)
    world.run(1)
    assert world.taints_of("n1") == {"mine:NoSchedule", "unschedulable:NoSchedule"}
    world.cluster.patch(kinds.NODE, "", "n1", {"spec": {"unschedulable": None}})
    world.run(1)
    assert world.taints_of("n1") == {"mine:NoSchedule"}


def test_a_taint_without_toleration_evicts_at_once():
    world = lively()
    world.pod("plain")
    taint = {"key": "mine", "effect": "NoExecute"}
    world.cluster.patch(kinds.NODE, "", "n1", {"spec": {"taints": [taint]}})
    world.run(1)
    assert leaving(world) == ["plain"]


def test_when_all_nodes_are_lost_nothing_is_evicted():
    world = lively()
    world.pod("plain")
    world.die("n1", "n2", "n3")
    world.run(1000)
    assert [world.status_of(f"n{number}") for number in (1, 2, 3)] == ["Unknown"] * 3
    assert world.taints_of("n1") == {"unreachable:NoSchedule"}
    assert leaving(world) == []


def test_after_all_were_lost_those_that_stay_away_are_evicted_in_turn():
    world = lively()
    world.die("n1", "n2", "n3")
    world.run(100)
    for name in ("n1", "n2"):
        world.come_back(name)
    world.run(5)
    assert world.taints_of("n1") == set()
    assert world.status_of("n3") == "Unknown"
    world.run(60)
    assert world.taints_of("n3") == UNREACHABLE


def test_lost_nodes_of_a_zone_are_tainted_one_in_ten_seconds():
    world = lively(nodes=8)
    world.die("n1", "n2", "n3")
    world.run(50)
    counts = []
    for _ in range(4):
        lost = [name for name in ("n1", "n2", "n3") if world.taints_of(name) >= UNREACHABLE]
        counts.append(len(lost))
        world.run(10)
    assert max(counts) == 3
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(counts))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"a": [True]}, {"a": 0.1}),
        ({"a": [False]}, {"a": 0.0}),
        ({"a": [False, False], "b": [False]}, {"a": 0.0, "b": 0.0}),
        ({"a": [False, False], "b": [True]}, {"a": 0.1, "b": 0.1}),
        ({"a": [False, False, True]}, {"a": 0.1}),
        ({"a": [False] * 3 + [True]}, {"a": 0.0}),
        ({"a": [False] * 3 + [True] * 3}, {"a": 0.1}),
        ({"a": [False] * 40 + [True] * 11}, {"a": 0.01}),
        ({}, {}),
    ],
)
def test_rates_of_eviction_are_those_of_kubernetes(sizes, expected):
    assert zones.rates(sizes, times.DEFAULT) == expected


def test_a_limiter_lets_one_through_at_once_and_the_next_in_its_time():
    limiter = zones.Limiter(0.1)
    assert [limiter.take(0.0), limiter.take(5.0), limiter.take(10.0)] == [True, False, True]
    limiter.change(0.0, 11.0)
    assert limiter.wait(1e9) is None
    limiter.change(1.0, 12.0)
    assert limiter.wait(12.0) == 1.0


def test_a_taint_that_another_one_came_before_costs_no_time():
    """Two controllers taint a lost node in the same moment; whoever is second reads it anew."""
    world = lively()
    world.die("n1")
    patch, disturbed = world.cluster.patch, []

    def disturb(kind, namespace, name, change, subresource=""):
        if change.get("spec", {}).get("taints") and not disturbed:
            disturbed.append(name)
            patch(kind, namespace, name, {"metadata": {"labels": {"changed": "meanwhile"}}})
        return patch(kind, namespace, name, change, subresource)

    world.cluster.patch = disturb
    del world.working["nodetaints"]
    world.run(55)
    assert disturbed == ["n1"]
    assert world.taints_of("n1") == {"unreachable:NoExecute"}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["die", "come back", "restart"]),
        st.sampled_from(["n1", "n2", "n3", "n4"]),
        st.sampled_from([0.0, 1.0, 12.0, 55.0, 130.0, 330.0]),
    ),
    max_size=8,
)


@examples(30)
@given(steps=STEPS)
def test_whatever_happens_the_living_are_taken_for_living_and_lose_nothing(steps):
    world = lively(nodes=4)
    silent: dict[str, float] = {}
    longest = dict.fromkeys(("n1", "n2", "n3", "n4"), 0.0)
    for name in longest:
        world.pod(f"on-{name}", node=name)

    def note():
        for name, since in silent.items():
            longest[name] = max(longest[name], world.time - since)

    for what, name, seconds in steps:
        if what == "die" and name not in silent:
            world.die(name)
            silent[name] = world.time
        elif what == "come back" and name in silent:
            note()
            del silent[name]
            world.come_back(name)
        elif what == "restart":
            world.restart()
        world.run(seconds)
        note()
    world.run(60)
    note()
    for name in longest:
        if name in silent:
            assert world.status_of(name) == "Unknown"
            assert "unreachable:NoSchedule" in world.taints_of(name)
            assert f"on-{name}" not in world.pods(owned.ready)
        else:
            assert (world.status_of(name), world.taints_of(name)) == ("True", set())
    least = times.DEFAULT.node_grace - RENEW + 300
    for pod in leaving(world):
        assert longest[pod.removeprefix("on-")] >= least
    world.run(400)
    if len(silent) < zones.LOST_LEAST:  # else the zone is in trouble, and nothing is evicted
        assert {f"on-{name}" for name in silent} <= set(leaving(world))

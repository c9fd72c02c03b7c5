"""Pods are bound once, wait where nothing fits, and are looked at again when something changes."""

import pytest
from examples import examples
from exposition_parser import parse
from hypothesis import given
from hypothesis import strategies as st
from scheduler_world import SchedulerWorld, node, pod, taint

from kproxy import errors
from kproxy.api import catalog, kinds
from kproxy.controlplane.scheduling import filters, placement
from kproxy.controlplane.scheduling.picture import Picture


def bindings(world):
    """Return the pods that were bound, in order, from the store's history."""
    return [
        new["metadata"]["name"]
        for kind, old, new in world.cluster.changes
        if kind is catalog.POD and new and old
        if new["spec"].get("nodeName") and not old["spec"].get("nodeName")
    ]


def condition(world, name="p"):
    status = world.cluster.get(catalog.POD, "default", name)["status"]
    (found,) = [one for one in status["conditions"] if one["type"] == "PodScheduled"]
    return found


def test_pods_are_bound_and_told():
    world = SchedulerWorld(node("n1"), node("n2"))
    world.add(*(pod(f"p{number}", owner="ReplicaSet/r") for number in range(4)))
    world.settle()
    assert world.places() == {"p0": "n1", "p1": "n2", "p2": "n1", "p3": "n2"}
    assert ("Scheduled", "Successfully assigned default/p0 to n1") in world.events.all


def test_a_place_counts_before_the_watch_has_told_of_it():
    world = SchedulerWorld(node("n1", pods=1), node("n2", pods=1))
    world.add(pod("a"), pod("b"), pod("c"))
    world.tell()
    world.work()
    assert sorted(world.places().values()) == ["", "n1", "n2"]


@pytest.mark.parametrize(
    ("wanted", "bound"),
    [
        (pod("p", schedulerName="default-scheduler"), "n1"),
        (pod("p", schedulerName="mine"), ""),
        (pod("p", schedulingGates=[{"name": "quota"}]), ""),
    ],
)
def test_only_pods_that_wait_for_this_scheduler_are_bound(wanted, bound):
    world = SchedulerWorld(node("n1"))
    world.add(wanted)
    world.settle()
    assert world.places() == {"p": bound}
    assert world.events.all == [] or bound


def test_a_pod_without_a_place_says_why_and_waits_quietly():
    world = SchedulerWorld(node("n1", unschedulable=True))
    world.add(pod("p"))
    world.settle()
    found = condition(world)
    message = "0/1 nodes are available: 1 node(s) were unschedulable."
    assert (found["status"], found["reason"]) == ("False", "Unschedulable")
    assert found["message"] == message
    assert {("FailedScheduling", message)} == set(world.events.all)


def add_node(world):
    world.cluster.create(kinds.NODE, node("n2", {"disk": "ssd"}))


def label_node(world):
    world.cluster.patch(kinds.NODE, "", "n1", {"metadata": {"labels": {"disk": "ssd"}}})


def make_room(world):
    world.cluster.delete(catalog.POD, "default", "old", grace=0)


def told(world):
    """Return the values of the metrics that are no histograms, by name and last label."""
    families = parse(world.metrics.text())
    return {
        (sample, labels[-1][1]): value
        for name in ("scheduler_schedule_attempts_total", "scheduler_pending_pods")
        for (sample, labels), value in families[name].samples.items()
    }


def test_attempts_and_those_who_wait_are_counted():
    world = SchedulerWorld(node("n1", pods=1))
    assert told(world)["scheduler_schedule_attempts_total", "scheduled"] == 0
    world.add(pod("a"), pod("b"), pod("c", schedulingGates=[{"name": "quota"}]))
    world.tell()
    assert told(world)["scheduler_pending_pods", "active"] == 2
    world.work()
    world.tell()
    found = told(world)
    assert found["scheduler_schedule_attempts_total", "scheduled"] == 1
    assert found["scheduler_schedule_attempts_total", "unschedulable"] == 1
    assert found["scheduler_pending_pods", "active"] == 0
    assert found["scheduler_pending_pods", "backoff"] == 1
    world.time += 5.0
    assert told(world)["scheduler_pending_pods", "unschedulable"] == 1
    world.cluster.delete(catalog.POD, "default", "b")
    world.tell()
    assert told(world)["scheduler_pending_pods", "unschedulable"] == 0
    samples = parse(world.metrics.text())["scheduler_scheduling_attempt_duration_seconds"].samples
    attempts = {
        dict(labels)["result"]: value
        for (name, labels), value in samples.items()
        if name.endswith("_count")
    }
    assert attempts == {"scheduled": 1, "unschedulable": 1, "error": 0}


def test_an_attempt_that_fails_is_an_error(monkeypatch):
    world = SchedulerWorld(node("n1"))
    world.add(pod("a"))
    world.tell()

    def refuse(*_):
        raise errors.ApiError(503, "ServiceUnavailable", "no")

    monkeypatch.setattr(world.cluster, "bind", refuse)
    world.work()
    assert told(world)["scheduler_schedule_attempts_total", "error"] == 1
    assert told(world)["scheduler_pending_pods", "active"] == 1


@pytest.mark.parametrize(
    ("room", "wanted", "change"),
    [
        (2, {"nodeSelector": {"disk": "ssd"}}, add_node),
        (2, {"nodeSelector": {"disk": "ssd"}}, label_node),
        (1, {}, make_room),
    ],
)
def test_a_pod_is_looked_at_again_when_something_changes(room, wanted, change):
    world = SchedulerWorld(node("n1", pods=room))
    world.add(pod("old"))
    world.settle()
    world.add(pod("p", **wanted))
    world.settle()
    assert world.waiting() == ["p"]
    world.queue.clear()  # what is looked at after five minutes in any case is not what is meant
    change(world)
    world.settle()
    assert world.waiting() == []


def test_no_attempt_is_made_before_the_back_off_is_over():
    world = SchedulerWorld(node("n1", unschedulable=True))
    world.add(pod("p"))
    world.tell()
    waits = []
    for _ in range(6):
        world.work()
        again = world.scheduler.reconcile("default/p")
        waits.append(again)
        world.time += again
    assert waits == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_a_change_in_the_middle_of_an_attempt_is_not_missed(monkeypatch):
    world = SchedulerWorld(node("n1", unschedulable=True))
    world.add(pod("p"))
    world.tell()
    decide = placement.decide

    def meanwhile(*given):
        found = decide(*given)
        world.cluster.create(kinds.NODE, node("n2"))
        world.queue.clear()
        world.tell()
        assert world.queue == []  # nobody knows yet that it waits
        return found

    monkeypatch.setattr(placement, "decide", meanwhile)
    assert world.scheduler.reconcile("default/p") == 1.0
    monkeypatch.undo()
    world.time += 1.0
    world.scheduler.reconcile("default/p")
    assert world.places() == {"p": "n2"}


def test_a_bound_pod_is_never_bound_again_whatever_becomes_of_the_answer():
    world = SchedulerWorld(node("n1"), node("n2"))
    world.add(pod("p"))
    failed = []

    def lose(verb, kind, name):
        if verb == "bind" and not failed:
            failed.append(name)
            raise errors.KproxyError("the connection broke")

    world.cluster.after = lose
    world.tell()
    world.work()
    world.work()  # the watch has told nothing yet, and the API server refuses
    assert failed == ["p"]
    world.settle()
    assert world.places() == {"p": "n1"}
    assert bindings(world) == ["p"]
    assert world.queue == []


def test_a_pod_that_is_deleted_meanwhile_is_forgotten():
    world = SchedulerWorld(node("n1", unschedulable=True))
    world.add(pod("p"))
    world.settle()
    world.cluster.delete(catalog.POD, "default", "p")
    world.settle()
    assert world.scheduler.reconcile("default/p") is None
    assert world.scheduler._parked == {}


EFFECTS = st.sampled_from(["NoSchedule", "NoExecute", "PreferNoSchedule"])
KEYS = st.sampled_from(["a", "b"])
TAINTS = st.lists(
    st.builds(taint, KEYS, EFFECTS), max_size=2, unique_by=lambda one: (one["key"], one["effect"])
)
LABELS = st.dictionaries(KEYS, st.sampled_from("xy"), max_size=2)
NODES = st.lists(
    st.tuples(LABELS, st.integers(0, 3), st.booleans(), TAINTS), min_size=0, max_size=4
)
PODS = st.lists(
    st.tuples(
        LABELS,
        st.dictionaries(KEYS, st.sampled_from("xy"), max_size=1),
        st.lists(st.builds(lambda key: {"key": key, "operator": "Exists"}, KEYS), max_size=2),
        st.booleans(),
    ),
    max_size=6,
)


def random_world(nodes, pods):
    world = SchedulerWorld(
        *(
            node(f"n{number}", labels, room, unschedulable=cordoned, taints=taints)
            for number, (labels, room, cordoned, taints) in enumerate(nodes)
        )
    )
    for number, (labels, selector, tolerations, alone) in enumerate(pods):
        spec = {"nodeSelector": selector, "tolerations": tolerations}
        if alone:
            term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}}
            rule = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
            spec["affinity"] = {"podAntiAffinity": rule}
        world.add(pod(f"p{number}", labels, **spec))
    return world


def fits(world, one, on=""):
    """Return the nodes that fit a pod, given where all the others are."""
    seen = Picture()
    for found in world.cluster.list_objects(kinds.NODE):
        seen.heard_node(None, found)
    for other in world.cluster.list_objects(catalog.POD):
        if other["metadata"]["uid"] != one["metadata"]["uid"]:
            seen.heard_pod(None, other)
    nodes = seen.nodes()
    want = filters.wanted(one, nodes)
    return [found.name for found in nodes if not filters.problem(want, found)]


@examples(60)
@given(nodes=NODES, pods=PODS, crashes=st.sets(st.integers(0, 8), max_size=3))
def test_every_pod_that_fits_is_bound_where_it_fits_also_after_crashes(nodes, pods, crashes):
    world = random_world(nodes, pods)
    writes = 0

    def crash(verb, kind, name):
        nonlocal writes
        writes += 1
        if writes in crashes:
            raise errors.KproxyError("killed")

    world.cluster.before = world.cluster.after = crash
    for _ in range(20):
        world.tell()
        world.work()
        if writes in crashes:
            world.restart()
        world.time += 5.0
    names = bindings(world)
    assert len(names) == len(set(names))
    for one in world.cluster.list_objects(catalog.POD):
        place = one["spec"].get("nodeName")
        if place:
            assert place in fits(world, one)
        else:
            assert fits(world, one) == []

"""Whatever order things happen in, what is declared comes about, and limits hold on the way.

Events come late, requests fail or succeed without an answer, controllers are started anew at any
step. Each test draws one history from a seed.
"""

from collections import Counter

from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from lagging_world import LaggingWorld

from kproxy.api import catalog, kinds
from kproxy.controlplane.controllers import daemonpods, owned

SEEDS = st.integers(0, 2**32)
DEPLOYMENT, RS = catalog.DEPLOYMENT, catalog.REPLICA_SET
DS, SS = catalog.DAEMON_SET, catalog.STATEFUL_SET


def maybe_restart(world):
    if world.lots.random() < 0.02:
        world.begin()


def active_of(world, kind):
    return [pod for pod in world.pods(alive=True) if owned.owner(pod).get("kind") == kind.name]


@examples(30)
@given(SEEDS, st.integers(1, 5))
def test_no_pod_is_made_twice(seed, replicas):
    world = LaggingWorld(seed)
    world.apply(RS, replicas=replicas)
    for _ in range(150):
        world.step()
        maybe_restart(world)
    world.run()
    created = [new for kind, old, new in world.cluster.changes if kind is catalog.POD and not old]
    assert len(created) == replicas
    assert len(world.pods(alive=True)) == replicas


@examples(30)
@given(SEEDS, st.integers(1, 5))
def test_pods_that_fail_or_are_deleted_never_lead_to_too_many(seed, replicas):
    world = LaggingWorld(seed)
    world.apply(RS, replicas=replicas)
    for _ in range(300):
        world.step()
        maybe_restart(world)
        disturb(world)
        assert len(world.pods(alive=True)) <= replicas
    world.run()
    assert sum(map(owned.ready, world.pods(alive=True))) == replicas


def disturb(world):
    """Let a pod fail, become unready or be deleted, now and then."""
    pods = world.pods(alive=True)
    if not pods or world.lots.random() > 0.1:
        return
    pod = world.lots.choice(pods)
    what = world.lots.randrange(3)
    if what == 0:
        world.delete_pod(pod)
    elif pod["spec"].get("nodeName"):
        ended = world.lots.choice(("Failed", "Running"))
        world.set_status(pod["metadata"]["name"], ended, ready=False)


@examples(50)
@given(SEEDS, st.integers(1, 5), st.integers(0, 2), st.integers(0, 2))
def test_a_rolling_update_never_breaks_its_limits(seed, replicas, surge, unavailable):
    unavailable = unavailable or (0 if surge else 1)
    limits = {"maxSurge": surge, "maxUnavailable": unavailable}
    strategy = {"type": "RollingUpdate", "rollingUpdate": limits}
    world = LaggingWorld(seed)
    world.apply(DEPLOYMENT, replicas=replicas, strategy=strategy)
    world.run()
    world.failing = True
    for version in range(2, 300):
        if world.lots.random() < 0.03:
            world.apply(DEPLOYMENT, str(version), replicas=replicas, strategy=strategy)
        world.step()
        maybe_restart(world)
        pods = world.pods(alive=True)
        assert len(pods) <= replicas + surge
        assert sum(map(owned.ready, pods)) >= replicas - unavailable
    world.apply(DEPLOYMENT, "last", replicas=replicas, strategy=strategy)
    world.run()
    assert world.versions() == ["last"] * replicas
    status = world.status(DEPLOYMENT)
    assert (status["updatedReplicas"], status["availableReplicas"]) == (replicas, replicas)
    assert status["unavailableReplicas"] == 0


@examples(50)
@given(SEEDS)
def test_a_deployment_ends_as_declared_whatever_happened(seed):
    world = LaggingWorld(seed)
    lots = world.lots
    for version in range(200):
        if lots.random() < 0.1:
            kind = lots.choice(("RollingUpdate", "RollingUpdate", "Recreate"))
            declared = {
                "replicas": lots.randrange(6),
                "paused": lots.random() < 0.3,
                "strategy": {"type": kind},
                "minReadySeconds": lots.choice((0, 10)),
                "progressDeadlineSeconds": 60,
                "revisionHistoryLimit": lots.randrange(3),
            }
            world.apply(DEPLOYMENT, str(lots.randrange(4)), **declared)
        world.step()
        maybe_restart(world)
        disturb(world)
        if version % 50 == 49:
            world.cluster.wall += 100
    spec = {"replicas": 3, "progressDeadlineSeconds": 60, "revisionHistoryLimit": 1}
    world.apply(DEPLOYMENT, "last", **spec)
    world.run()
    assert world.versions() == ["last"] * 3
    assert all(map(owned.ready, world.pods(alive=True)))
    sizes = Counter(one["spec"]["replicas"] for one in world.cluster.list_objects(RS))
    assert sizes[3] == 1
    assert sizes[0] <= 1
    status = world.status(DEPLOYMENT)
    assert status["observedGeneration"] == declared_generation(world, DEPLOYMENT)
    reasons = {one["type"]: one["reason"] for one in status["conditions"]}
    assert reasons == {
        "Available": "MinimumReplicasAvailable",
        "Progressing": "NewReplicaSetAvailable",
    }


def declared_generation(world, kind):
    return world.cluster.get(kind, "default", "web")["metadata"]["generation"]


@examples(30)
@given(SEEDS, st.booleans())
def test_a_daemon_set_never_has_too_many_on_a_node_nor_too_few_in_service(seed, surges):
    limits = {"maxSurge": int(surges), "maxUnavailable": int(not surges)}
    strategy = {"type": "RollingUpdate", "rollingUpdate": limits}
    world = LaggingWorld(seed)
    world.apply(DS, updateStrategy=strategy)
    world.run()
    world.failing = True
    for version in range(2, 200):
        if world.lots.random() < 0.03:
            world.apply(DS, str(version), updateStrategy=strategy)
        world.step()
        maybe_restart(world)
        pods = world.pods(alive=True)
        on_nodes = Counter(map(daemonpods.node_of, pods))
        assert max(on_nodes.values(), default=0) <= 1 + surges
        assert sum(count > 1 for count in on_nodes.values()) <= 1
        served = {daemonpods.node_of(pod) for pod in pods if owned.ready(pod)}
        assert len(served) >= 3 - (not surges)
    world.apply(DS, "last", updateStrategy=strategy)
    world.run()
    assert world.versions() == ["last"] * 3
    assert world.status(DS)["updatedNumberScheduled"] == 3


@examples(30)
@given(SEEDS)
def test_a_daemon_set_ends_as_declared_whatever_happened(seed):
    world = LaggingWorld(seed)
    lots = world.lots
    world.apply(DS)
    for _ in range(200):
        if lots.random() < 0.05:
            world.apply(DS, str(lots.randrange(4)), minReadySeconds=lots.choice((0, 5)))
        if lots.random() < 0.05:
            taint = {"key": "k", "effect": lots.choice(("NoExecute", "NoSchedule"))}
            taints = lots.choice(([], [taint]))
            patch = {"spec": {"taints": taints}}
            world.cluster.patch(kinds.NODE, "", f"n{lots.randrange(1, 4)}", patch)
        world.step()
        maybe_restart(world)
        disturb(world)
    for number in (1, 2, 3):
        world.cluster.patch(kinds.NODE, "", f"n{number}", {"spec": {"taints": None}})
    world.apply(DS, "last")
    world.run()
    pods = world.pods()
    assert sorted(map(daemonpods.node_of, pods)) == ["n1", "n2", "n3"]
    assert all(map(owned.ready, pods))
    assert world.versions() == ["last"] * 3


@examples(30)
@given(SEEDS, st.sampled_from(["OrderedReady", "Parallel"]))
def test_a_stateful_set_ends_as_declared_and_keeps_its_order(seed, policy):
    world = LaggingWorld(seed)
    lots = world.lots
    for _ in range(250):
        if lots.random() < 0.05:
            limits = {"partition": lots.randrange(3)}
            strategy = {"type": "RollingUpdate", "rollingUpdate": limits}
            spec = {"replicas": lots.randrange(5), "updateStrategy": strategy}
            world.apply(SS, str(lots.randrange(4)), podManagementPolicy=policy, **spec)
        before = world.cluster.version
        world.step()
        if policy == "OrderedReady":
            check_order(world, before)
        maybe_restart(world)
        if lots.random() < 0.03 and world.pods(alive=True):
            world.delete_pod(lots.choice(world.pods(alive=True)))
    world.apply(SS, "last", podManagementPolicy=policy, replicas=3)
    world.run()
    assert world.names() == ["web-0", "web-1", "web-2"]
    assert world.versions() == ["last"] * 3
    status = world.status(SS)
    assert status["currentRevision"] == status["updateRevision"]
    assert (status["updatedReplicas"], status["availableReplicas"]) == (3, 3)


def check_order(world, before):
    """In order, a reconcile makes or deletes one pod at most."""
    changes = [
        new
        for kind, old, new in world.cluster.changes[before:]
        if kind is catalog.POD and new is not None and (old is None or becomes_deleted(old, new))
    ]
    assert len(changes) <= 1


def becomes_deleted(old, new):
    return owned.terminating(new) and not owned.terminating(old)

"""ReplicaSets: numbers converge, nothing is made twice, what is missed least goes first."""

from collections import Counter

import pytest
from controller_world import World
from fake_cluster import FakeCluster

from kproxy import errors
from kproxy.api import catalog
from kproxy.controlplane.controllers import names, owned, podcontrol, registry, replicaset
from kproxy.rfc3339 import timestamp

RS = catalog.REPLICA_SET


@pytest.fixture
def world():
    return World()


class Stale:
    """Reads from an old picture, writes to the cluster as it is."""

    def __init__(self, picture, now):
        self._picture, self._now = picture, now

    def __getattr__(self, name):
        reads = ("list_objects", "get")
        return getattr(self._picture if name in reads else self._now, name)


def frozen(cluster):
    """Return a picture of a cluster that does not change any more."""
    picture = FakeCluster()
    picture._objects = {kind: dict(found) for kind, found in cluster._objects.items()}
    return picture


def test_pods_carry_template_owner_and_letters(world):
    world.apply(RS, replicas=2)
    world.reconcile(RS)
    first, second = world.pods()
    assert first["metadata"]["labels"] == {"app": "web"}
    assert first["metadata"]["annotations"] == {"version": "1"}
    assert first["spec"]["containers"][0]["resources"] == {"limits": {}}
    assert "nodeName" not in first["spec"]
    (owner,) = first["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("ReplicaSet", "web", True)
    assert {len(pod["metadata"]["name"]) for pod in (first, second)} == {len("web-xxxxx")}
    created = [text for reason, text in world.events.all if reason == "SuccessfulCreate"]
    assert sorted(created) == [f"Created pod: {name}" for name in sorted(world.names())]


def test_making_many_pods_reads_few_names(world, monkeypatch):
    """A thousand pods at once must not be a million looks at their names."""
    read, usual = [], names.number
    monkeypatch.setattr(names, "number", lambda uid, name: read.append(name) or usual(uid, name))
    world.apply(RS, replicas=100)
    world.reconcile(RS)
    assert len(set(world.names())) == 100
    assert len(read) <= 200


def test_no_round_is_longer_than_kubernetes_bursts(world, monkeypatch):
    """Who has typed too many zeros and takes them back must not wait for all those pods."""
    monkeypatch.setattr(podcontrol, "ROUND_MOST", 5)
    world.apply(RS, replicas=100)
    assert world.reconcile(RS) == 0.0
    assert world.reconcile(RS) == 0.0
    assert len(world.pods()) == 10
    assert world.status(RS)["replicas"] == 10
    world.apply(RS, replicas=3)
    assert world.reconcile(RS) == 0.0
    assert len(world.pods(alive=True)) == 5
    assert world.reconcile(RS) is None
    assert len(world.pods(alive=True)) == 3


def test_what_is_gone_is_forgotten(world):
    world.apply(RS, replicas=1)
    world.come_to_rest()
    world.cluster.delete(RS, "default", "web", grace=0)
    world.reconcile(RS)
    assert not world.controllers[RS]._control._numbers


def test_reconciling_again_changes_nothing(world):
    world.apply(RS, replicas=3)
    world.come_to_rest()
    version = world.cluster.version
    assert world.reconcile(RS) is None
    assert world.cluster.version == version


def test_several_controllers_with_one_old_picture_make_no_pod_too_many(world):
    """The classic: three controllers, each of which sees two pods missing."""
    world.apply(RS, replicas=2)
    pictures = [frozen(world.cluster) for _ in range(3)]
    for picture in pictures:
        controller = replicaset.ReplicaSetController(
            Stale(picture, world.cluster), world.log, world.events
        )
        try:
            controller.reconcile("default/web")
        except errors.Conflict:
            continue
    assert len(world.pods()) == 2


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_an_ended_pod_is_replaced_and_stays_to_be_looked_at(world, phase):
    world.apply(RS, replicas=2)
    world.come_to_rest()
    victim = world.names()[0]
    world.set_status(victim, phase)
    world.come_to_rest()
    assert len(world.pods(alive=True)) == 2
    assert victim in world.names()


def test_a_deleted_pod_is_replaced_before_it_is_gone(world):
    world.apply(RS, replicas=2)
    world.come_to_rest()
    world.delete_pod(world.pods()[0])
    world.reconcile(RS)
    assert (len(world.pods()), len(world.pods(alive=True))) == (3, 2)


def test_names_are_not_reused_by_a_restarted_controller(world):
    world.apply(RS, replicas=2)
    world.come_to_rest()
    used = set(world.names())
    for pod in world.pods():
        world.delete_pod(pod, grace=0)
    world.restart(RS)
    world.reconcile(RS)
    assert not used & set(world.names())


def test_a_name_that_somebody_else_has_is_passed_over(world):
    made = world.apply(RS, replicas=1)
    taken = f"web-{names.suffix(made['metadata']['uid'], 1)}"
    meta = {"name": taken, "namespace": "default"}
    world.cluster.create(catalog.POD, {"metadata": meta, "spec": {"containers": [{"name": "c"}]}})
    world.reconcile(RS)
    assert len(world.pods()) == 2


def test_orphans_are_adopted_and_strangers_released(world):
    world.apply(RS, replicas=2)
    world.reconcile(RS)
    lost = world.pods()[0]["metadata"]["name"]
    world.cluster.patch(catalog.POD, "default", lost, {"metadata": {"labels": {"app": "debug"}}})
    orphan = {
        "metadata": {"name": "orphan", "namespace": "default", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c"}]},
    }
    world.cluster.create(catalog.POD, orphan)
    world.reconcile(RS)
    owners = {pod["metadata"]["name"]: owned.owner(pod).get("name") for pod in world.pods()}
    assert owners.pop(lost) is None
    assert len(owners) == 2
    assert owners["orphan"] == "web"


def test_an_owner_that_has_been_replaced_adopts_nothing(world):
    world.apply(RS, replicas=1)
    orphan = {
        "metadata": {"name": "orphan", "namespace": "default", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c"}]},
    }
    world.cluster.create(catalog.POD, orphan)
    picture = frozen(world.cluster)
    world.cluster.delete(RS, "default", "web")
    world.apply(RS, replicas=0)
    stale = Stale(picture, world.cluster)
    with pytest.raises(errors.Conflict):
        replicaset.ReplicaSetController(stale, world.log, world.events).reconcile("default/web")
    (kept,) = [pod for pod in world.pods() if pod["metadata"]["name"] == "orphan"]
    assert not owned.owner(kept)


def test_a_failure_ends_the_round_and_is_told(world):
    world.apply(RS, replicas=5)
    asked = []

    def refuse(verb, kind, name):
        if kind is catalog.POD:
            asked.append(name)
            if len(asked) > 2:
                raise errors.ApiError(403, "Forbidden", "exceeded quota")

    world.cluster.before = refuse
    with pytest.raises(errors.ApiError, match="quota"):
        world.reconcile(RS)
    assert len(asked) == 3
    status = world.status(RS)
    assert status["replicas"] == 2
    (condition,) = status["conditions"]
    assert (condition["type"], condition["reason"]) == ("ReplicaFailure", "FailedCreate")
    assert ("FailedCreate", "Error creating: exceeded quota") in world.events.all
    world.cluster.before = lambda *_: None
    world.settle()
    assert "conditions" not in world.status(RS)


def test_min_ready_seconds_are_waited_for(world):
    world.apply(RS, replicas=1, minReadySeconds=30)
    world.settle()
    world.cluster.wall += 0.0
    world.set_status(world.names()[0])
    assert world.reconcile(RS) == 30.0
    assert (world.status(RS)["readyReplicas"], world.status(RS)["availableReplicas"]) == (1, 0)
    world.cluster.wall += 30
    assert world.reconcile(RS) is None
    assert world.status(RS)["availableReplicas"] == 1


def test_scaling_down_takes_the_least_missed():
    def pod(number, *, node="n1", phase="Running", ready=True, cost="", since=0.0, restarts=0):
        condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": stamp(since)}
        cost_note = {replicaset.DELETION_COST: cost} if cost else {}
        return {
            "metadata": {
                "name": f"web-{names.suffix('u', number)}",
                "annotations": cost_note,
                "creationTimestamp": stamp(0),
            },
            "spec": {"nodeName": node},
            "status": {
                "phase": phase,
                "conditions": [condition],
                "containerStatuses": [{"restartCount": restarts}],
            },
        }

    stamp = timestamp
    wanted = [
        pod(1, node=""),
        pod(2, phase="Pending", ready=False),
        pod(3, ready=False),
        pod(4, cost="-1"),
        pod(5, node="crowded"),
        pod(6, since=100.0),
        pod(7, restarts=3),
        pod(9),
        pod(8),
    ]
    crowds = Counter({"n1": 1, "crowded": 2})
    assert replicaset.deletion_order(wanted[::-1], crowds, "u") == wanted


def test_scaling_down_prefers_nodes_with_related_pods(world):
    """Those of another revision of the same Deployment count, too."""
    world.apply(catalog.DEPLOYMENT, replicas=3)
    world.come_to_rest()
    world.apply(catalog.DEPLOYMENT, replicas=4)
    world.come_to_rest()
    crowd = Counter(pod["spec"]["nodeName"] for pod in world.pods()).most_common(1)[0][0]
    world.apply(catalog.DEPLOYMENT, replicas=3)
    world.come_to_rest()
    assert Counter(pod["spec"]["nodeName"] for pod in world.pods())[crowd] == 1


def test_a_pod_whose_owner_has_no_name_wakes_nobody_that_is_there(world):
    reference = {"kind": "ReplicaSet", "apiVersion": "apps/v1", "uid": "u", "controller": True}
    pod = {"metadata": {"name": "a", "namespace": "default", "ownerReferences": [reference]}}
    (key,) = registry.owners(RS)(None, None, None, pod)
    assert world.controllers[RS].reconcile(key) is None

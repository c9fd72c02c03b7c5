"""Deployments: revisions, rolling updates within limits, pause, scaling, and what status says."""

import pytest
from controller_world import World

from kproxy import errors
from kproxy.api import catalog
from kproxy.controlplane.controllers import owned, replicaset, rollout

DEPLOYMENT, RS = catalog.DEPLOYMENT, catalog.REPLICA_SET


@pytest.fixture
def world():
    return World()


def rolling(surge, unavailable):
    limits = {"maxSurge": surge, "maxUnavailable": unavailable}
    return {"type": "RollingUpdate", "rollingUpdate": limits}


def condition(world, name):
    found = world.status(DEPLOYMENT)["conditions"]
    return next((one for one in found if one["type"] == name), None)


def sets(world):
    """Return (revision, wanted) of the ReplicaSets, by revision."""
    listed = world.cluster.list_objects(RS)
    return sorted(
        (int(one["metadata"]["annotations"][rollout.REVISION]), replicaset.replicas(one))
        for one in listed
    )


def test_a_deployment_makes_a_replica_set_that_makes_pods(world):
    world.apply(DEPLOYMENT, replicas=5)
    world.come_to_rest()
    (made,) = world.cluster.list_objects(RS)
    digest = made["metadata"]["labels"]["pod-template-hash"]
    assert made["metadata"]["name"] == f"web-{digest}"
    assert made["spec"]["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": digest}
    assert owned.owner(made)["name"] == "web"
    assert {pod["metadata"]["labels"]["pod-template-hash"] for pod in world.pods()} == {digest}
    assert sorted(pod["spec"]["nodeName"] for pod in world.pods()) == [
        "n1",
        "n1",
        "n2",
        "n2",
        "n3",
    ]
    text = f"Scaled up replica set web-{digest} from 0 to 5"
    assert ("ScalingReplicaSet", text) in world.events.all


def test_reconciling_again_changes_nothing(world):
    world.apply(DEPLOYMENT, replicas=3, progressDeadlineSeconds=600)
    world.come_to_rest()
    version = world.cluster.version
    world.settle()
    assert world.cluster.version == version


@pytest.mark.parametrize(
    ("surge", "unavailable", "most", "least"),
    [(1, 1, 5, 3), (1, 0, 5, 4), (0, 1, 4, 3), ("25%", "25%", 5, 3), ("50%", 0, 6, 4)],
)
def test_a_rolling_update_keeps_to_its_limits_and_ends(world, surge, unavailable, most, least):
    world.apply(DEPLOYMENT, replicas=4, strategy=rolling(surge, unavailable))
    world.come_to_rest()
    world.apply(DEPLOYMENT, "2", replicas=4, strategy=rolling(surge, unavailable))
    for _ in range(30):
        world.settle()
        active = world.pods(alive=True)
        assert sum(map(owned.ready, active)) >= least
        assert len(active) <= most
        world.run_all()
    assert world.versions() == ["2"] * 4
    assert sets(world) == [(1, 0), (2, 4)]


def test_percentages_that_round_to_nothing_still_let_it_move(world):
    world.apply(DEPLOYMENT, replicas=2, strategy=rolling("0%", "10%"))
    world.come_to_rest()
    world.apply(DEPLOYMENT, "2", replicas=2, strategy=rolling("0%", "10%"))
    world.come_to_rest()
    assert world.versions() == ["2", "2"]


def test_pods_that_never_become_ready_stop_an_update(world):
    world.apply(DEPLOYMENT, replicas=4, strategy=rolling(1, 1))
    world.come_to_rest()
    world.apply(DEPLOYMENT, "2", replicas=4, strategy=rolling(1, 1))
    world.settle()
    ready = [pod for pod in world.pods(alive=True) if owned.ready(pod)]
    assert len(ready) == 3
    assert world.versions() == ["1"] * 3 + ["2"] * 2


def test_pods_that_serve_nobody_are_replaced_first(world):
    world.apply(DEPLOYMENT, replicas=3, strategy=rolling(0, 1))
    world.come_to_rest()
    broken = world.names()[1]
    world.set_status(broken, ready=False)
    world.apply(DEPLOYMENT, "2", replicas=3, strategy=rolling(0, 1))
    world.settle()
    assert broken not in [pod["metadata"]["name"] for pod in world.pods(alive=True)]
    assert world.versions() == ["1", "1", "2"]


def test_recreate_stops_all_before_it_starts_any(world):
    world.apply(DEPLOYMENT, replicas=2, strategy={"type": "Recreate"})
    world.come_to_rest()
    world.apply(DEPLOYMENT, "2", replicas=2, strategy={"type": "Recreate"})
    world.settle()
    assert world.versions(alive=False) == ["1", "1"]
    assert all(map(owned.terminating, world.pods()))
    world.come_to_rest()
    assert world.versions(alive=False) == ["2", "2"]


class TestRevisions:
    def test_they_are_numbered_and_going_back_gives_a_new_number(self, world):
        for version in ("1", "2", "1"):
            world.apply(DEPLOYMENT, version, replicas=1)
            world.come_to_rest()
        assert sets(world) == [(2, 0), (3, 1)]
        newest = world.cluster.list_objects(RS)
        history = {
            one["metadata"]["annotations"][rollout.REVISION]: one["metadata"]["annotations"].get(
                rollout.HISTORY
            )
            for one in newest
        }
        assert history == {"2": None, "3": "1"}
        annotations = world.cluster.get(DEPLOYMENT, "default", "web")["metadata"]["annotations"]
        assert annotations[rollout.REVISION] == "3"

    def test_the_cause_of_a_change_is_handed_down(self, world):
        world.apply(DEPLOYMENT, replicas=1)
        cause = {"kubernetes.io/change-cause": "because"}
        world.cluster.patch(DEPLOYMENT, "default", "web", {"metadata": {"annotations": cause}})
        world.come_to_rest()
        (one,) = world.cluster.list_objects(RS)
        assert one["metadata"]["annotations"]["kubernetes.io/change-cause"] == "because"

    def test_old_ones_are_forgotten_beyond_the_limit(self, world):
        for version in ("1", "2", "3", "4"):
            world.apply(DEPLOYMENT, version, replicas=1, revisionHistoryLimit=1)
            world.come_to_rest()
        assert sets(world) == [(3, 0), (4, 1)]

    def test_a_replica_set_with_the_name_and_another_template_is_passed_over(self, world):
        world.apply(DEPLOYMENT, replicas=1)
        world.settle()
        (one,) = world.cluster.list_objects(RS)
        name = one["metadata"]["name"]
        world.cluster.delete(DEPLOYMENT, "default", "web")
        world.cluster.delete(RS, "default", name)
        world.apply(RS, "else", name=name, replicas=0)
        world.apply(DEPLOYMENT, replicas=1)
        world.settle()
        assert len(world.cluster.list_objects(RS)) == 2

    def test_a_replica_set_that_was_orphaned_is_adopted_again(self, world):
        made = world.apply(DEPLOYMENT, replicas=2)
        world.come_to_rest()
        pods = world.names()
        (one,) = world.cluster.list_objects(RS)
        world.cluster.delete(DEPLOYMENT, "default", "web")
        patch = {"metadata": {"ownerReferences": None}}
        world.cluster.patch(RS, "default", one["metadata"]["name"], patch)
        again = world.apply(DEPLOYMENT, replicas=2)
        world.come_to_rest()
        assert world.names() == pods
        (one,) = world.cluster.list_objects(RS)
        assert owned.owner(one)["uid"] == again["metadata"]["uid"] != made["metadata"]["uid"]


class TestPauseAndScale:
    def test_a_paused_deployment_begins_no_rollout_and_is_scaled_all_the_same(self, world):
        world.apply(DEPLOYMENT, replicas=2)
        world.come_to_rest()
        world.apply(DEPLOYMENT, "2", replicas=4, paused=True)
        world.come_to_rest()
        assert world.versions() == ["1"] * 4
        world.apply(DEPLOYMENT, "2", replicas=4)
        world.come_to_rest()
        assert world.versions() == ["2"] * 4

    def test_scaling_in_the_middle_keeps_the_proportion(self, world):
        strategy = rolling(3, 2)
        world.apply(DEPLOYMENT, replicas=10, strategy=strategy)
        world.come_to_rest()
        world.apply(DEPLOYMENT, "2", replicas=10, strategy=strategy)
        world.settle()  # The new ones do not become ready: 8 old and 5 new.
        assert sets(world) == [(1, 8), (2, 5)]
        world.apply(DEPLOYMENT, "2", replicas=15, strategy=strategy)
        world.reconcile(DEPLOYMENT)
        # As in Kubernetes' documentation: 18 pods in all, of which 11 are old.
        assert sets(world) == [(1, 11), (2, 7)]
        world.come_to_rest()
        assert world.versions() == ["2"] * 15

    def test_scaling_to_nothing_and_back(self, world):
        for replicas in (3, 0, 2):
            world.apply(DEPLOYMENT, replicas=replicas)
            world.come_to_rest()
            assert len(world.pods(alive=True)) == replicas


class TestStatus:
    def test_it_tells_what_is(self, world):
        world.apply(DEPLOYMENT, replicas=2, strategy=rolling(1, 0))
        world.settle()
        assert condition(world, "Available")["reason"] == "MinimumReplicasUnavailable"
        world.set_status(world.names()[0])
        world.settle()
        status = world.status(DEPLOYMENT)
        counts = {name: status[name] for name in status if name.endswith("eplicas")}
        assert counts == {
            "replicas": 2,
            "updatedReplicas": 2,
            "readyReplicas": 1,
            "availableReplicas": 1,
            "unavailableReplicas": 1,
        }
        assert status["observedGeneration"] == 1
        assert condition(world, "Available")["status"] == "False"
        assert condition(world, "Progressing") is None, "it has no deadline"
        world.set_status(world.names()[1])
        world.settle()
        available = condition(world, "Available")
        assert (available["status"], available["reason"]) == ("True", "MinimumReplicasAvailable")

    def test_progress_ends_in_success(self, world):
        world.apply(DEPLOYMENT, replicas=2, progressDeadlineSeconds=60)
        world.reconcile(DEPLOYMENT)
        assert condition(world, "Progressing")["reason"] == "NewReplicaSetCreated"
        world.settle()
        assert condition(world, "Progressing")["reason"] == "ReplicaSetUpdated"
        world.come_to_rest()
        done = condition(world, "Progressing")
        assert (done["status"], done["reason"]) == ("True", "NewReplicaSetAvailable")
        world.cluster.wall += 1000
        world.settle()
        assert condition(world, "Progressing") == done

    def test_or_the_deadline_is_exceeded(self, world):
        world.apply(DEPLOYMENT, replicas=2, progressDeadlineSeconds=60)
        world.settle()
        wait = world.reconcile(DEPLOYMENT)
        assert wait == 61.0
        world.cluster.wall += 59
        world.settle()
        assert condition(world, "Progressing")["status"] == "True"
        world.cluster.wall += 2
        world.settle()
        late = condition(world, "Progressing")
        assert (late["status"], late["reason"]) == ("False", "ProgressDeadlineExceeded")
        assert world.reconcile(DEPLOYMENT) is None
        world.come_to_rest()
        assert condition(world, "Progressing")["reason"] == "NewReplicaSetAvailable"

    def test_a_pause_stops_the_clock(self, world):
        world.apply(DEPLOYMENT, replicas=2, progressDeadlineSeconds=60)
        world.settle()
        world.apply(DEPLOYMENT, replicas=2, progressDeadlineSeconds=60, paused=True)
        world.settle()
        paused = condition(world, "Progressing")
        assert (paused["status"], paused["reason"]) == ("Unknown", "DeploymentPaused")
        world.cluster.wall += 1000
        world.settle()
        assert condition(world, "Progressing")["reason"] == "DeploymentPaused"
        world.apply(DEPLOYMENT, replicas=2, progressDeadlineSeconds=60)
        world.settle()
        assert condition(world, "Progressing")["reason"] == "DeploymentResumed"

    def test_what_a_replica_set_cannot_do_is_told(self, world):
        world.apply(DEPLOYMENT, replicas=1)

        def refuse(verb, kind, name):
            if kind is catalog.POD:
                raise errors.ApiError(403, "Forbidden", "exceeded quota")

        world.cluster.before = refuse
        world.reconcile(DEPLOYMENT)
        (one,) = world.cluster.list_objects(RS)
        with pytest.raises(errors.ApiError):
            world.reconcile(RS, one["metadata"]["name"])
        world.reconcile(DEPLOYMENT)
        assert condition(world, "ReplicaFailure")["message"] == "exceeded quota"

    def test_a_replica_set_that_cannot_be_made_is_told(self, world):
        world.apply(DEPLOYMENT, replicas=1, progressDeadlineSeconds=60)

        def refuse(verb, kind, name):
            if kind is RS:
                raise errors.ApiError(403, "Forbidden", "exceeded quota")

        world.cluster.before = refuse
        with pytest.raises(errors.ApiError):
            world.reconcile(DEPLOYMENT)
        found = condition(world, "Progressing")
        assert (found["status"], found["reason"]) == ("False", "ReplicaSetCreateError")

    def test_one_that_is_being_deleted_is_left_alone(self, world):
        world.apply(DEPLOYMENT, replicas=1)
        world.settle()
        meta = {"finalizers": ["foregroundDeletion"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
        found = world.cluster._objects[DEPLOYMENT]["default", "web"]
        found = {**found, "metadata": {**found["metadata"], **meta}}
        world.cluster._objects[DEPLOYMENT]["default", "web"] = found
        (one,) = world.cluster.list_objects(RS)
        world.cluster.delete(RS, "default", one["metadata"]["name"])
        world.settle()
        assert not world.cluster.list_objects(RS)

"""StatefulSets: ordinals that stay, one after the other, updates from the highest down."""

import pytest
from controller_world import World

from kproxy.api import catalog
from kproxy.controlplane.controllers import owned, podcontrol, revisions

SS = catalog.STATEFUL_SET


@pytest.fixture
def world():
    return World()


def rolling(partition):
    return {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}


def versions(world):
    return {
        pod["metadata"]["name"]: pod["metadata"]["annotations"]["version"] for pod in world.pods()
    }


def test_pods_are_made_one_after_the_other_with_names_that_stay(world):
    world.apply(SS, replicas=3, serviceName="db")
    for count in (1, 2, 3):
        world.settle()
        assert world.names() == [f"web-{number}" for number in range(count)]
        world.run_all()
    first = world.pods()[0]
    assert (first["spec"]["hostname"], first["spec"]["subdomain"]) == ("web-0", "db")
    labels = first["metadata"]["labels"]
    assert labels["statefulset.kubernetes.io/pod-name"] == "web-0"
    assert labels["apps.kubernetes.io/pod-index"] == "0"
    world.settle()
    status = world.status(SS)
    names = ("replicas", "readyReplicas", "availableReplicas", "updatedReplicas")
    assert [status[name] for name in names] == [3] * 4
    assert status["currentRevision"] == status["updateRevision"] == labels[revisions.HASH_LABEL]


def test_claims_are_volumes_of_each_pod(world):
    mount = {"name": "disk", "mountPath": "/disk"}
    containers = [{"name": "c", "image": "x", "volumeMounts": [mount]}]
    pod = {"containers": containers, "volumes": [{"name": "own", "emptyDir": {}}]}
    claims = [{"metadata": {"name": "disk"}, "spec": {}}]
    world.apply(SS, pod_spec=pod, replicas=2, volumeClaimTemplates=claims)
    world.come_to_rest()
    assert [one["spec"]["volumes"] for one in world.pods()] == [
        [
            {"name": "disk", "persistentVolumeClaim": {"claimName": f"disk-web-{number}"}},
            {"name": "own", "emptyDir": {}},
        ]
        for number in (0, 1)
    ]


def test_in_parallel_no_round_makes_more_than_kubernetes_bursts(world, monkeypatch):
    monkeypatch.setattr(podcontrol, "ROUND_MOST", 5)
    world.apply(SS, replicas=13, podManagementPolicy="Parallel")
    assert world.reconcile(SS) == 0.0
    assert sorted(world.names()) == [f"web-{number}" for number in range(5)]
    assert world.reconcile(SS) == 0.0
    assert world.reconcile(SS) is None
    assert len(world.names()) == 13


def test_in_parallel_nobody_waits(world):
    world.apply(SS, replicas=3, podManagementPolicy="Parallel")
    world.reconcile(SS)
    assert world.names() == ["web-0", "web-1", "web-2"]
    world.come_to_rest()
    world.apply(SS, replicas=0, podManagementPolicy="Parallel")
    world.reconcile(SS)
    assert [owned.terminating(pod) for pod in world.pods()] == [True] * 3


def test_the_highest_goes_first_and_each_is_waited_for(world):
    world.apply(SS, replicas=3)
    world.come_to_rest()
    world.apply(SS, replicas=1)
    for left in (["web-0", "web-1"], ["web-0"]):
        world.settle()
        leaving = [pod["metadata"]["name"] for pod in world.pods() if owned.terminating(pod)]
        assert len(leaving) == 1
        world.run_all()
        assert world.names() == left


def test_a_pod_comes_back_under_its_name_only_when_the_old_one_is_gone(world):
    world.apply(SS, replicas=2)
    world.come_to_rest()
    victim = world.pods()[0]
    world.delete_pod(victim)
    world.settle()
    assert owned.uid(world.pods()[0]) == owned.uid(victim)
    world.come_to_rest()
    assert world.names() == ["web-0", "web-1"]
    assert owned.uid(world.pods()[0]) != owned.uid(victim)


def test_a_failed_pod_is_replaced_under_its_name(world):
    world.apply(SS, replicas=2)
    world.come_to_rest()
    world.set_status("web-0", "Failed", ready=False)
    world.come_to_rest()
    assert [owned.ready(pod) for pod in world.pods()] == [True, True]


def test_an_update_goes_from_the_highest_down_one_at_a_time(world):
    world.apply(SS, replicas=3)
    world.come_to_rest()
    before = world.status(SS)["currentRevision"]
    world.apply(SS, "2", replicas=3)
    order = []
    for _ in range(12):
        world.settle()
        leaving = [pod["metadata"]["name"] for pod in world.pods() if owned.terminating(pod)]
        assert sum(map(owned.ready, world.pods())) >= 2
        order += leaving
        if leaving == ["web-1"]:
            status = world.status(SS)
            assert (status["currentRevision"], status["updatedReplicas"]) == (before, 1)
        world.run_all()
    assert order == ["web-2", "web-1", "web-0"]
    assert set(versions(world).values()) == {"2"}
    status = world.status(SS)
    assert status["currentRevision"] == status["updateRevision"] != before


def test_pods_below_the_partition_stay_old_also_when_they_are_replaced(world):
    world.apply(SS, replicas=3, updateStrategy=rolling(2))
    world.come_to_rest()
    world.apply(SS, "2", replicas=3, updateStrategy=rolling(2))
    world.come_to_rest()
    assert versions(world) == {"web-0": "1", "web-1": "1", "web-2": "2"}
    world.delete_pod(world.pods()[0])
    world.come_to_rest()
    assert versions(world) == {"web-0": "1", "web-1": "1", "web-2": "2"}
    world.apply(SS, "2", replicas=3, updateStrategy=rolling(0))
    world.come_to_rest()
    assert set(versions(world).values()) == {"2"}


def test_on_delete_waits_for_the_user(world):
    world.apply(SS, replicas=2, updateStrategy={"type": "OnDelete"})
    world.come_to_rest()
    world.apply(SS, "2", replicas=2, updateStrategy={"type": "OnDelete"})
    world.come_to_rest()
    assert set(versions(world).values()) == {"1"}
    world.delete_pod(world.pods()[1])
    world.come_to_rest()
    assert versions(world) == {"web-0": "1", "web-1": "2"}


def test_a_pod_that_is_not_ready_stops_an_update(world):
    world.apply(SS, replicas=3)
    world.come_to_rest()
    world.apply(SS, "2", replicas=3)
    world.settle()
    world.run_all()
    world.settle()  # web-2 is new and not ready.
    assert not any(map(owned.terminating, world.pods()))
    assert versions(world) == {"web-0": "1", "web-1": "1", "web-2": "2"}


def test_min_ready_seconds_are_waited_for_between_pods(world):
    world.apply(SS, replicas=2, minReadySeconds=10)
    world.settle()
    world.run_all()
    assert world.reconcile(SS) == 10.0
    assert world.names() == ["web-0"]
    world.cluster.wall += 10
    world.settle()
    assert world.names() == ["web-0", "web-1"]


def test_ordinals_may_begin_later_and_others_are_left_over(world):
    world.apply(SS, replicas=2)
    world.come_to_rest()
    world.apply(SS, replicas=2, ordinals={"start": 1})
    world.come_to_rest()
    assert world.names() == ["web-1", "web-2"]


def test_pods_that_only_look_alike_are_nobodys(world):
    meta = {"name": "web-01", "namespace": "default", "labels": {"app": "web"}}
    world.cluster.create(catalog.POD, {"metadata": meta, "spec": {"containers": [{"name": "c"}]}})
    world.apply(SS, replicas=1)
    world.come_to_rest()
    assert world.names() == ["web-0", "web-01"]
    assert not owned.owner(world.pods()[1])


def test_history_is_kept_and_forgotten(world):
    for version in ("1", "2", "3", "4"):
        world.apply(SS, version, replicas=1, revisionHistoryLimit=1)
        world.come_to_rest()
    kept = world.cluster.list_objects(catalog.CONTROLLER_REVISION)
    assert sorted(one["revision"] for one in kept) == [3, 4]


def test_reconciling_again_changes_nothing(world):
    world.apply(SS, replicas=3)
    world.come_to_rest()
    version = world.cluster.version
    world.settle()
    assert world.cluster.version == version

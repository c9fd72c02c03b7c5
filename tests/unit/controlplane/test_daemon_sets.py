"""DaemonSets: one pod on every fit node, replaced node by node, with a history."""

import pytest
from controller_world import World

from kproxy.api import catalog, kinds
from kproxy.controlplane import nodefit
from kproxy.controlplane.controllers import daemonpods, owned, revisions

DS = catalog.DAEMON_SET


@pytest.fixture
def world():
    return World()


def on_nodes(world, *, alive=False):
    """Return the versions of the pods that are on, or meant for, each node."""
    found: dict[str, list[str]] = {}
    for pod in world.pods(alive=alive):
        version = pod["metadata"]["annotations"]["version"]
        found.setdefault(daemonpods.node_of(pod), []).append(version)
    return {node: sorted(found[node]) for node in sorted(found)}


def surge(limit):
    limits = {"maxSurge": limit, "maxUnavailable": 0}
    return {"type": "RollingUpdate", "rollingUpdate": limits}


class TestPlaces:
    def test_one_pod_for_every_node_which_the_scheduler_binds(self, world):
        world.apply(DS)
        world.reconcile(DS)
        assert on_nodes(world) == {"n1": ["1"], "n2": ["1"], "n3": ["1"]}
        assert not any(pod["spec"].get("nodeName") for pod in world.pods())
        world.come_to_rest()
        assert sorted(pod["spec"]["nodeName"] for pod in world.pods()) == ["n1", "n2", "n3"]
        assert on_nodes(world) == {"n1": ["1"], "n2": ["1"], "n3": ["1"]}

    def test_a_node_that_is_cordoned_or_not_ready_has_one_too(self, world):
        world.node("n4", unschedulable=True)
        not_ready = {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}
        world.node("n5", ready="False", taints=[not_ready])
        world.apply(DS)
        world.come_to_rest()
        assert list(on_nodes(world)) == ["n1", "n2", "n3", "n4", "n5"]

    def test_taints_that_its_pods_do_not_bear_keep_them_away(self, world):
        taint = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
        world.node("n4", taints=[taint])
        world.apply(DS)
        world.come_to_rest()
        assert "n4" not in on_nodes(world)
        toleration = {"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}
        world.apply(DS, pod_spec={"tolerations": [toleration]})
        world.come_to_rest()
        assert "n4" in on_nodes(world)

    def test_a_taint_against_running_ones_drives_them_out_one_against_new_does_not(self, world):
        world.apply(DS)
        world.come_to_rest()
        for name, effect in (("n1", "NoExecute"), ("n2", "NoSchedule")):
            spec = {"taints": [{"key": "k", "effect": effect}]}
            world.cluster.patch(kinds.NODE, "", name, {"spec": spec})
        world.come_to_rest()
        assert list(on_nodes(world)) == ["n2", "n3"]
        assert world.status(DS)["numberMisscheduled"] == 1
        assert world.status(DS)["desiredNumberScheduled"] == 1

    def test_node_selectors_and_affinity_choose_nodes(self, world):
        world.node("big", labels={"size": "9"})
        world.apply(DS, pod_spec={"nodeSelector": {"size": "9"}})
        world.come_to_rest()
        assert list(on_nodes(world)) == ["big"]
        terms = [{"matchExpressions": [{"key": "size", "operator": "DoesNotExist"}]}]
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
        world.apply(DS, pod_spec={"affinity": {"nodeAffinity": required}})
        world.come_to_rest()
        assert list(on_nodes(world)) == ["n1", "n2", "n3"]

    def test_pods_for_a_node_that_is_gone_are_deleted_unless_they_run_there(self, world):
        world.apply(DS)
        world.reconcile(DS)
        world.cluster.delete(kinds.NODE, "", "n2")
        world.reconcile(DS)
        assert list(on_nodes(world)) == ["n1", "n3"]

    def test_what_every_pod_bears(self, world):
        world.apply(DS, pod_spec={"hostNetwork": True})
        world.reconcile(DS)
        spec = world.pods()[0]["spec"]
        taints = [
            ("node.kubernetes.io/not-ready", "NoExecute"),
            ("node.kubernetes.io/unreachable", "NoExecute"),
            ("node.kubernetes.io/disk-pressure", "NoSchedule"),
            ("node.kubernetes.io/memory-pressure", "NoSchedule"),
            ("node.kubernetes.io/pid-pressure", "NoSchedule"),
            ("node.kubernetes.io/unschedulable", "NoSchedule"),
            ("node.kubernetes.io/network-unavailable", "NoSchedule"),
        ]
        for key, effect in taints:
            node = {
                "metadata": {"name": "n"},
                "spec": {"taints": [{"key": key, "effect": effect}]},
            }
            assert nodefit.untolerated(spec, node, ("NoSchedule", "NoExecute")) is None


class TestReplacement:
    def test_a_deleted_pod_is_recreated_as_soon_as_it_is_gone(self, world):
        world.apply(DS)
        world.come_to_rest()
        (victim,) = [pod for pod in world.pods() if pod["spec"]["nodeName"] == "n2"]
        world.delete_pod(victim)
        world.reconcile(DS)
        assert len(world.pods()) == 3
        world.come_to_rest()
        assert on_nodes(world) == {"n1": ["1"], "n2": ["1"], "n3": ["1"]}
        assert victim["metadata"]["name"] not in world.names()

    def test_failed_pods_are_replaced_more_and_more_slowly(self, world):
        world.apply(DS)
        waits = []
        for _ in range(4):
            world.come_to_rest()
            (pod,) = [one for one in world.pods() if one["spec"]["nodeName"] == "n2"]
            world.set_status(pod["metadata"]["name"], "Failed", ready=False)
            waits.append(world.reconcile(DS))
            world.monotonic += waits[-1] or 0.0
            world.reconcile(DS)
        assert waits == [None, 1.0, 2.0, 4.0]
        assert [reason for reason, _ in world.events.all].count("FailedDaemonPod") == 4

    def test_two_on_one_node_become_one(self, world):
        world.apply(DS)
        world.come_to_rest()
        twin = daemonpods.new(world.cluster.get(DS, "default", "web"), "x", "n1")
        twin["metadata"]["name"] = "twin"
        world.cluster.create(catalog.POD, twin)
        world.come_to_rest()
        assert "twin" not in world.names()
        assert on_nodes(world) == {"n1": ["1"], "n2": ["1"], "n3": ["1"]}


class TestUpdate:
    def test_it_goes_by_node_and_never_two_at_once(self, world):
        world.apply(DS)
        world.come_to_rest()
        world.apply(DS, "2")
        order = []
        for _ in range(20):
            world.settle()
            assert sum(map(owned.ready, world.pods())) >= 2
            order += [p["spec"]["nodeName"] for p in world.pods() if owned.terminating(p)]
            world.run_all()
        assert order == ["n1", "n2", "n3"]
        assert on_nodes(world) == {"n1": ["2"], "n2": ["2"], "n3": ["2"]}
        status = world.status(DS)
        assert (status["updatedNumberScheduled"], status["numberAvailable"]) == (3, 3)

    def test_the_pod_that_is_out_anyway_is_the_one_to_replace(self, world):
        world.apply(DS)
        world.come_to_rest()
        (out,) = [pod for pod in world.pods() if pod["spec"]["nodeName"] == "n3"]
        world.set_status(out["metadata"]["name"], ready=False)
        world.apply(DS, "2")
        world.reconcile(DS)
        leaving = [p["spec"]["nodeName"] for p in world.pods() if owned.terminating(p)]
        assert leaving == ["n3"]

    def test_max_unavailable_may_be_a_percentage(self, world):
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "50%"}}
        world.apply(DS, updateStrategy=strategy)
        world.come_to_rest()
        world.apply(DS, "2", updateStrategy=strategy)
        world.reconcile(DS)
        assert sum(map(owned.terminating, world.pods())) == 2

    def test_a_new_pod_must_have_been_ready_for_min_ready_seconds(self, world):
        world.apply(DS, minReadySeconds=10)
        world.come_to_rest()
        world.cluster.wall += 10
        world.apply(DS, "2", minReadySeconds=10)
        world.settle()
        world.run_all()
        world.settle()
        world.run_all()
        assert world.reconcile(DS) == 10.0
        assert on_nodes(world, alive=True) == {"n1": ["2"], "n2": ["1"], "n3": ["1"]}
        world.cluster.wall += 10
        world.settle()
        assert on_nodes(world, alive=True) == {"n1": ["2"], "n3": ["1"]}

    def test_on_delete_waits_for_the_user(self, world):
        world.apply(DS, updateStrategy={"type": "OnDelete"})
        world.come_to_rest()
        world.apply(DS, "2", updateStrategy={"type": "OnDelete"})
        world.come_to_rest()
        assert on_nodes(world) == {"n1": ["1"], "n2": ["1"], "n3": ["1"]}
        world.delete_pod(world.pods()[0])
        world.come_to_rest()
        assert world.versions() == ["1", "1", "2"]


class TestSurge:
    def test_a_new_pod_runs_beside_the_old_one(self, world):
        world.apply(DS, updateStrategy=surge(1))
        world.come_to_rest()
        world.apply(DS, "2", updateStrategy=surge(1))
        world.settle()
        assert on_nodes(world) == {"n1": ["1", "2"], "n2": ["1"], "n3": ["1"]}
        assert not any(map(owned.terminating, world.pods())), "the new one is not ready"
        (new,) = [p for p in world.pods() if p["metadata"]["annotations"]["version"] == "2"]
        world.set_status(new["metadata"]["name"])
        world.reconcile(DS)
        leaving = [pod for pod in world.pods() if owned.terminating(pod)]
        assert [pod["spec"]["nodeName"] for pod in leaving] == ["n1"]
        assert on_nodes(world)["n2"] == ["1"], "two still run on n1"
        for _ in range(12):
            world.run_all()
            ready = {p["spec"]["nodeName"] for p in world.pods() if owned.ready(p)}
            assert ready == {"n1", "n2", "n3"}, "no node is ever without one"
            world.settle()
            assert sum(len(found) > 1 for found in on_nodes(world).values()) <= 1
        assert on_nodes(world) == {"n1": ["2"], "n2": ["2"], "n3": ["2"]}

    def test_it_may_go_over_several_nodes_at_once(self, world):
        world.apply(DS, updateStrategy=surge("50%"))
        world.come_to_rest()
        world.apply(DS, "2", updateStrategy=surge("50%"))
        world.reconcile(DS)
        assert [len(found) for found in on_nodes(world).values()] == [2, 2, 1]

    def test_it_does_not_wait_for_pods_that_serve_nobody(self, world):
        world.apply(DS, updateStrategy=surge(1))
        world.come_to_rest()
        (out,) = [pod for pod in world.pods() if pod["spec"]["nodeName"] == "n3"]
        world.set_status(out["metadata"]["name"], ready=False)
        world.apply(DS, "2", updateStrategy=surge(1))
        world.reconcile(DS)
        assert [len(found) for found in on_nodes(world).values()] == [2, 1, 2]

    def test_a_template_changed_meanwhile_leaves_two_pods_at_most(self, world):
        for version in ("1", "2", "3"):
            world.apply(DS, version, updateStrategy=surge(1))
            world.settle()
            if version == "1":
                world.run_all()
        assert on_nodes(world, alive=True)["n1"] == ["1", "3"]
        world.come_to_rest()
        assert on_nodes(world) == {"n1": ["3"], "n2": ["3"], "n3": ["3"]}

    def test_a_surging_pod_that_fails_leaves_the_old_one_alone(self, world):
        world.apply(DS, updateStrategy=surge(1))
        world.come_to_rest()
        world.apply(DS, "2", updateStrategy=surge(1))
        world.settle()
        (new,) = [p for p in world.pods() if p["metadata"]["annotations"]["version"] == "2"]
        world.set_status(new["metadata"]["name"], "Failed", ready=False)
        world.reconcile(DS)
        assert on_nodes(world) == {"n1": ["1", "2"], "n2": ["1"], "n3": ["1"]}
        assert new["metadata"]["name"] not in world.names()


class TestHistory:
    def test_revisions_are_numbered_and_reused(self, world):
        for version in ("1", "2", "1"):
            world.apply(DS, version)
            world.come_to_rest()
        kept = world.cluster.list_objects(catalog.CONTROLLER_REVISION)
        assert sorted(one["revision"] for one in kept) == [2, 3]
        newest = max(kept, key=lambda one: one["revision"])
        assert newest["data"]["spec"]["template"]["$patch"] == "replace"
        annotations = revisions.template(newest)["metadata"]["annotations"]
        assert annotations == {"version": "1"}
        hashes = {pod["metadata"]["labels"][revisions.HASH_LABEL] for pod in world.pods()}
        assert hashes == {revisions.digest(newest)}

    def test_they_are_forgotten_beyond_the_limit(self, world):
        for version in ("1", "2", "3", "4"):
            world.apply(DS, version, revisionHistoryLimit=1)
            world.come_to_rest()
        kept = world.cluster.list_objects(catalog.CONTROLLER_REVISION)
        assert sorted(one["revision"] for one in kept) == [3, 4]


def test_reconciling_again_changes_nothing(world):
    world.apply(DS)
    world.come_to_rest()
    version = world.cluster.version
    world.settle()
    assert world.cluster.version == version

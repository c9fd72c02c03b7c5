"""Deployments and DaemonSets: numbers converge, pods are replaced, updates keep their limits."""

import io
from collections import Counter

import pytest
from local_cluster import LocalCluster, new_api

from kproxy import errors, logs
from kproxy.api import catalog, kinds
from kproxy.controlplane.controllers import owned
from kproxy.controlplane.controllers.daemonset import DaemonSetController
from kproxy.controlplane.controllers.deployment import DeploymentController

KEY = "default/web"


class World:
    """A cluster with nodes but without kubelets: tests say what becomes of pods."""

    def __init__(self, nodes: int = 3) -> None:
        self.cluster = LocalCluster(new_api(now=lambda: 0.0))
        for number in range(1, nodes + 1):
            self.node(f"n{number}")
        self.log = logs.Log("manager", stream=io.StringIO())
        self.deployments = DeploymentController(self.cluster, self.log)
        self.daemon_sets = DaemonSetController(self.cluster, self.log)

    def node(self, name: str, ready: str = "True", **spec: object) -> None:
        status = {"conditions": [{"type": "Ready", "status": ready}]}
        body = {"metadata": {"name": name}, "spec": spec, "status": status}
        self.cluster.create(kinds.NODE, body)

    def apply(self, kind: kinds.Kind, version: str = "1", **spec: object) -> None:
        template = {
            "metadata": {"labels": {"app": "web"}, "annotations": {"version": version}},
            "spec": {"containers": [{"name": "c", "image": "x", "resources": {"limits": {}}}]},
        }
        body = {
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template, **spec},
        }
        if self.cluster.get(kind, "default", "web") is None:
            self.cluster.create(kind, body)
        else:
            self.cluster.update(kind, body)

    def pods(self):
        return list(self.cluster.list_objects(catalog.POD))

    def names(self):
        return [pod["metadata"]["name"] for pod in self.pods()]

    def set_status(self, name: str, phase: str = "Running", ready: bool = True) -> None:
        conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
        body = {
            "metadata": {"name": name, "namespace": "default"},
            "status": {"phase": phase, "conditions": conditions},
        }
        self.cluster.update_status(catalog.POD, body)

    def run_all(self) -> None:
        """Do what kubelets do in time: run the pods, confirm the deletions."""
        for pod in self.pods():
            name = pod["metadata"]["name"]
            if owned.terminating(pod):
                self.cluster.delete(catalog.POD, "default", name, grace=0)
            elif not owned.ready(pod):
                self.set_status(name)


@pytest.fixture
def world():
    return World()


def hashes(world, label):
    return Counter(pod["metadata"]["labels"][label] for pod in world.pods())


class TestDeployment:
    def test_replicas_are_spread_over_the_nodes(self, world):
        world.apply(catalog.DEPLOYMENT, replicas=5)
        world.deployments.reconcile(KEY)
        nodes = [pod["spec"]["nodeName"] for pod in world.pods()]
        assert nodes == ["n1", "n2", "n3", "n1", "n2"]
        assert world.names() == ["web-1", "web-2", "web-3", "web-4", "web-5"]

    def test_pods_carry_the_template_and_their_owner(self, world):
        world.apply(catalog.DEPLOYMENT)
        world.deployments.reconcile(KEY)
        (pod,) = world.pods()
        assert pod["metadata"]["labels"]["app"] == "web"
        assert pod["metadata"]["annotations"] == {"version": "1"}
        assert pod["spec"]["containers"][0]["resources"] == {"limits": {}}
        (owner,) = pod["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["controller"]) == ("Deployment", "web", True)

    def test_reconciling_again_changes_nothing(self, world):
        world.apply(catalog.DEPLOYMENT, replicas=3)
        for _ in range(2):
            world.deployments.reconcile(KEY)
            world.run_all()
        world.deployments.reconcile(KEY)
        version = world.cluster._api.store.version
        world.deployments.reconcile(KEY)
        assert world.cluster._api.store.version == version

    @pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
    def test_an_ended_pod_is_replaced_by_one_of_another_name(self, world, phase):
        world.apply(catalog.DEPLOYMENT, replicas=2)
        world.deployments.reconcile(KEY)
        world.run_all()
        world.set_status("web-2", phase)
        world.deployments.reconcile(KEY)
        assert world.names() == ["web-1", "web-3"]

    def test_a_deleted_pod_is_replaced_before_it_is_gone(self, world):
        world.apply(catalog.DEPLOYMENT, replicas=2)
        world.deployments.reconcile(KEY)
        world.cluster.delete(catalog.POD, "default", "web-2")
        world.deployments.reconcile(KEY)
        assert world.names() == ["web-1", "web-2", "web-3"]

    def test_names_are_not_reused_by_a_restarted_controller(self, world):
        world.apply(catalog.DEPLOYMENT, replicas=2)
        world.deployments.reconcile(KEY)
        world.cluster.delete(catalog.POD, "default", "web-2", grace=0)
        DeploymentController(world.cluster, world.log).reconcile(KEY)
        assert world.names() == ["web-1", "web-3"]

    def test_scaling_down_takes_pods_that_are_not_ready_first(self, world):
        world.apply(catalog.DEPLOYMENT, replicas=3)
        world.deployments.reconcile(KEY)
        for name in ("web-2", "web-3"):
            world.set_status(name)
        world.apply(catalog.DEPLOYMENT, replicas=2)
        world.deployments.reconcile(KEY)
        world.run_all()
        assert world.names() == ["web-2", "web-3"]

    def test_only_ready_schedulable_nodes_are_chosen(self):
        world = World(nodes=0)
        world.node("cordoned", unschedulable=True)
        world.node("down", ready="False")
        world.node("tainted", taints=[{"key": "k", "effect": "NoSchedule"}])
        world.apply(catalog.DEPLOYMENT)
        with pytest.raises(errors.KproxyError, match="no node is ready"):
            world.deployments.reconcile(KEY)
        world.node("z-good")
        world.deployments.reconcile(KEY)
        assert [pod["spec"]["nodeName"] for pod in world.pods()] == ["z-good"]

    def test_a_deleted_deployment_takes_its_pods_along(self, world):
        world.apply(catalog.DEPLOYMENT, replicas=2)
        world.deployments.reconcile(KEY)
        world.cluster.delete(catalog.DEPLOYMENT, "default", "web")
        world.deployments.reconcile(KEY)
        assert all(owned.terminating(pod) for pod in world.pods())

    def test_a_rolling_update_keeps_to_its_limits_and_ends(self, world):
        limits = {"maxSurge": 1, "maxUnavailable": 1}
        strategy = {"type": "RollingUpdate", "rollingUpdate": limits}
        world.apply(catalog.DEPLOYMENT, replicas=4, strategy=strategy)
        world.deployments.reconcile(KEY)
        world.run_all()
        world.apply(catalog.DEPLOYMENT, "2", replicas=4, strategy=strategy)
        for _ in range(20):
            world.deployments.reconcile(KEY)
            active = [pod for pod in world.pods() if not owned.terminating(pod)]
            assert sum(owned.ready(pod) for pod in active) >= 3
            assert len(active) <= 5
            world.run_all()
        versions = {pod["metadata"]["annotations"]["version"] for pod in world.pods()}
        assert (versions, len(world.pods())) == ({"2"}, 4)

    def test_recreate_stops_all_before_it_starts_any(self, world):
        strategy = {"type": "Recreate"}
        world.apply(catalog.DEPLOYMENT, replicas=2, strategy=strategy)
        world.deployments.reconcile(KEY)
        world.run_all()
        world.apply(catalog.DEPLOYMENT, "2", replicas=2, strategy=strategy)
        world.deployments.reconcile(KEY)
        assert all(owned.terminating(pod) for pod in world.pods())
        assert len(world.pods()) == 2
        world.run_all()
        world.deployments.reconcile(KEY)
        assert [pod["metadata"]["annotations"]["version"] for pod in world.pods()] == ["2", "2"]

    def test_status_tells_what_is(self, world):
        world.apply(catalog.DEPLOYMENT, replicas=2)
        world.deployments.reconcile(KEY)
        world.set_status("web-1")
        world.deployments.reconcile(KEY)
        status = world.cluster.get(catalog.DEPLOYMENT, "default", "web")["status"]
        assert (status["replicas"], status["readyReplicas"]) == (2, 1)
        assert (status["updatedReplicas"], status["observedGeneration"]) == (2, 1)


class TestDaemonSet:
    def test_one_pod_on_every_node(self, world):
        world.apply(catalog.DAEMON_SET)
        world.daemon_sets.reconcile(KEY)
        assert sorted(pod["spec"]["nodeName"] for pod in world.pods()) == ["n1", "n2", "n3"]
        world.node("n4", unschedulable=True)
        world.daemon_sets.reconcile(KEY)
        assert len(world.pods()) == 4

    def test_a_deleted_pod_is_recreated_as_soon_as_it_is_gone(self, world):
        world.apply(catalog.DAEMON_SET)
        world.daemon_sets.reconcile(KEY)
        world.run_all()
        (name,) = [p["metadata"]["name"] for p in world.pods() if p["spec"]["nodeName"] == "n2"]
        world.cluster.delete(catalog.POD, "default", name)
        world.daemon_sets.reconcile(KEY)
        assert len(world.pods()) == 3
        world.run_all()
        world.daemon_sets.reconcile(KEY)
        assert sorted(pod["spec"]["nodeName"] for pod in world.pods()) == ["n1", "n2", "n3"]
        assert name not in world.names()

    def test_a_failed_pod_is_deleted_and_recreated(self, world):
        world.apply(catalog.DAEMON_SET)
        world.daemon_sets.reconcile(KEY)
        world.set_status("web-2", "Failed", ready=False)
        world.daemon_sets.reconcile(KEY)
        assert world.names() == ["web-1", "web-3", "web-4"]
        assert world.pods()[2]["spec"]["nodeName"] == "n2"

    def test_pods_of_a_node_that_is_gone_are_removed(self, world):
        world.apply(catalog.DAEMON_SET)
        world.daemon_sets.reconcile(KEY)
        world.cluster.delete(kinds.NODE, "", "n2")
        world.daemon_sets.reconcile(KEY)
        assert world.names() == ["web-1", "web-3"]

    def test_a_rolling_update_goes_by_node_and_never_two_at_once(self, world):
        world.apply(catalog.DAEMON_SET)
        world.daemon_sets.reconcile(KEY)
        world.run_all()
        world.apply(catalog.DAEMON_SET, "2")
        order = []
        for _ in range(20):
            world.daemon_sets.reconcile(KEY)
            ready = [pod for pod in world.pods() if owned.ready(pod)]
            assert len(ready) >= 2
            order += [p["spec"]["nodeName"] for p in world.pods() if owned.terminating(p)]
            world.run_all()
        assert order == ["n1", "n2", "n3"]
        versions = [pod["metadata"]["annotations"]["version"] for pod in world.pods()]
        assert versions == ["2", "2", "2"]
        assert len(hashes(world, "controller-revision-hash")) == 1

    def test_a_rolling_update_waits_while_another_pod_is_out(self, world):
        world.apply(catalog.DAEMON_SET)
        world.daemon_sets.reconcile(KEY)
        world.run_all()
        world.set_status("web-3", ready=False)
        world.apply(catalog.DAEMON_SET, "2")
        world.daemon_sets.reconcile(KEY)
        # The pod that is out anyway is the one to replace; the others must stay.
        terminating = [pod["metadata"]["name"] for pod in world.pods() if owned.terminating(pod)]
        assert terminating == ["web-3"]

    def test_max_unavailable_is_respected(self, world):
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "50%"}}
        world.apply(catalog.DAEMON_SET, updateStrategy=strategy)
        world.daemon_sets.reconcile(KEY)
        world.run_all()
        world.apply(catalog.DAEMON_SET, "2", updateStrategy=strategy)
        world.daemon_sets.reconcile(KEY)
        assert sum(owned.terminating(pod) for pod in world.pods()) == 2

    def test_with_surge_a_new_pod_runs_beside_the_old_one(self, world):
        self.surge(world, "1", 1)
        world.daemon_sets.reconcile(KEY)
        world.run_all()
        self.surge(world, "2", 1)
        world.daemon_sets.reconcile(KEY)
        world.daemon_sets.reconcile(KEY)
        assert self.on_nodes(world) == {"n1": ["1", "2"], "n2": ["1"], "n3": ["1"]}
        assert not any(owned.terminating(pod) for pod in world.pods()), "the new one is not ready"
        world.set_status("web-4")
        world.daemon_sets.reconcile(KEY)
        leaving = [pod for pod in world.pods() if owned.terminating(pod)]
        assert [pod["metadata"]["name"] for pod in leaving] == ["web-1"]
        assert self.on_nodes(world)["n2"] == ["1"], "two still run on n1"
        for _ in range(8):
            world.run_all()
            ready = {p["spec"]["nodeName"] for p in world.pods() if owned.ready(p)}
            assert ready == {"n1", "n2", "n3"}, "no node is ever without one"
            world.daemon_sets.reconcile(KEY)
            assert sum(len(found) > 1 for found in self.on_nodes(world).values()) <= 1
        assert self.on_nodes(world) == {"n1": ["2"], "n2": ["2"], "n3": ["2"]}
        status = world.cluster.get(catalog.DAEMON_SET, "default", "web")["status"]
        assert (status["updatedNumberScheduled"], status["numberReady"]) == (3, 3)
        assert status["numberUnavailable"] == 0

    def test_surge_may_go_over_several_nodes_at_once(self, world):
        self.surge(world, "1", "50%")
        world.daemon_sets.reconcile(KEY)
        world.run_all()
        self.surge(world, "2", "50%")
        world.daemon_sets.reconcile(KEY)
        assert [len(found) for found in self.on_nodes(world).values()] == [2, 2, 1]

    def test_surge_does_not_wait_for_pods_that_serve_nobody(self, world):
        self.surge(world, "1", 1)
        world.daemon_sets.reconcile(KEY)
        world.run_all()
        world.set_status("web-3", ready=False)
        self.surge(world, "2", 1)
        world.daemon_sets.reconcile(KEY)
        assert [len(found) for found in self.on_nodes(world).values()] == [2, 1, 2]

    def test_a_template_changed_during_a_surge_leaves_two_pods_at_most(self, world):
        for version in ("1", "2", "3"):
            self.surge(world, version, 1)
            world.daemon_sets.reconcile(KEY)
            if version == "1":
                world.run_all()
        active = [pod for pod in world.pods() if not owned.terminating(pod)]
        on_first = [pod for pod in active if pod["spec"]["nodeName"] == "n1"]
        versions = [pod["metadata"]["annotations"]["version"] for pod in on_first]
        assert versions == ["1", "3"]
        for _ in range(10):
            world.run_all()
            world.daemon_sets.reconcile(KEY)
        assert self.on_nodes(world) == {"n1": ["3"], "n2": ["3"], "n3": ["3"]}

    def test_a_surging_pod_that_fails_leaves_the_old_one_alone(self, world):
        self.surge(world, "1", 1)
        world.daemon_sets.reconcile(KEY)
        world.run_all()
        self.surge(world, "2", 1)
        world.daemon_sets.reconcile(KEY)
        world.set_status("web-4", "Failed", ready=False)
        world.daemon_sets.reconcile(KEY)
        assert self.on_nodes(world) == {"n1": ["1", "2"], "n2": ["1"], "n3": ["1"]}
        assert "web-4" not in world.names()

    def surge(self, world, version, limit):
        limits = {"maxSurge": limit, "maxUnavailable": 0}
        strategy = {"type": "RollingUpdate", "rollingUpdate": limits}
        world.apply(catalog.DAEMON_SET, version, updateStrategy=strategy)

    def on_nodes(self, world):
        """Return the versions of the pods that run on each node."""
        found: dict[str, list[str]] = {}
        for pod in world.pods():
            version = pod["metadata"]["annotations"]["version"]
            found.setdefault(pod["spec"]["nodeName"], []).append(version)
        return {node: sorted(found[node]) for node in sorted(found)}

    def test_on_delete_waits_for_the_user(self, world):
        strategy = {"type": "OnDelete"}
        world.apply(catalog.DAEMON_SET, updateStrategy=strategy)
        world.daemon_sets.reconcile(KEY)
        world.run_all()
        world.apply(catalog.DAEMON_SET, "2", updateStrategy=strategy)
        world.daemon_sets.reconcile(KEY)
        assert not any(owned.terminating(pod) for pod in world.pods())

    def test_a_deleted_daemon_set_takes_its_pods_along(self, world):
        world.apply(catalog.DAEMON_SET)
        world.daemon_sets.reconcile(KEY)
        world.cluster.delete(catalog.DAEMON_SET, "default", "web")
        world.daemon_sets.reconcile(KEY)
        assert all(owned.terminating(pod) for pod in world.pods())

    def test_reconciling_again_changes_nothing(self, world):
        world.apply(catalog.DAEMON_SET)
        world.daemon_sets.reconcile(KEY)
        world.run_all()
        world.daemon_sets.reconcile(KEY)
        version = world.cluster._api.store.version
        world.daemon_sets.reconcile(KEY)
        assert world.cluster._api.store.version == version

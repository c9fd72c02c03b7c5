"""The prepared actions: they help where they can, refuse where they would do harm, and verify."""

import time
from collections.abc import Mapping
from typing import Any

import pytest
from repair_cluster import Cluster, look

from kproxy.errors import KproxyError, UsageError
from kproxy.monitoring.nodecare.asking import Answer
from kproxy.monitoring.nodecare.seen import Care, Trouble
from kproxy.monitoring.remediation.actions import catalog
from kproxy.monitoring.remediation.actions.restartproxy import RestartProxy
from kproxy.monitoring.remediation.seams import Action, Finished, Target, Tools, target_of

STOPPED = Trouble(what="proxy-stopped", evidence="process 7 is stopped", cure="restart-proxy")
DRIFT = Trouble(what="drift", evidence="missing rule", cure="resync-proxy")
KILLED = Care(care="restart-proxy", node="n1", found=("process 7",), done=("SIGKILL",))


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def target(begun: float = 0.0, **labels: str) -> Target:
    return target_of({"alertname": "A", **labels}, begun)


ON_N1 = target(node="n1")


def stopped(cluster: Cluster, **more: Any) -> None:
    cluster.answer("n1", look=look(state="stopped", troubles=(STOPPED,)), **more)


@pytest.mark.parametrize("name", catalog.ACTIONS)
def test_every_action_says_what_it_is(cluster: Cluster, name: str) -> None:
    action = catalog.ACTIONS[name](cluster.tools)
    assert isinstance(action, Action)
    assert action.name == name
    assert action.summary.endswith(".")
    assert action.limits.runs > 0
    assert action.limits.verify_within >= action.limits.verify_every
    assert name in {"recreate-controller"} or action.needs == {"node"}


@pytest.mark.parametrize("name", ["restart-proxy", "cordon-node", "recreate-controller"])
def test_without_an_api_server_they_are_refused_at_once(cluster: Cluster, name: str) -> None:
    tools = Tools(nodes=cluster.nodes, rest=None, log=cluster.tools.log)
    with pytest.raises(UsageError, match="API server"):
        catalog.ACTIONS[name](tools)


class TestRestartProxy:
    """By the API, in place, or not at all."""

    def test_a_hung_proxy_is_replaced_at_once(self, cluster: Cluster) -> None:
        stopped(cluster)
        action = RestartProxy(cluster.tools)
        verdict = action.check(ON_N1)
        assert (verdict.good, verdict.reason) == (True, "proxy-stopped: process 7 is stopped")
        assert cluster.api.writes == [], "a check changes nothing"
        assert action.run(ON_N1).done
        ((method, path, options),) = cluster.api.writes
        assert (method, path.rsplit("/", 1)[1]) == ("DELETE", "kube-proxy-n1")
        assert options["gracePeriodSeconds"] == 0
        assert options["preconditions"] == {"uid": "uid-kube-proxy-n1"}

    def test_a_healthy_one_is_left_alone(self, cluster: Cluster) -> None:
        cluster.answer("n1", look=look())
        verdict = RestartProxy(cluster.tools).check(ON_N1)
        assert not verdict.good
        assert "is healthy" in verdict.reason

    def test_what_a_node_lacks_is_no_reason_by_itself(self, cluster: Cluster) -> None:
        cluster.answer("n1", look=look(troubles=(DRIFT,)))
        assert RestartProxy(cluster.tools).check(ON_N1).reason == "drift: missing rule"

    def test_a_node_whose_kubelet_is_dead_gets_no_new_proxy(self, cluster: Cluster) -> None:
        stopped(cluster)
        cluster.add_node("n1", ready=False)
        verdict = RestartProxy(cluster.tools).check(ON_N1)
        assert not verdict.good
        assert "not Ready" in verdict.reason

    def test_an_unknown_node_is_refused(self, cluster: Cluster) -> None:
        assert not RestartProxy(cluster.tools).check(target(node="n9")).good

    @pytest.mark.parametrize("lost", ["leader", "daemon set"])
    def test_where_nobody_makes_pods_it_is_killed_in_place(
        self, cluster: Cluster, lost: str
    ) -> None:
        stopped(cluster, restart_proxy_dry=KILLED, restart_proxy=KILLED)
        lose(cluster, lost)
        action = RestartProxy(cluster.tools)
        assert action.check(ON_N1).good
        assert action.run(ON_N1).detail == "SIGKILL"
        assert cluster.deleted == []

    def test_whoever_is_killed_with_the_proxy_gives_no_answer(self, cluster: Cluster) -> None:
        stopped(cluster, restart_proxy_dry=KILLED, restart_proxy=Finished(code=-1, stderr="lost"))
        lose(cluster, "leader")
        done = RestartProxy(cluster.tools).run(ON_N1)
        assert done.done
        assert "lost" in done.detail

    @pytest.mark.parametrize("lost", ["leader", "daemon set"])
    def test_where_nobody_makes_pods_and_it_cannot_be_killed_nothing_is_done(
        self, cluster: Cluster, lost: str
    ) -> None:
        refused = Care(care="restart-proxy", node="n1", refused="it is process 1")
        stopped(cluster, restart_proxy_dry=refused)
        lose(cluster, lost)
        action = RestartProxy(cluster.tools)
        verdict = action.check(ON_N1)
        assert not verdict.good
        assert "would not come back" in verdict.reason
        assert "it is process 1" in verdict.reason
        assert not action.run(ON_N1).done
        assert cluster.deleted == []

    def test_two_pods_are_an_update_under_way(self, cluster: Cluster) -> None:
        stopped(cluster)
        cluster.add_pod("kube-proxy-new", "n1")
        action = RestartProxy(cluster.tools)
        assert "an update is under way" in action.check(ON_N1).reason
        assert not action.run(ON_N1).done
        assert cluster.deleted == []

    def test_a_pod_that_leaves_already_is_waited_for(self, cluster: Cluster) -> None:
        stopped(cluster)
        cluster.add_pod("kube-proxy-n1", "n1", deletionTimestamp="2026-11-26T13:00:00Z")
        assert "is being replaced" in RestartProxy(cluster.tools).check(ON_N1).reason

    def test_a_node_without_kproxy_is_judged_by_its_health_check(self, cluster: Cluster) -> None:
        cluster.answer("n1", look=Finished(code=127, stderr="kproxy: not found"))
        asked: list[tuple[tuple[str, int], str]] = []

        def ask(place: tuple[str, int], path: str) -> Answer:
            asked.append((place, path))
            return Answer(200, "") if len(asked) > 1 else Answer(0, "no answer within 2 s")

        action = RestartProxy(cluster.tools, ask=ask)
        assert "no answer within 2 s" in action.check(ON_N1).reason
        assert asked == [(("192.0.2.1", 10256), "/livez")]
        assert not action.check(ON_N1).good

    @pytest.mark.parametrize(
        ("found", "good", "reason"),
        [
            (look(age_s=2.0, last_s=1.0), True, "has synced"),
            (look(age_s=500.0), False, "is the old one"),
            (look(age_s=2.0, last_s=100.0), False, "has not synced yet"),
            (look(age_s=2.0, proxy={"found": False}), False, "no proxy runs yet"),
            (look(age_s=2.0, answers={"livez": "Connection refused"}), False, "refused"),
            (look(age_s=2.0, last_s=None, unknown={"sync": "metrics: 404"}), False, "not known"),
            (look(age_s=2.0, troubles=(STOPPED,)), False, "proxy-stopped"),
        ],
    )
    def test_it_is_verified_by_what_began_and_synced_after_it(
        self, cluster: Cluster, found: Any, good: bool, reason: str
    ) -> None:
        cluster.answer("n1", look=found)
        verdict = RestartProxy(cluster.tools).verify(target(time.time() - 10, node="n1"))
        assert verdict.good is good
        assert reason in verdict.reason

    def test_a_repair_that_has_not_come_through_is_not_verified(self, cluster: Cluster) -> None:
        del cluster.api.objects["/api/v1/namespaces/kube-system/pods/kube-proxy-n1"]
        assert not RestartProxy(cluster.tools).verify(target(time.time(), node="n1")).good


def lose(cluster: Cluster, what: str) -> None:
    if what == "leader":
        cluster.lead("control1_abc", ago=60)
    else:
        del cluster.api.objects["/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy"]


VERBS = {
    "resync-proxy": "resync",
    "heal-weights": "heal-weights",
    "clean-conntrack": "clean-conntrack",
}


@pytest.mark.parametrize(("name", "verb"), VERBS.items())
class TestNodeCare:
    """Actions that are a command on the node."""

    def answers(self, verb: str, *, dry: Care, done: Care | None = None) -> Mapping[str, Any]:
        key = verb.replace("-", "_")
        return {f"{key}_dry": dry, key: done or dry}

    def test_what_is_found_is_repaired(self, cluster: Cluster, name: str, verb: str) -> None:
        dry = Care(care=name, node="n1", dry_run=True, found=("a", "b", "c", "d"), done=("a",))
        done = Care(care=name, node="n1", found=("a",), done=("a",))
        cluster.answer("n1", **self.answers(verb, dry=dry, done=done))
        cluster.options["kproxy"] = "/opt/kproxy -x"
        action = catalog.ACTIONS[name](cluster.tools)
        assert action.check(ON_N1).reason == "a; b; c and 1 more"
        assert action.run(ON_N1).done
        assert not action.verify(ON_N1).good, "it is there still"
        checked, repaired, _ = cluster.nodes.ran
        assert checked[1][:2] == ("/opt/kproxy", "-x")
        assert ("--dry-run" in checked[1], "--dry-run" in repaired[1]) == (True, False)
        assert verb in repaired[1]

    def test_nothing_to_repair_is_no_reason_to_act(
        self, cluster: Cluster, name: str, verb: str
    ) -> None:
        cluster.answer("n1", **self.answers(verb, dry=Care(care=name, node="n1", dry_run=True)))
        action = catalog.ACTIONS[name](cluster.tools)
        assert not action.check(ON_N1).good
        assert action.verify(ON_N1).good

    def test_what_the_node_refuses_is_told(self, cluster: Cluster, name: str, verb: str) -> None:
        no = Care(care=name, node="n1", found=("a",), left=("a",), refused="restart it instead")
        cluster.answer("n1", **self.answers(verb, dry=no))
        action = catalog.ACTIONS[name](cluster.tools)
        assert action.check(ON_N1).reason == "restart it instead"
        outcome = action.run(ON_N1)
        assert (outcome.done, outcome.detail) == (False, "restart it instead")

    @pytest.mark.parametrize(
        "ended",
        [
            Finished(code=-1, timed_out=True),
            Finished(code=2, stderr="kproxy: API server: refused"),
            Finished(code=127, stderr="not found"),
            Finished(code=0, stdout="no JSON"),
        ],
    )
    def test_a_node_that_cannot_tell_is_no_verdict(
        self, cluster: Cluster, name: str, verb: str, ended: Finished
    ) -> None:
        cluster.answer("n1", **{f"{verb.replace('-', '_')}_dry": ended})
        with pytest.raises(KproxyError, match="node n1"):
            catalog.ACTIONS[name](cluster.tools).check(ON_N1)

    def test_a_node_that_is_not_reached_is_no_verdict(
        self, cluster: Cluster, name: str, verb: str
    ) -> None:
        with pytest.raises(KproxyError, match="node n2"):
            catalog.ACTIONS[name](cluster.tools).verify(target(node="n2"))


class TestCordonNode:
    """Never the last one."""

    def test_a_node_takes_no_new_pods(self, cluster: Cluster) -> None:
        action = catalog.ACTIONS["cordon-node"](cluster.tools)
        assert action.check(ON_N1).good
        assert not action.verify(ON_N1).good
        assert action.run(ON_N1).done
        node = cluster.api.objects["/api/v1/nodes/n1"]
        assert node["spec"]["unschedulable"] is True
        assert list(node["metadata"]["annotations"].values()) == ["A"]
        assert action.verify(ON_N1).good
        assert "already" in action.check(ON_N1).reason

    @pytest.mark.parametrize(
        "other",
        [
            {"unschedulable": True},
            {"taints": [{"key": "k", "effect": "NoSchedule"}]},
            {"ready": False},
        ],
    )
    def test_the_last_one_that_takes_pods_is_never_cordoned(
        self, cluster: Cluster, other: dict[str, Any]
    ) -> None:
        cluster.add_node("n2", **other)
        action = catalog.ACTIONS["cordon-node"](cluster.tools)
        assert "the last one" in action.check(ON_N1).reason
        assert not action.run(ON_N1).done
        assert cluster.api.writes == []


MANAGER, SCHEDULER = "kube-controller-manager", "kube-scheduler"
STUCK = Care(care="x", node="control1", dry_run=True, found=("process 9 is stopped",))
DONE = Care(care="x", node="control1", found=("process 9 is stopped",), done=("SIGKILL",))


class TestRecreateController:
    """A new process where nobody leads."""

    def make(
        self,
        cluster: Cluster,
        command: str = "unit {component} {node}",
        look: str = "unit {component} {node} --dry-run",
    ) -> Action:
        cluster.options |= {
            "componentCommand": command,
            "componentLook": look,
            "controlHosts": "control1,control2",
        }
        return catalog.ACTIONS["recreate-controller"](cluster.tools)

    def test_while_somebody_leads_nothing_is_done(self, cluster: Cluster) -> None:
        verdict = self.make(cluster).check(target(name=MANAGER))
        assert not verdict.good
        assert "control1_abc" in verdict.reason

    def test_the_one_that_hangs_is_replaced_the_last_leader_first(self, cluster: Cluster) -> None:
        cluster.lead("control2_x", ago=60)
        cluster.answer("control1", unit_dry=Care(care="x", node="control1"))
        cluster.answer("control2", unit_dry=STUCK, unit=DONE)
        action = self.make(cluster)
        assert action.check(target(name=MANAGER)).reason.endswith("process 9 is stopped")
        assert action.run(target(name=MANAGER)).done
        assert ("control2", ("unit", MANAGER, "control2")) in cluster.nodes.ran
        assert {node for node, _ in cluster.nodes.ran} == {"control2"}
        assert not action.verify(target(name=MANAGER)).good
        cluster.lead("control1_y")
        assert action.verify(target(name=MANAGER)).good

    def test_where_all_run_and_nobody_leads_a_human_is_asked(self, cluster: Cluster) -> None:
        cluster.lead("control1_x", ago=60, component=SCHEDULER)
        for host in ("control1", "control2"):
            cluster.answer(host, unit_dry=Care(care="x", node=host))
        action = self.make(cluster)
        assert not action.check(target(name=SCHEDULER)).good
        assert not action.run(target(name=SCHEDULER)).done

    def test_a_static_pod_without_a_way_to_its_host_is_refused(self, cluster: Cluster) -> None:
        cluster.lead("control1_x", ago=60)
        pod = cluster.add_pod(
            "manager-control1",
            "control1",
            labels={"component": MANAGER},
            annotations={"kubernetes.io/config.mirror": "x"},
        )
        action = self.make(cluster, "")
        reason = action.check(target(name=MANAGER)).reason
        assert "static pod" in reason
        assert "componentCommand" in reason
        assert not action.run(target(name=MANAGER)).done
        assert cluster.deleted == []
        # Whereas one that somebody would make again is deleted.
        del pod["metadata"]["annotations"]
        assert action.run(target(name=MANAGER)).done
        assert cluster.deleted == ["manager-control1"]

    def test_a_leader_that_an_alert_calls_stuck_is_replaced_though_it_runs(
        self, cluster: Cluster
    ) -> None:
        action = self.make(cluster)
        assert not action.check(target(node="control2", name="daemonset")).good
        stuck = target(node="control1", name="daemonset")
        assert action.check(stuck).good
        cluster.answer("control1", unit=DONE)
        assert action.run(stuck).done
        # Its Lease has not lapsed yet: that is no proof of a new leader.
        begun = target(time.time(), node="control1", name="daemonset")
        assert not action.verify(begun).good
        cluster.lead("control1_y", ago=-1)
        assert action.verify(begun).good

    def test_without_a_command_to_look_that_nobody_leads_is_enough(self, cluster: Cluster) -> None:
        cluster.lead("control1_x", ago=60)
        cluster.answer("control1", pkill=Finished(code=0))
        action = self.make(cluster, "pkill -KILL -f ^{component}", "")
        assert action.check(target(name=MANAGER)).good
        assert cluster.nodes.ran == []
        assert action.run(target(name=MANAGER)).done
        assert cluster.nodes.ran[0][1] == ("pkill", "-KILL", "-f", f"^{MANAGER}")

    def test_what_the_command_says_of_its_failure_is_told(self, cluster: Cluster) -> None:
        cluster.lead("control1_x", ago=60)
        cluster.answer("control1", pkill=Finished(code=1, stderr="nobody\nno process"))
        outcome = self.make(cluster, "pkill x", "").run(target(name=MANAGER))
        assert (outcome.done, outcome.detail) == (False, "no process")

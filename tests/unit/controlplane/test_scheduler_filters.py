"""Which nodes a pod may run on, and which it gets."""

import pytest
from scheduler_world import node, pod, taint

from kproxy.api import core
from kproxy.controlplane.scheduling import placement
from kproxy.controlplane.scheduling.picture import Picture

ZONE = core.ZONE_LABEL


def picture(*nodes, pods=()):
    """Return nodes with pods: (node, pod)."""
    made = Picture()
    for one in nodes:
        made.heard_node(None, one)
    for number, (where, one) in enumerate(pods):
        one["metadata"].setdefault("uid", f"uid-{number}")
        made.heard_pod(None, {**one, "spec": {**one["spec"], "nodeName": where}})
    return made.nodes()


def decide(one, nodes, services=()):
    one["metadata"].setdefault("uid", "wanted")
    return placement.decide(one, nodes, services)


def terms(*expressions, fields=()):
    term = {"matchExpressions": list(expressions), "matchFields": list(fields)}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    return {"nodeAffinity": required}


def apart(selector=None, key="kubernetes.io/hostname", **rest):
    term = {"topologyKey": key, "labelSelector": selector or {"matchLabels": {"app": "web"}}}
    return {"requiredDuringSchedulingIgnoredDuringExecution": [{**term, **rest}]}


GPU = [{"key": "gpu", "operator": "Exists"}]
CORDON = [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]
WEB = {"app": "web"}
FIELD = {"key": "metadata.name", "operator": "In", "values": ["n2"]}
SPREAD = {
    "maxSkew": 1,
    "topologyKey": ZONE,
    "whenUnsatisfiable": "DoNotSchedule",
    "labelSelector": {"matchLabels": WEB},
}


@pytest.mark.parametrize(
    ("wanted", "nodes", "pods", "reason"),
    [
        (pod("p"), [node("n1", unschedulable=True)], [], "node(s) were unschedulable"),
        (
            pod("p"),
            [node("n1", taints=[taint("gpu", "NoSchedule", "yes")])],
            [],
            "node(s) had untolerated taint {gpu: yes}",
        ),
        (
            pod("p"),
            [node("n1", taints=[taint("gpu", "NoExecute")])],
            [],
            "node(s) had untolerated taint {gpu: }",
        ),
        (
            pod("p", nodeSelector={"disk": "ssd"}),
            [node("n1")],
            [],
            "node(s) didn't match Pod's node affinity/selector",
        ),
        (
            pod("p", affinity=terms(fields=[FIELD])),
            [node("n1")],
            [],
            "node(s) didn't match Pod's node affinity/selector",
        ),
        (pod("p"), [node("n1", pods=1)], [("n1", pod("q"))], "Too many pods"),
        (
            pod("p", hostNetwork=True, containers=[{"ports": [{"containerPort": 80}]}]),
            [node("n1")],
            [("n1", pod("q", containers=[{"ports": [{"containerPort": 1, "hostPort": 80}]}]))],
            "node(s) didn't have free ports for the requested pod ports",
        ),
        (
            pod("p", WEB, affinity={"podAntiAffinity": apart()}),
            [node("n1")],
            [("n1", pod("q", WEB))],
            "node(s) didn't match pod anti-affinity rules",
        ),
        (
            pod("p", WEB),
            [node("n1")],
            [("n1", pod("q", affinity={"podAntiAffinity": apart()}))],
            "node(s) didn't match pod anti-affinity rules",
        ),
        (
            pod("p", affinity={"podAffinity": apart()}),
            [node("n1")],
            [("n1", pod("q", {"app": "db"}))],
            "node(s) didn't match pod affinity rules",
        ),
        (
            pod("p", WEB, topologySpreadConstraints=[SPREAD]),
            [node("n1", {ZONE: "a"}), node("n2", {ZONE: "b"}, pods=0)],
            [("n1", pod("q", WEB))],
            "node(s) didn't match pod topology spread constraints",
        ),
        (
            pod("p", WEB, topologySpreadConstraints=[{**SPREAD, "minDomains": 2}]),
            [node("n1", {ZONE: "a"})],
            [("n1", pod("q", WEB))],
            "node(s) didn't match pod topology spread constraints",
        ),
        (
            pod("p", WEB, topologySpreadConstraints=[SPREAD]),
            [node("n1")],
            [],
            "node(s) didn't match pod topology spread constraints (missing required label)",
        ),
    ],
)
def test_a_node_that_does_not_fit_is_refused_in_kubernetes_words(wanted, nodes, pods, reason):
    decision = decide(wanted, picture(*nodes, pods=pods))
    assert decision.node == ""
    assert f"1 {reason}" in decision.message
    assert decision.message.startswith(f"0/{len(nodes)} nodes are available: ")


@pytest.mark.parametrize(
    ("wanted", "nodes", "pods"),
    [
        (
            pod(
                "p",
                tolerations=[{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}],
            ),
            [node("n1", unschedulable=True)],
            [],
        ),
        (pod("p", tolerations=GPU), [node("n1", taints=[taint("gpu", "NoSchedule", "x")])], []),
        (pod("p"), [node("n1", taints=[taint("gpu", "PreferNoSchedule")])], []),
        (pod("p", nodeSelector={"disk": "ssd"}), [node("n1", {"disk": "ssd"})], []),
        (pod("p", affinity=terms(fields=[FIELD])), [node("n2")], []),
        (
            pod("p", affinity=terms({"key": "cores", "operator": "Gt", "values": ["3"]})),
            [node("n1", {"cores": "4"})],
            [],
        ),
        (
            pod("p", containers=[{"ports": [{"containerPort": 80}]}]),
            [node("n1")],
            [("n1", pod("q", hostNetwork=True, containers=[{"ports": [{"containerPort": 80}]}]))],
        ),
        (pod("p", WEB, affinity={"podAffinity": apart()}), [node("n1")], []),
        (
            pod("p", WEB, affinity={"podAntiAffinity": apart(namespaces=["other"])}),
            [node("n1")],
            [("n1", pod("q", WEB))],
        ),
        (
            pod("p", WEB, topologySpreadConstraints=[{**SPREAD, "maxSkew": 2}]),
            [node("n1", {ZONE: "a"}), node("n2", {ZONE: "b"}, pods=0)],
            [("n1", pod("q", WEB))],
        ),
    ],
)
def test_a_node_that_fits_is_taken(wanted, nodes, pods):
    assert decide(wanted, picture(*nodes, pods=pods)).node == nodes[0]["metadata"]["name"]


def test_pods_of_one_daemon_set_may_share_a_port_for_the_hand_over():
    ports = {"hostNetwork": True, "containers": [{"ports": [{"containerPort": 10256}]}]}
    old = pod("old", owner="DaemonSet/d", **ports)
    nodes = picture(node("n1"), pods=[("n1", old)])
    assert decide(pod("new", owner="DaemonSet/d", **ports), nodes).node == "n1"
    assert decide(pod("other", owner="DaemonSet/e", **ports), nodes).node == ""


def test_pods_that_have_ended_take_no_room():
    made = Picture()
    made.heard_node(None, node("n1", pods=1))
    ended = pod("q", nodeName="n1")
    ended["metadata"]["uid"] = "q"
    made.heard_pod(None, {**ended, "status": {"phase": "Succeeded"}})
    assert decide(pod("p"), made.nodes()).node == "n1"


def test_no_nodes_at_all_are_told():
    assert decide(pod("p"), []).message == "no nodes available to schedule pods"


def test_reasons_are_counted():
    nodes = picture(
        node("n1", unschedulable=True), node("n2", unschedulable=True), node("n3", pods=0)
    )
    assert decide(pod("p"), nodes).message == (
        "0/3 nodes are available: 1 Too many pods, 2 node(s) were unschedulable."
    )


class TestBest:
    def test_siblings_are_spread_over_zones_before_nodes(self):
        nodes = [node("n1", {ZONE: "a"}), node("n2", {ZONE: "a"}), node("n3", {ZONE: "b"})]
        there = [("n1", pod("q", owner="ReplicaSet/r"))]
        assert decide(pod("p", owner="ReplicaSet/r"), picture(*nodes, pods=there)).node == "n3"
        there += [("n3", pod("q2", owner="ReplicaSet/r"))]
        assert decide(pod("p", owner="ReplicaSet/r"), picture(*nodes, pods=there)).node == "n2"

    def test_siblings_that_leave_do_not_count(self):
        leaving = pod("q", owner="ReplicaSet/r")
        leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        there = [("n1", leaving), ("n2", pod("x"))]
        nodes = picture(node("n1"), node("n2"), pods=there)
        assert decide(pod("p", owner="ReplicaSet/r"), nodes).node == "n1"

    def test_pods_of_one_service_are_spread(self):
        there = [("n1", pod("q", WEB)), ("n2", pod("x")), ("n2", pod("y"))]
        nodes = picture(node("n1"), node("n2"), pods=there)
        service = {"spec": {"selector": WEB}}
        assert decide(pod("p", WEB), nodes, [service]).node == "n2"
        assert decide(pod("p", WEB), nodes).node == "n1"

    def test_the_emptiest_node_wins_then_the_first_by_name(self):
        nodes = picture(node("n1"), node("n3"), node("n2"), pods=[("n1", pod("q"))])
        assert decide(pod("p"), nodes).node == "n2"

    def test_an_unwelcome_place_is_the_last_resort(self):
        nodes = [node("n1", taints=[taint("old", "PreferNoSchedule")]), node("n2")]
        there = [("n2", pod(f"q{number}")) for number in range(5)]
        assert decide(pod("p"), picture(*nodes, pods=there)).node == "n2"

    def test_preferred_affinity_outweighs_spreading(self):
        rule = {"key": "disk", "operator": "In", "values": ["ssd"]}
        preference = {"weight": 5, "preference": {"matchExpressions": [rule]}}
        affinity = {
            "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preference]}
        }
        there = [("n2", pod("q", owner="ReplicaSet/r"))]
        nodes = picture(node("n1"), node("n2", {"disk": "ssd"}), pods=there)
        assert decide(pod("p", owner="ReplicaSet/r", affinity=affinity), nodes).node == "n2"

    def test_preferred_anti_affinity_keeps_away(self):
        term = {"topologyKey": ZONE, "labelSelector": {"matchLabels": WEB}}
        rule = [{"weight": 1, "podAffinityTerm": term}]
        affinity = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": rule}}
        nodes = [node("n1", {ZONE: "a"}), node("n2", {ZONE: "a"}), node("n3", {ZONE: "b"})]
        there = [("n1", pod("q", WEB)), ("n3", pod("x")), ("n3", pod("y"))]
        assert decide(pod("p", affinity=affinity), picture(*nodes, pods=there)).node == "n3"

    def test_a_soft_constraint_evens_out(self):
        soft = {**SPREAD, "whenUnsatisfiable": "ScheduleAnyway"}
        nodes = [node("n1", {ZONE: "a"}), node("n2", {ZONE: "b"})]
        there = [("n1", pod("q", WEB)), ("n2", pod("x")), ("n2", pod("y"))]
        wanted = pod("p", WEB, topologySpreadConstraints=[soft])
        assert decide(wanted, picture(*nodes, pods=there)).node == "n2"

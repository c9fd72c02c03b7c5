"""The Node object and the Lease: written when, with what; on the test's clock."""

import io

import pytest
from local_cluster import LocalCluster, new_api

from kproxy import errors, logs
from kproxy.api import catalog, codec, core, kinds
from kproxy.controlplane.controllers import lostnodes
from kproxy.controlplane.nodekeeper import NodeKeeper
from kproxy.controlplane.nodestatus import NodeFacts, Times


class Away:
    """A cluster that can be away, and counts what is written."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self.away = False
        self.refuse = ""
        self.writes: list[str] = []

    def __getattr__(self, name):
        def call(kind, *rest, **named):
            if self.away or name == self.refuse:
                raise errors.KproxyError("unreachable")
            if name != "get":
                self.writes.append(f"{name} {kind.name}")
            return getattr(self._cluster, name)(kind, *rest, **named)

        return call


class Node:
    def __init__(self, name: str = "n1") -> None:
        self.time = 0.0
        self.trouble = ""
        self.local = LocalCluster(new_api(now=lambda: 0.0))
        self.cluster = Away(self.local)
        facts = NodeFacts(
            name=name,
            addresses=["192.0.2.1", "2001:db8::1"],
            pod_cidrs=["10.244.1.0/24", "fd00:0:0:1::/64"],
            labels={"zone": "a"},
            info={"kernelVersion": "6.12", "architecture": "arm64"},
        )
        self.keeper = NodeKeeper(
            self.cluster,
            facts,
            logs.Log("kubelet", stream=io.StringIO()),
            trouble=lambda: self.trouble,
            now=lambda: self.time,
            wall=lambda: self.time,
        )

    def run(self, until: float) -> None:
        while (due := self.time + self.keeper.step()) <= until:
            assert due > self.time, "it would spin"
            self.time = due
        self.time = until

    def get(self):
        return self.local.get(kinds.NODE, "", "n1")

    def lease(self):
        return self.local.get(catalog.LEASE, "kube-node-lease", "n1")

    def ready(self):
        (found,) = [one for one in self.get()["status"]["conditions"] if one["type"] == "Ready"]
        return found


@pytest.fixture
def node():
    return Node()


def test_a_node_registers_with_all_that_kubernetes_tells(node):
    node.keeper.step()
    made = node.get()
    assert made["spec"]["podCIDRs"] == ["10.244.1.0/24", "fd00:0:0:1::/64"]
    assert made["spec"]["podCIDR"] == "10.244.1.0/24"
    labels = made["metadata"]["labels"]
    assert labels["kubernetes.io/hostname"] == "n1"
    assert (labels["kubernetes.io/arch"], labels["zone"]) == ("arm64", "a")
    assert labels["kubernetes.io/os"] == labels["beta.kubernetes.io/os"] == "linux"
    assert labels["beta.kubernetes.io/arch"] == "arm64"
    status = made["status"]
    assert status["addresses"] == [
        {"type": "InternalIP", "address": "192.0.2.1"},
        {"type": "InternalIP", "address": "2001:db8::1"},
        {"type": "Hostname", "address": "n1"},
    ]
    assert status["capacity"]["pods"] == status["allocatable"]["pods"] == "110"
    assert status["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10250}}
    assert status["nodeInfo"]["kernelVersion"] == "6.12"
    assert status["nodeInfo"]["architecture"] == "arm64"
    assert status["nodeInfo"]["kubeletVersion"].startswith("v1.")
    told = {one["type"]: one["status"] for one in status["conditions"]}
    assert told == {
        "MemoryPressure": "False",
        "DiskPressure": "False",
        "PIDPressure": "False",
        "Ready": "True",
    }


def test_the_lease_is_renewed_every_ten_seconds_and_the_node_is_not_written(node):
    node.keeper.step()
    first = node.lease()
    assert first["spec"]["holderIdentity"] == "n1"
    assert first["spec"]["leaseDurationSeconds"] == 40
    assert first["spec"]["renewTime"] == "1970-01-01T00:00:00.000000Z"
    assert first["metadata"]["ownerReferences"][0]["name"] == "n1"
    node.cluster.writes.clear()
    node.run(200.0)
    assert set(node.cluster.writes) == {"update Lease"}
    assert 19 <= len(node.cluster.writes) <= 20
    assert node.lease()["spec"]["renewTime"] > "1970-01-01T00:03:08"


def test_an_unchanged_node_is_reported_every_five_minutes(node):
    node.run(1000.0)
    assert node.cluster.writes.count("update_status Node") == 3


def test_trouble_is_told_soon_and_its_end_too(node):
    node.run(100.0)
    node.trouble = "the node's network is down"
    node.run(112.0)
    told = node.ready()
    assert (told["status"], told["reason"]) == ("False", "KubeletNotReady")
    assert told["message"] == "the node's network is down"
    since = told["lastTransitionTime"]
    assert since > "1970-01-01T00:01:39"
    node.trouble = ""
    node.run(124.0)
    assert node.ready()["status"] == "True"
    assert node.ready()["lastTransitionTime"] > since


def test_what_others_wrote_into_the_status_stays(node):
    node.keeper.step()
    seen = node.get()
    seen["status"]["conditions"].append({"type": "NetworkUnavailable", "status": "False"})
    node.local.update_status(kinds.NODE, seen)
    node.run(400.0)
    told = {one["type"] for one in node.get()["status"]["conditions"]}
    assert "NetworkUnavailable" in told


def test_a_node_that_somebody_deleted_is_registered_again_at_once(node):
    node.run(50.0)
    node.local.delete(kinds.NODE, "", "n1")
    node.keeper.registered_no_more()
    node.keeper.step()
    assert node.get() is not None


def test_a_lease_that_somebody_else_wrote_is_read_again(node):
    node.keeper.step()
    lease = node.lease()
    node.local.update(catalog.LEASE, {**lease, "spec": {**lease["spec"], "renewTime": None}})
    node.run(25.0)
    assert node.lease()["spec"]["renewTime"] > "1970-01-01T00:00:09"


def test_after_an_outage_nodes_come_back_at_different_times():
    def renewed_after(name: str) -> float:
        node = Node(name)
        node.run(60.0)
        node.cluster.away = True
        node.run(300.0)
        node.cluster.away = False
        node.cluster.writes.clear()
        while not node.cluster.writes:
            node.time += node.keeper.step()
        return node.time - 300.0

    found = [renewed_after(f"n{number}") for number in range(20)]
    assert max(found) <= 20.0
    assert len({round(one, 1) for one in found}) > 10


def test_nodes_whose_server_is_away_do_not_ask_in_step():
    def waits(name: str) -> list[float]:
        node = Node(name)
        node.cluster.away = True
        return [node.keeper.step() for _ in range(10)]

    first, second = waits("n1"), waits("n2")
    assert first == waits("n1")
    assert all(one != other for one, other in zip(first, second, strict=True))


def test_failures_are_tried_again_less_and_less_often(node):
    node.cluster.away = True
    waits = []
    for _ in range(12):
        waits.append(node.keeper.step())
        node.time += waits[-1]
    assert waits[0] < 0.06
    assert 3.5 <= waits[-1] <= Times().lease_renew
    assert all(wait > 0 for wait in waits)


def test_a_node_that_was_taken_for_lost_says_soon_that_it_is_not(node):
    node.run(until=100.0)
    conditions = lostnodes.lost(node.get(), "1970-01-01T00:01:40Z")
    node.local.update_status(
        kinds.NODE, {**node.get(), "status": {**node.get()["status"], "conditions": conditions}}
    )
    node.keeper.heard(codec.from_dict(node.get(), core.Node))
    node.run(until=102.0)
    assert node.ready()["status"] == "True"


def test_hearing_of_itself_as_it_is_writes_nothing(node):
    node.run(until=100.0)
    before = list(node.cluster.writes)
    node.keeper.heard(codec.from_dict(node.get(), core.Node))
    node.run(until=101.0)
    assert node.cluster.writes == before


def test_a_node_whose_report_is_refused_is_alive_all_the_same(node):
    node.run(until=100.0)
    before = node.lease()["spec"]["renewTime"]
    node.cluster.refuse = "update_status"
    node.trouble = "no carrier"
    node.run(until=130.0)
    assert node.ready()["status"] == "True"
    assert node.lease()["spec"]["renewTime"] > before
    node.cluster.refuse = ""
    node.run(until=140.0)
    assert node.ready()["status"] == "False"

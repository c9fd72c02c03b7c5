"""What belongs to nobody goes, in the way that was asked for; namespaces end empty."""

import pytest
from clusterwide_world import ClusterwideWorld
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from kproxy import errors
from kproxy.api import catalog, kinds
from kproxy.controlplane.controllers import owned, podgc, times


def config(world, name, *owners, block=True, namespace="default", finalizers=()):
    """Create a ConfigMap that ConfigMaps own; return it."""
    references = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": one["metadata"]["name"],
            "uid": one["metadata"]["uid"],
            "blockOwnerDeletion": block,
        }
        for one in owners
    ]
    meta = {"namespace": namespace, "name": name, "ownerReferences": references}
    if finalizers:
        meta["finalizers"] = list(finalizers)
    return world.cluster.create(catalog.CONFIG_MAP, {"metadata": meta})


def names(world, namespace="default"):
    found = world.cluster.list_objects(catalog.CONFIG_MAP, namespace)
    return [one["metadata"]["name"] for one in found]


def owners_of(world, name):
    found = world.cluster.get(catalog.CONFIG_MAP, "default", name)
    return [one["name"] for one in found["metadata"].get("ownerReferences") or ()]


def delete(world, name, how="", kind=catalog.CONFIG_MAP):
    world.cluster.delete(kind, "default", name, propagation=how)
    world.run(1)


@pytest.fixture
def world():
    return ClusterwideWorld("garbagecollector")


class TestOwners:
    def test_dependents_of_dependents_go_in_the_background(self, world):
        top = config(world, "a")
        middle = config(world, "b", top)
        config(world, "c", middle)
        config(world, "other")
        world.run(1)
        delete(world, "a")
        assert names(world) == ["other"]

    def test_an_object_with_an_owner_left_only_loses_the_reference(self, world):
        config(world, "c", config(world, "a"), config(world, "b"))
        world.run(1)
        delete(world, "a")
        assert names(world) == ["b", "c"]
        assert owners_of(world, "c") == ["b"]

    def test_what_has_never_had_an_owner_is_left_alone(self, world):
        config(world, "a")
        world.run(100)
        assert names(world) == ["a"]

    def test_an_owner_that_never_was_is_no_owner(self, world):
        gone = config(world, "a")
        world.cluster.delete(catalog.CONFIG_MAP, "default", "a")
        config(world, "b", gone)
        world.run(1)
        assert names(world) == []

    def test_another_object_of_the_owners_name_is_not_the_owner(self, world):
        old = config(world, "a")
        world.cluster.delete(catalog.CONFIG_MAP, "default", "a")
        config(world, "a")
        config(world, "b", old)
        world.run(1)
        assert names(world) == ["a"]

    def test_an_owner_of_an_unknown_kind_may_be_there(self, world):
        meta = {"namespace": "default", "name": "a"}
        meta["ownerReferences"] = [
            {"apiVersion": "example.org/v1", "kind": "Thing", "name": "x", "uid": "u"}
        ]
        world.cluster.create(catalog.CONFIG_MAP, {"metadata": meta})
        world.run(100)
        assert names(world) == ["a"]

    def test_orphans_stay_without_their_owner(self, world):
        config(world, "c", config(world, "a"))
        world.run(1)
        delete(world, "a", "Orphan")
        assert names(world) == ["c"]
        assert owners_of(world, "c") == []

    def test_in_the_foreground_the_owner_goes_last(self, world):
        owner = config(world, "a")
        config(world, "b", owner, finalizers=["example.org/hold"])
        config(world, "c", owner)
        world.run(1)
        delete(world, "a", "Foreground")
        assert names(world) == ["a", "b"]
        patch = {"metadata": {"finalizers": None}}
        world.cluster.patch(catalog.CONFIG_MAP, "default", "b", patch)
        world.run(1)
        assert names(world) == []

    def test_dependents_that_do_not_block_do_not_hold_their_owner(self, world):
        config(world, "b", config(world, "a"), block=False, finalizers=["example.org/hold"])
        world.run(1)
        delete(world, "a", "Foreground")
        assert names(world) == ["b"]

    def test_a_node_takes_its_lease_along(self, world):
        world.node("n1")
        node = world.cluster.get(kinds.NODE, "", "n1")
        owner = [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": owned.uid(node)}]
        patch = {"metadata": {"ownerReferences": owner}}
        world.cluster.patch(catalog.LEASE, "kube-node-lease", "n1", patch)
        world.renewing.clear()
        world.run(1)
        world.cluster.delete(kinds.NODE, "", "n1")
        world.run(1)
        assert world.cluster.get(catalog.LEASE, "kube-node-lease", "n1") is None

    def test_in_foreground_dependents_with_dependents_go_in_the_foreground(self, world):
        top = config(world, "a")
        middle = config(world, "b", top)
        config(world, "c", middle, finalizers=["example.org/hold"])
        world.run(1)
        delete(world, "a", "Foreground")
        assert names(world) == ["a", "b", "c"]
        patch = {"metadata": {"finalizers": None}}
        world.cluster.patch(catalog.CONFIG_MAP, "default", "c", patch)
        world.run(1)
        assert names(world) == []


@examples(40)
@given(
    owners=st.lists(st.sets(st.integers(0, 6), max_size=2), min_size=1, max_size=7),
    deleted=st.lists(
        st.tuples(st.integers(0, 6), st.sampled_from(["Background", "Foreground", "Orphan"])),
        max_size=3,
    ),
    restart=st.booleans(),
)
def test_what_is_left_has_an_owner_or_never_had_one(owners, deleted, restart):
    world = ClusterwideWorld("garbagecollector")
    made, orphaned = [], set()
    for number, wanted in enumerate(owners):
        made.append(config(world, f"m{number}", *(made[one] for one in wanted if one < number)))
    world.run(1)
    for number, how in deleted:
        if how == "Orphan":
            orphaned |= {name for name in names(world) if f"m{number}" in owners_of(world, name)}
        world.cluster.delete(catalog.CONFIG_MAP, "default", f"m{number}", propagation=how)
        if restart:
            world.restart()
        world.run(5)
    left = set(names(world))
    assert not left & {f"m{number}" for number, _ in deleted}
    for number, wanted in enumerate(owners):
        name, had = f"m{number}", {f"m{one}" for one in wanted if one < number}
        if name in left:
            assert set(owners_of(world, name)) <= left
            assert not had or owners_of(world, name) or name in orphaned
        else:
            assert had or name in {f"m{one}" for one, _ in deleted}


class TestNamespaces:
    @pytest.fixture
    def world(self):
        world = ClusterwideWorld("namespace", "serviceaccount")
        world.cluster.create(kinds.NAMESPACE, {"metadata": {"name": "shop"}})
        world.run(1)
        return world

    def phase(self, world):
        found = world.cluster.get(kinds.NAMESPACE, "", "shop")
        return found["status"]["phase"] if found else "gone"

    def test_an_empty_one_goes_with_all_that_is_in_it(self, world):
        config(world, "c", namespace="shop")
        spec = {"ports": [{"port": 80}]}
        body = {"metadata": {"namespace": "shop", "name": "s"}, "spec": spec}
        world.cluster.create(kinds.SERVICE, body)
        world.cluster.delete(kinds.NAMESPACE, "", "shop")
        world.run(1)
        assert self.phase(world) == "gone"
        assert names(world, "shop") == []
        assert world.cluster.list_objects(catalog.SERVICE_ACCOUNT, "shop") == []

    def test_it_waits_for_its_pods_and_keeps_the_rest_as_long(self, world):
        config(world, "c", namespace="shop")
        meta = {"namespace": "shop", "name": "p"}
        spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "x"}]}
        world.cluster.create(catalog.POD, {"metadata": meta, "spec": spec})
        world.cluster.delete(kinds.NAMESPACE, "", "shop")
        world.run(20)
        assert self.phase(world) == "Terminating"
        assert names(world, "shop") == ["c"]
        (told,) = world.cluster.get(kinds.NAMESPACE, "", "shop")["status"]["conditions"]
        assert told["message"] == "Some resources are remaining: pods has 1 resource instances"
        world.cluster.delete(catalog.POD, "shop", "p", grace=0)
        world.run(1)
        assert self.phase(world) == "gone"

    def test_finalizers_hold_it(self, world):
        config(world, "c", namespace="shop", finalizers=["example.org/hold"])
        world.cluster.delete(kinds.NAMESPACE, "", "shop")
        world.run(20)
        assert self.phase(world) == "Terminating"
        patch = {"metadata": {"finalizers": None}}
        world.cluster.patch(catalog.CONFIG_MAP, "shop", "c", patch)
        world.run(5)
        assert self.phase(world) == "gone"

    def test_an_account_that_is_deleted_comes_back_but_not_in_the_end(self, world):
        world.cluster.delete(catalog.SERVICE_ACCOUNT, "shop", "default")
        world.run(1)
        assert world.cluster.get(catalog.SERVICE_ACCOUNT, "shop", "default")
        config(world, "c", namespace="shop", finalizers=["example.org/hold"])
        world.cluster.delete(kinds.NAMESPACE, "", "shop")
        world.run(20)
        assert world.cluster.list_objects(catalog.SERVICE_ACCOUNT, "shop") == []
        assert world.troubles == []


class TestPods:
    @pytest.fixture
    def world(self):
        world = ClusterwideWorld("podgc", waits=times.Times(terminated_pods=2))
        world.node("n1")
        return world

    def test_pods_of_a_node_that_is_gone_are_removed_after_quarantine(self, world):
        world.pod("p")
        world.pod("q", node="n2")
        world.run(30)
        assert world.pods() == ["p", "q"]
        world.run(30)
        assert world.pods() == ["p"]

    def test_a_node_that_comes_in_time_keeps_its_pods(self, world):
        world.pod("q", node="n2")
        world.run(30)
        world.node("n2")
        world.run(100)
        assert world.pods() == ["q"]

    def test_a_node_that_only_our_picture_lacks_keeps_its_pods(self, world):
        world.pod("q", node="n2")
        world.node("n2")
        known = world.cluster.list_objects

        def lagging(kind, *rest):
            return [] if kind is kinds.NODE else known(kind, *rest)

        world.cluster.list_objects = lagging
        world.run(100)
        assert world.pods() == ["q"]

    def test_the_oldest_of_too_many_ended_pods_go(self, world):
        for number in range(4):
            world.run(1)
            world.pod(f"p{number}", phase="Succeeded" if number % 2 else "Failed")
        world.pod("runs")
        world.run(20)
        assert world.pods() == ["p2", "p3", "runs"]

    def test_what_leaves_an_out_of_service_node_is_removed(self, world):
        world.pod("p")
        world.pod("stays")
        world.cluster.delete(catalog.POD, "default", "p")
        world.run(100)
        assert world.pods() == ["p", "stays"]
        taint = {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}
        world.cluster.patch(kinds.NODE, "", "n1", {"spec": {"taints": [taint]}})
        world.run(100)
        assert world.pods() == ["p", "stays"]  # the node is ready after all
        lost = {"conditions": [{"type": "Ready", "status": "Unknown"}]}
        world.cluster.update_status(kinds.NODE, {"metadata": {"name": "n1"}, "status": lost})
        world.run(20)
        assert world.pods() == ["stays"]

    def test_all_ended_pods_may_stay_where_no_number_is_given(self):
        pods = [{"metadata": {"name": "p"}, "status": {"phase": "Failed"}}]
        assert podgc.ended(pods, 0) == []


def test_a_conflict_is_tried_again_with_what_is_there_by_then():
    world = ClusterwideWorld("garbagecollector")
    owner = config(world, "a")
    config(world, "c", owner)
    world.run(1)
    collector = world.controllers["garbagecollector"]
    world.cluster.delete(catalog.CONFIG_MAP, "default", "a")
    patch = {"metadata": {"ownerReferences": None}}
    adopted = world.cluster.patch(catalog.CONFIG_MAP, "default", "c", patch)
    collector.changed(catalog.CONFIG_MAP, owner, None)  # the watch has not told of the other yet
    with pytest.raises(errors.Conflict):
        collector.reconcile(owned.uid(adopted))
    assert names(world) == ["c"]

"""EndpointSlices follow the pods of a Service, and are written only when something changed."""

import io

import pytest
from local_cluster import LocalCluster, new_api

from kproxy import costfile, costs, errors, logs
from kproxy.api import catalog, codec, core, discovery, kinds
from kproxy.api.pods import Pod
from kproxy.controlplane.controllers import slices
from kproxy.controlplane.controllers.endpointslice import (
    TRIGGER_ANNOTATION,
    EndpointSliceController,
)


class World:
    """A cluster, and a controller that hears of its changes when the test says so."""

    def __init__(self, cost: costs.Costs = costs.FREE) -> None:
        self.cluster = LocalCluster(new_api(now=lambda: 0.0))
        self.queue: list[str] = []
        self.time = 1.25
        self.controller = EndpointSliceController(
            self.cluster,
            logs.Log("manager", stream=io.StringIO()),
            enqueue=self.queue.append,
            wall=lambda: self.time,
            cost=cost,
        )
        self.known: dict[type, dict[str, object]] = {}
        self.node("n1", "a")

    def node(self, name: str, zone: str) -> None:
        labels = {"topology.kubernetes.io/zone": zone} if zone else {}
        self.cluster.create(kinds.NODE, {"metadata": {"name": name, "labels": labels}})

    def service(self, name: str = "web", **spec: object) -> None:
        spec.setdefault("selector", {"app": name})
        spec.setdefault("ports", [{"port": 80, "targetPort": 8080}])
        body = {"metadata": {"name": name, "namespace": "default"}, "spec": spec}
        if self.cluster.get(kinds.SERVICE, "default", name):
            self.cluster.update(kinds.SERVICE, body)
        else:
            self.cluster.create(kinds.SERVICE, body)

    def pod(self, name: str, address: str, ready: bool = True, **ports: int) -> None:
        declared = [{"name": key, "containerPort": value} for key, value in ports.items()]
        meta = {"name": name, "namespace": "default", "labels": {"app": "web"}}
        spec = {"nodeName": "n1", "containers": [{"name": "c", "ports": declared}]}
        self.cluster.create(catalog.POD, {"metadata": meta, "spec": spec})
        self.status(name, address=address, ready=ready)

    def status(self, name: str, phase: str = "Running", address: str = "", ready: bool = True):
        conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
        status = {"phase": phase, "podIP": address, "conditions": conditions}
        meta = {"name": name, "namespace": "default"}
        self.cluster.update_status(catalog.POD, {"metadata": meta, "status": status})

    def hear(self) -> None:
        """Tell the controller what has changed, as informers do."""
        for wanted, handler in (
            (core.Service, self.controller.service_changed),
            (Pod, self.controller.pod_changed),
            (discovery.EndpointSlice, self.controller.slice_changed),
            (core.Node, self.controller.node_changed),
        ):
            found = self.cluster.list_objects(kinds.for_type(wanted))
            now = {obj["metadata"]["name"]: codec.from_dict(obj, wanted) for obj in found}
            before = self.known.get(wanted, {})
            self.known[wanted] = now
            for name in sorted(before.keys() | now.keys()):
                if before.get(name) != now.get(name):
                    handler(before.get(name), now.get(name))

    def settle(self) -> None:
        """Let the controller work until there is nothing to do."""
        self.hear()
        while self.queue:
            self.controller.reconcile(self.queue.pop(0))
            self.hear()

    def slices(self) -> list[discovery.EndpointSlice]:
        found = self.cluster.list_objects(kinds.ENDPOINT_SLICE)
        return [codec.from_dict(obj, discovery.EndpointSlice) for obj in found]

    def endpoints(self) -> dict[str, tuple[bool | None, bool | None, bool | None]]:
        found = {}
        for one in self.slices():
            for endpoint in one.endpoints or ():
                state = endpoint.conditions
                found[endpoint.addresses[0]] = (state.ready, state.serving, state.terminating)
        return found


@pytest.fixture
def world():
    return World()


READY = (True, True, False)


def test_a_slice_names_pods_nodes_and_ports(world):
    world.service()
    world.pod("a", "10.244.1.2")
    world.settle()
    (one,) = world.slices()
    assert one.metadata.labels == {
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    assert one.metadata.annotations == {TRIGGER_ANNOTATION: "1970-01-01T00:00:01.250000Z"}
    assert one.address_type == "IPv4"
    assert [(port.name, port.protocol, port.port) for port in one.ports] == [("", "TCP", 8080)]
    (endpoint,) = one.endpoints
    assert endpoint.node_name == "n1"
    assert (endpoint.target_ref.kind, endpoint.target_ref.name) == ("Pod", "a")
    assert world.endpoints() == {"10.244.1.2": READY}


def test_endpoints_follow_their_pods(world):
    world.service()
    world.pod("a", "10.244.1.2")
    world.pod("b", "10.244.1.3", ready=False)
    world.settle()
    assert world.endpoints() == {"10.244.1.2": READY, "10.244.1.3": (False, False, False)}
    world.status("b", address="10.244.1.3")
    world.cluster.delete(catalog.POD, "default", "a")
    world.settle()
    assert world.endpoints() == {"10.244.1.2": (False, True, True), "10.244.1.3": READY}
    world.cluster.delete(catalog.POD, "default", "a", grace=0)
    world.settle()
    assert world.endpoints() == {"10.244.1.3": READY}
    world.status("b", phase="Failed", address="10.244.1.3", ready=False)
    world.settle()
    assert world.endpoints() == {}
    assert len(world.slices()) == 1


def test_what_a_pods_end_costs_is_paid_before_its_slice_is_written():
    seen = []
    entry = costfile.Entry(
        process=costs.MANAGER,
        place=costs.SLICE,
        seconds=costfile.Terms(constant=0.5),
        kernel="none",
        machine="none",
        date="2026-01-02",
    )
    model = costfile.Model(name="test", entries=(entry,))

    def sleep(seconds):
        seen.append((seconds, sorted(world.endpoints())))

    world = World(costs.Costs(costs.MANAGER, None, model, sleep))
    world.service()
    world.pod("a", "10.244.1.2")
    world.pod("b", "10.244.1.3")
    world.settle()
    assert seen == []
    world.status("b", phase="Failed", address="10.244.1.3", ready=False)
    world.settle()
    assert seen == [(0.5, ["10.244.1.2", "10.244.1.3"])]
    assert sorted(world.endpoints()) == ["10.244.1.2"]


def test_pods_without_address_or_without_the_label_are_left_out(world):
    world.service(selector={"app": "other"})
    world.pod("a", "10.244.1.2")
    world.settle()
    assert world.endpoints() == {}
    world.service(selector={"app": "web"})
    world.pod("b", "")
    world.settle()
    assert world.endpoints() == {"10.244.1.2": READY}


def test_nothing_is_written_when_nothing_changed(world):
    world.service()
    world.pod("a", "10.244.1.2")
    world.settle()
    version = world.cluster.api.store.version
    world.time = 99.0
    world.controller.reconcile("default/web")
    assert world.cluster.api.store.version == version


def test_empty_labels_of_the_service_do_not_cause_writes_for_ever(world):
    world.service(clusterIP="None")
    labels = {"metadata": {"name": "web", "namespace": "default", "labels": {"empty": ""}}}
    spec = world.cluster.get(kinds.SERVICE, "default", "web")["spec"]
    world.cluster.update(kinds.SERVICE, {**labels, "spec": spec})
    world.settle()
    (one,) = world.slices()
    assert one.metadata.labels["empty"] == ""
    assert one.metadata.labels["service.kubernetes.io/headless"] == ""
    version = world.cluster.api.store.version
    world.controller.reconcile("default/web")
    assert world.cluster.api.store.version == version


def test_named_ports_are_resolved_in_every_pod(world):
    ports = [
        {"name": "web", "port": 80, "targetPort": "http"},
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 5353},
    ]
    world.service(ports=ports)
    world.pod("a", "10.244.1.2", http=8080)
    world.pod("b", "10.244.1.3", http=9090)
    world.pod("c", "10.244.1.4")
    world.settle()
    found = {
        one.endpoints[0].addresses[0]: {
            port.name: (port.protocol, port.port) for port in one.ports
        }
        for one in world.slices()
    }
    assert found == {
        "10.244.1.2": {"web": ("TCP", 8080), "dns": ("UDP", 5353)},
        "10.244.1.3": {"web": ("TCP", 9090), "dns": ("UDP", 5353)},
        "10.244.1.4": {"dns": ("UDP", 5353)},
    }


def test_a_service_without_selector_is_let_alone(world):
    world.service(selector={})
    world.pod("a", "10.244.1.2")
    world.settle()
    assert world.slices() == []


def test_slices_go_with_their_service(world):
    world.service()
    world.pod("a", "10.244.1.2")
    world.settle()
    world.cluster.delete(kinds.SERVICE, "default", "web")
    world.settle()
    assert world.slices() == []


def test_a_slice_deleted_by_somebody_is_made_again(world):
    world.service()
    world.pod("a", "10.244.1.2")
    world.settle()
    (one,) = world.slices()
    world.cluster.delete(kinds.ENDPOINT_SLICE, "default", one.metadata.name)
    world.settle()
    assert world.endpoints() == {"10.244.1.2": READY}


def test_a_slice_written_by_somebody_else_conflicts_then_is_put_right(world):
    world.service()
    world.pod("a", "10.244.1.2")
    world.settle()
    obj = world.cluster.list_objects(kinds.ENDPOINT_SLICE)[0]
    world.cluster.update(kinds.ENDPOINT_SLICE, {**obj, "endpoints": []})
    world.cluster.delete(catalog.POD, "default", "a")
    # The controller has heard of the pod, but not yet of the other writer.
    pod = codec.from_dict(world.cluster.get(catalog.POD, "default", "a"), Pod)
    world.controller.pod_changed(world.known[Pod]["a"], pod)
    with pytest.raises(errors.Conflict):
        world.controller.reconcile("default/web")
    world.settle()
    assert world.endpoints() == {"10.244.1.2": (False, True, True)}


def test_the_trigger_time_of_a_failed_write_is_kept(world):
    world.service()
    world.pod("a", "10.244.1.2")
    world.settle()
    obj = world.cluster.list_objects(kinds.ENDPOINT_SLICE)[0]
    world.cluster.update(kinds.ENDPOINT_SLICE, {**obj, "endpoints": []})
    world.time = 5.0
    world.cluster.delete(catalog.POD, "default", "a")
    pod = codec.from_dict(world.cluster.get(catalog.POD, "default", "a"), Pod)
    world.controller.pod_changed(world.known[Pod]["a"], pod)
    with pytest.raises(errors.Conflict):
        world.controller.reconcile("default/web")
    world.time = 9.0
    world.settle()
    (one,) = world.slices()
    assert one.metadata.annotations == {TRIGGER_ANNOTATION: "1970-01-01T00:00:05.000000Z"}


def endpoint(number: int) -> discovery.Endpoint:
    return discovery.Endpoint(addresses=[f"10.0.{number // 200}.{number % 200 + 1}"])


GROUP = slices.Group("IPv4", (discovery.EndpointPort(name="", protocol="TCP", port=80),))


def packed(plan: slices.Plan) -> list[discovery.EndpointSlice]:
    """Return the slices that a plan leads to."""
    made = []
    for number, (group, endpoints) in enumerate(plan.create):
        meta = discovery.ObjectMeta(name=f"new-{number}")
        made.append((meta, group.family, endpoints, group.ports))
    for one, endpoints in plan.keep:
        made.append((one.metadata, one.address_type, endpoints, one.ports))
    return [
        discovery.EndpointSlice(
            metadata=meta, address_type=family, endpoints=list(endpoints), ports=list(ports)
        )
        for meta, family, endpoints, ports in made
    ]


def test_a_slice_holds_at_most_100_and_a_new_pod_changes_one_slice():
    endpoints = [endpoint(number) for number in range(250)]
    plan = slices.plan({GROUP: endpoints}, [], ["IPv4"])
    assert [len(content) for _, content in plan.create] == [100, 100, 50]
    existing = packed(plan)
    plan = slices.plan({GROUP: [*endpoints, endpoint(250)]}, existing, ["IPv4"])
    changed = [one for one, content in plan.keep if list(content) != one.endpoints]
    assert (len(changed), plan.create, plan.delete) == (1, [], [])


def test_slices_that_become_empty_are_deleted_except_the_last():
    endpoints = [endpoint(number) for number in range(150)]
    existing = packed(slices.plan({GROUP: endpoints}, [], ["IPv4"]))
    first = list(existing[0].endpoints)
    plan = slices.plan({GROUP: first}, existing, ["IPv4"])
    assert [one.metadata.name for one in plan.delete] == [existing[1].metadata.name]
    plan = slices.plan({}, existing, ["IPv4"])
    assert (len(plan.keep), len(plan.delete), plan.create) == (1, 1, [])


def test_endpoints_follow_their_nodes(world):
    world.service(trafficDistribution="PreferClose")
    world.pod("a", "10.244.1.2")
    world.settle()
    ((endpoint,),) = [one.endpoints for one in world.slices()]
    assert (endpoint.zone, endpoint.hints.for_zones[0].name) == ("a", "a")
    patch = {"metadata": {"labels": {"topology.kubernetes.io/zone": "b"}}}
    world.cluster.patch(kinds.NODE, "", "n1", patch)
    world.settle()
    ((endpoint,),) = [one.endpoints for one in world.slices()]
    assert (endpoint.zone, endpoint.hints.for_zones[0].name) == ("b", "b")
    world.cluster.delete(kinds.NODE, "", "n1")
    world.settle()
    assert world.endpoints() == {}


def test_signs_of_life_of_nodes_are_nothing_to_look_at(world):
    world.service()
    world.pod("a", "10.244.1.2")
    world.settle()
    status = {"conditions": [{"type": "Ready", "status": "True"}]}
    world.cluster.update_status(kinds.NODE, {"metadata": {"name": "n1"}, "status": status})
    world.hear()
    assert world.queue == []

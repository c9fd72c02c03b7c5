"""What is told of objects, by the names and labels of kube-state-metrics."""

from typing import Any

import pytest
from exposition_parser import parse

from kproxy.api import codec
from kproxy.exposition import Registry
from kproxy.monitoring.state import __main__ as program
from kproxy.monitoring.state.telling import families

CREATED = "2026-01-01T00:00:00Z"
SECONDS = 1767225600.0


def told(kind: str, *objects: dict[str, Any]) -> dict[str, float]:
    """Return what is told of objects of a kind, as lines say it, without the family of times."""
    (one,) = [found for found in program.FOLLOWED if found.kind.name == kind]
    decoded = [codec.from_dict(obj, one.kind.type) for obj in objects]
    registry = Registry()
    registry.collect_by(lambda: families(one.words, one.tell, decoded))
    return {
        "{} {}".format(name, " ".join(f"{key}={value}" for key, value in labels if value)): value
        for family in parse(registry.text()).values()
        for (name, labels), value in family.samples.items()
    }


def meta(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "namespace": "demo", "uid": "u1", "creationTimestamp": CREATED, **more}


def test_a_node() -> None:
    found = told(
        "Node",
        {
            "metadata": {"name": "n1", "creationTimestamp": CREATED},
            "spec": {"unschedulable": True, "taints": [{"key": "a", "effect": "NoSchedule"}]},
            "status": {
                "addresses": [
                    {"type": "Hostname", "address": "n1"},
                    {"type": "InternalIP", "address": "192.0.2.1"},
                ],
                "conditions": [
                    {"type": "Ready", "status": "Unknown"},
                    {"type": "DiskPressure", "status": "False"},
                ],
            },
        },
        {"metadata": {"name": "n2"}},
    )
    assert found["kube_node_info internal_ip=192.0.2.1 node=n1"] == 1
    assert found["kube_node_created node=n1"] == SECONDS
    assert found["kube_node_spec_unschedulable node=n1"] == 1
    assert found["kube_node_spec_unschedulable node=n2"] == 0
    assert found["kube_node_spec_taint effect=NoSchedule key=a node=n1"] == 1
    ready = "kube_node_status_condition condition=Ready node=n1 status="
    assert [found[ready + one] for one in ("true", "false", "unknown")] == [0, 0, 1]
    assert found["kube_node_status_condition condition=DiskPressure node=n1 status=false"] == 1
    assert not any("condition" in line and "n2" in line for line in found)


def test_a_daemon_set_whose_controller_is_behind() -> None:
    found = told(
        "DaemonSet",
        {
            "metadata": meta("proxy", generation=3),
            "status": {
                "observedGeneration": 2,
                "desiredNumberScheduled": 5,
                "currentNumberScheduled": 4,
                "updatedNumberScheduled": 1,
                "numberReady": 3,
                "numberAvailable": 2,
                "numberUnavailable": 3,
                "numberMisscheduled": 1,
            },
        },
    )
    prefix, labels = "kube_daemonset_", " daemonset=proxy namespace=demo"
    assert found == {
        f"{prefix}created{labels}": SECONDS,
        f"{prefix}metadata_generation{labels}": 3,
        f"{prefix}status_observed_generation{labels}": 2,
        f"{prefix}status_desired_number_scheduled{labels}": 5,
        f"{prefix}status_current_number_scheduled{labels}": 4,
        f"{prefix}status_updated_number_scheduled{labels}": 1,
        f"{prefix}status_number_ready{labels}": 3,
        f"{prefix}status_number_available{labels}": 2,
        f"{prefix}status_number_unavailable{labels}": 3,
        f"{prefix}status_number_misscheduled{labels}": 1,
    }


def test_a_deployment() -> None:
    found = told(
        "Deployment",
        {
            "metadata": meta("web", generation=2),
            "spec": {"replicas": 3, "paused": True},
            "status": {
                "observedGeneration": 2,
                "replicas": 4,
                "readyReplicas": 2,
                "availableReplicas": 1,
                "unavailableReplicas": 3,
                "updatedReplicas": 2,
                "conditions": [{"type": "Progressing", "status": "False"}],
            },
        },
    )
    values = {
        line.partition(" ")[0].removeprefix("kube_deployment_"): value
        for line, value in found.items()
        if "condition" not in line
    }
    assert values == {
        "created": SECONDS,
        "metadata_generation": 2,
        "spec_replicas": 3,
        "spec_paused": 1,
        "status_observed_generation": 2,
        "status_replicas": 4,
        "status_replicas_ready": 2,
        "status_replicas_available": 1,
        "status_replicas_unavailable": 3,
        "status_replicas_updated": 2,
    }
    progressing = "condition=Progressing deployment=web namespace=demo status="
    assert found[f"kube_deployment_status_condition {progressing}false"] == 1
    assert found[f"kube_deployment_status_condition {progressing}true"] == 0


def test_a_stateful_set() -> None:
    status = {"replicas": 2, "readyReplicas": 1, "availableReplicas": 1, "updatedReplicas": 2}
    found = told(
        "StatefulSet", {"metadata": meta("db"), "spec": {"replicas": 3}, "status": status}
    )
    labels = " namespace=demo statefulset=db"
    assert found[f"kube_statefulset_replicas{labels}"] == 3
    assert found[f"kube_statefulset_status_replicas{labels}"] == 2
    assert found[f"kube_statefulset_status_replicas_ready{labels}"] == 1


def test_a_pod() -> None:
    found = told(
        "Pod",
        {
            "metadata": meta(
                "web-1",
                ownerReferences=[
                    {"apiVersion": "v1", "kind": "ReplicaSet", "name": "web", "controller": True}
                ],
            ),
            "spec": {"nodeName": "n1", "containers": [], "hostNetwork": True},
            "status": {
                "phase": "Running",
                "podIP": "10.1.0.2",
                "hostIP": "192.0.2.1",
                "conditions": [{"type": "Ready", "status": "False"}],
                "containerStatuses": [
                    {
                        "name": "c",
                        "restartCount": 7,
                        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                        "lastState": {"terminated": {"reason": "Error", "exitCode": 1}},
                    },
                    {"name": "d", "ready": True, "state": {"running": {"startedAt": CREATED}}},
                ],
            },
        },
    )
    mine = "namespace=demo pod=web-1"
    info = (
        "kube_pod_info created_by_kind=ReplicaSet created_by_name=web host_ip=192.0.2.1 "
        f"host_network=true {mine.partition(' ')[0]} node=n1 pod=web-1 pod_ip=10.1.0.2 uid=u1"
    )
    assert found[info] == 1
    owner = "owner_is_controller=true owner_kind=ReplicaSet owner_name=web"
    assert found[f"kube_pod_owner namespace=demo {owner} pod=web-1 uid=u1"] == 1
    phases = {
        line.split("phase=")[1].split()[0]: value
        for line, value in found.items()
        if line.startswith("kube_pod_status_phase")
    }
    assert phases == {"Pending": 0, "Running": 1, "Succeeded": 0, "Failed": 0, "Unknown": 0}
    assert found[f"kube_pod_status_ready condition=false {mine} uid=u1"] == 1
    assert found[f"kube_pod_status_ready condition=true {mine} uid=u1"] == 0
    status = "kube_pod_container_status_"
    assert found[f"{status}restarts_total container=c {mine} uid=u1"] == 7
    assert found[f"{status}running container=c {mine} uid=u1"] == 0
    assert found[f"{status}running container=d {mine} uid=u1"] == 1
    assert found[f"{status}ready container=d {mine} uid=u1"] == 1
    waiting = f"{status}waiting_reason container=c {mine} reason=CrashLoopBackOff uid=u1"
    assert found[waiting] == 1
    assert found[f"{status}last_terminated_reason container=c {mine} reason=Error uid=u1"] == 1


def test_a_pod_of_which_nothing_was_reported() -> None:
    found = told("Pod", {"metadata": meta("p"), "spec": {"containers": []}})
    assert found["kube_pod_status_phase namespace=demo phase=Pending pod=p uid=u1"] == 1
    assert not any("ready" in line for line in found)


def test_a_service() -> None:
    spec = {"clusterIP": "10.96.0.1", "type": "NodePort"}
    found = told("Service", {"metadata": meta("web"), "spec": spec})
    mine = "namespace=demo service=web"
    assert found[f"kube_service_info cluster_ip=10.96.0.1 {mine} uid=u1"] == 1
    assert found[f"kube_service_spec_type {mine} type=NodePort uid=u1"] == 1


def slice_of(name: str, *endpoints: dict[str, Any], service: str = "web") -> dict[str, Any]:
    labels = {"kubernetes.io/service-name": service} if service else {}
    return {
        "metadata": meta(name, labels=labels),
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "port": 8080}],
    }


def test_endpoint_slices_and_what_is_behind_a_service() -> None:
    found = told(
        "EndpointSlice",
        slice_of(
            "web-1",
            {"addresses": ["10.1.0.2"], "nodeName": "n1", "zone": "a"},
            {"addresses": ["10.1.0.3"], "conditions": {"ready": False, "terminating": True}},
        ),
        slice_of("web-2", {"addresses": ["10.1.0.2"]}),
        slice_of("idle-1", service="idle"),
        slice_of("nobodys", {"addresses": ["10.1.0.9"]}, service=""),
    )
    endpoints = "kube_endpointslice_endpoints address="
    assert (
        f"{endpoints}10.1.0.3 endpointslice=web-1 namespace=demo ready=false serving=true "
        "terminating=true"
    ) in found
    assert any(line.startswith(f"{endpoints}10.1.0.9") for line in found)
    ports = "kube_endpointslice_ports endpointslice=web-1 namespace=demo"
    assert f"{ports} port_name=http port_number=8080 port_protocol=TCP" in found
    named = "kube_endpointslice_labels endpointslice=web-1 label_kubernetes_io_service_name=web"
    assert f"{named} namespace=demo" in found
    behind = {line for line in found if line.startswith("kube_endpoint_")}
    assert behind == {
        "kube_endpoint_info endpoint=web namespace=demo",
        "kube_endpoint_info endpoint=idle namespace=demo",
        "kube_endpoint_address endpoint=web ip=10.1.0.2 namespace=demo ready=true",
        "kube_endpoint_address endpoint=web ip=10.1.0.3 namespace=demo ready=false",
    }


def test_a_lease() -> None:
    spec = {"holderIdentity": "m1", "renewTime": "2026-01-01T00:00:00.250000Z"}
    found = told("Lease", {"metadata": meta("scheduler"), "spec": spec})
    assert found == {
        "kube_lease_owner lease=scheduler lease_holder=m1 namespace=demo": 1,
        "kube_lease_renew_time lease=scheduler namespace=demo": SECONDS + 0.25,
    }


@pytest.mark.parametrize("time", ["yesterday", "", None])
def test_a_time_that_is_none_is_not_told(time: str | None) -> None:
    found = told("Lease", {"metadata": meta("l"), "spec": {"renewTime": time}})
    assert list(found) == ["kube_lease_owner lease=l namespace=demo"]


@pytest.mark.parametrize("kind", [one.kind.name for one in program.FOLLOWED])
def test_an_object_that_says_next_to_nothing_is_told_of(kind: str) -> None:
    assert told(kind, {"metadata": {"name": "x"}})

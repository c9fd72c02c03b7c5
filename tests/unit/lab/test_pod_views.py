"""What a lab reads from objects of pods and nodes before it goes on."""

from typing import Any

import pytest

from kproxy.lab import podviews

READY = [{"type": "Ready", "status": "True"}]
TAINT = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("spec", "conditions", "takes"),
    [
        ({}, READY, True),
        ({"taints": []}, READY, True),
        ({"taints": [TAINT]}, READY, False),
        ({}, [{"type": "Ready", "status": "False"}], False),
        ({}, [], False),
    ],
)
def test_a_node_takes_pods_when_it_is_ready_and_nothing_keeps_them_away(
    spec: dict[str, Any], conditions: list[dict[str, str]], takes: bool
) -> None:
    assert podviews.takes_pods({"spec": spec, "status": {"conditions": conditions}}) is takes
    assert not podviews.takes_pods({})


def test_a_pod_that_is_being_deleted_is_in_service_no_more() -> None:
    pod: dict[str, Any] = {"metadata": {}, "status": {"conditions": READY}}
    assert podviews.is_ready(pod)
    pod["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z"
    assert not podviews.is_ready(pod)


def test_a_pod_belongs_to_the_deployment_of_its_replica_set() -> None:
    labels = {"pod-template-hash": "abc"}
    pod = {"metadata": {"namespace": "shop", "labels": labels}}
    owner = {"kind": "ReplicaSet", "name": "web-abc"}
    assert podviews.workload(pod, owner) == ("Deployment", "shop/web")
    owner = {"kind": "DaemonSet", "name": "kube-proxy"}
    assert podviews.workload(pod, owner) == ("DaemonSet", "shop/kube-proxy")

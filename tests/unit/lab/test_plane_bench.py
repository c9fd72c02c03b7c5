"""What the bench of the control plane declares, starts and tells."""

import json
from pathlib import Path
from typing import Any

import pytest

from kproxy import errors
from kproxy.api import catalog, kinds
from kproxy.cli import bench_controlplane
from kproxy.lab import planebench
from kproxy.lab.planebench import Size

SMALL = Size(nodes=3, pods=7, services=3, watchers=4, events=5)


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"nodes": 0}, "--nodes 0"),
        ({"nodes": 251}, "--nodes 251"),
        ({"pods": 2, "services": 3}, "--pods 2"),
        ({"watchers": -1}, "--watchers -1"),
        ({"events": 0}, "--events 0"),
    ],
)
def test_what_cannot_be_is_told_by_its_option(change: dict[str, int], option: str) -> None:
    with pytest.raises(errors.UsageError, match=option):
        Size(**change).check()


def test_pods_are_spread_over_the_services() -> None:
    declared = list(planebench.objects(SMALL))
    replicas = [obj["spec"]["replicas"] for kind, obj in declared if kind is catalog.DEPLOYMENT]
    assert replicas == [3, 2, 2]
    services = [obj for kind, obj in declared if kind is kinds.SERVICE]
    deployments = [obj for kind, obj in declared if kind is catalog.DEPLOYMENT]
    for service, deployment in zip(services, deployments, strict=True):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"] == labels


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A whole bench, small, with processes of its own on the loopback interface."""
    told: list[str] = []
    found = planebench.run(SMALL, tmp_path_factory.mktemp("plane"), told.append)
    assert told
    return {"host": {"cpus": 2}, **found}


def test_everything_that_is_declared_gets_ready(document: dict[str, Any]) -> None:
    stages = list(document["start_s"])
    assert stages[0] == "API ready"
    assert stages[-1] == "endpoints ready"
    seconds = list(document["start_s"].values())
    assert seconds == sorted(seconds)


def test_every_watcher_hears_of_every_write(document: dict[str, Any]) -> None:
    watch = document["watch"]
    assert watch["heard"] == SMALL.watchers * SMALL.events
    assert 0 < watch["late_ms_p50"] <= watch["late_ms_p99"]


def test_store_and_memory_are_told(document: dict[str, Any]) -> None:
    assert document["store_mb"] > 0
    assert set(document["memory_mb"]) == {"apiserver", "manager", "scheduler", "kubelets 1"}
    assert [row["writers"] for row in document["commits"]] == [1, 4]


def test_the_table_says_what_the_document_says(document: dict[str, Any]) -> None:
    text = "\n".join(bench_controlplane.as_table(document))
    assert "3 nodes, 7 pods, 3 services" in text
    assert "4 watchers; 5 writes" in text
    assert "endpoints ready" in text
    json.dumps(document)


def test_a_program_that_ends_is_named_with_its_last_words(tmp_path: Path) -> None:
    with planebench.Plane(SMALL, tmp_path, lambda text: None) as plane:
        plane._spawn("apiserver", "controlplane.apiserver", "--no-such-option")
        with pytest.raises(errors.MeasurementError, match=r"apiserver has ended: .*no-such"):
            plane._wait(lambda: False, "nothing")

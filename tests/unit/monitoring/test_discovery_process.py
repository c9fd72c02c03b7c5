"""What finds targets, as a process beside an API server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from monitored_api import PATIENCE_S, Api, running, serving, started

from kproxy.api import catalog, kinds
from netns.wait import wait_until

META = "__meta_kubernetes_"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with serving(tmp_path) as made:
        yield made


def fill(api: Api) -> None:
    addresses = [{"type": "InternalIP", "address": "192.0.2.1"}]
    api.create(kinds.NODE, "n1", status={"addresses": addresses})
    port = {"name": "metrics", "containerPort": 9815}
    containers = [{"name": "c", "image": "i", "ports": [port]}]
    api.create(catalog.POD, "p1", spec={"containers": containers})
    status = {"status": {"podIP": "10.1.0.2"}}
    api.client.patch(catalog.POD, "default", "p1", status, "status")
    api.create(kinds.SERVICE, "s", spec={"ports": [{"name": "web", "port": 80}]})
    api.create(
        kinds.ENDPOINT_SLICE,
        "s-1",
        labels={"kubernetes.io/service-name": "s"},
        addressType="IPv4",
        endpoints=[{"addresses": ["10.1.0.3"]}],
        ports=[{"name": "web", "port": 8080}],
    )


def read(directory: Path, role: str) -> list[dict[str, Any]]:
    try:
        return list(json.loads((directory / f"{role}.json").read_text()))
    except FileNotFoundError:
        return []


def wait_for(directory: Path, role: str, *targets: str) -> None:
    def there() -> bool:
        return [one["targets"][0] for one in read(directory, role)] == list(targets)

    wait_until(there, PATIENCE_S, f"no targets of the role {role} as they are wanted")


def test_files_follow_the_cluster(api: Api, tmp_path: Path) -> None:
    fill(api)
    directory = tmp_path / "targets"
    with running(
        "discovery", f"--kubeconfig={api.kubeconfig}", f"--directory={directory}"
    ) as found:
        wait_for(directory, "node", "192.0.2.1:10250")
        wait_for(directory, "pod", "10.1.0.2:9815")
        wait_for(directory, "endpointslice", "10.1.0.3:8080")
        (endpoint,) = read(directory, "endpointslice")
        assert endpoint["labels"][f"{META}service_name"] == "s"
        found.until(lambda: found.value("kproxy_discovery_targets", role="pod") == 1)
        nodes_written = found.value("kproxy_discovery_writes_total", role="node")
        api.client.delete(catalog.POD, "default", "p1", grace=0)
        wait_for(directory, "pod")
        # What has not changed is not written again: Prometheus would read it.
        assert found.value("kproxy_discovery_writes_total", role="node") == nodes_written
        assert found.end()[0] == 0
    assert {path.name for path in directory.iterdir()} == {
        "node.json", "pod.json", "endpointslice.json",
    }  # fmt: skip


def test_while_the_api_is_away_targets_stay(api: Api, tmp_path: Path) -> None:
    fill(api)
    with running(
        "discovery", f"--kubeconfig={api.kubeconfig}", f"--directory={tmp_path}"
    ) as found:
        wait_for(tmp_path, "pod", "10.1.0.2:9815")
        api.close()
        failed = {"code": "<error>"}
        found.until(lambda: (found.value("rest_client_requests_total", **failed) or 0) > 0)
        wait_for(tmp_path, "pod", "10.1.0.2:9815")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--directory=targets"], "no API server"),
        (["--directory=/proc/nowhere", "--kubeconfig=x"], "cannot make /proc/nowhere"),
    ],
)
def test_mistakes_are_told_in_one_line(
    options: list[str], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.chdir(tmp_path)
    with started("discovery", *options) as process:
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    (line,) = said.splitlines()
    assert words in line

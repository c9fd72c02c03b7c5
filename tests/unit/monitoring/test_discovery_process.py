"""What finds targets, as a process beside an API server."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from child_processes import DIES_WITH_US
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


def test_bad_objects_are_told_of_and_left_out_and_the_others_go_on(
    api: Api, tmp_path: Path
) -> None:
    fill(api)
    one = {"endpoints": [{"addresses": ["10.1.0.9"]}], "ports": [{"port": 80}]}
    api.create(kinds.ENDPOINT_SLICE, "bad", addressType="IPv4", **one)
    api.put(kinds.ENDPOINT_SLICE, "bad", addressType=None)
    addresses = [{"type": "InternalIP", "address": "192.0.2.9"}]
    api.create(kinds.NODE, "n2")
    api.put(kinds.NODE, "n2", status={"addresses": addresses, "daemonEndpoints": 7})
    with running(
        "discovery", f"--kubeconfig={api.kubeconfig}", f"--directory={tmp_path}"
    ) as found:
        wait_for(tmp_path, "node", "192.0.2.1:10250")
        wait_for(tmp_path, "endpointslice", "10.1.0.3:8080")
        # What goes bad later stays as it was, and what is mended is found.
        api.put(catalog.POD, "p1", status={"podIP": 5})
        api.put(kinds.NODE, "n2", status={"addresses": addresses})
        wait_for(tmp_path, "node", "192.0.2.1:10250", "192.0.2.9:10250")
        wait_for(tmp_path, "pod", "10.1.0.2:9815")
        wait_for(tmp_path, "endpointslice", "10.1.0.3:8080")
        code, said = found.end()
    assert code == 0
    told = {json.loads(line).get("error") for line in said.splitlines()}
    assert {
        "EndpointSlice default/bad: addressType: is missing (add it)",
        "Node n2: status.daemonEndpoints: must be a mapping, not a whole number"
        " (correct its value)",
        "Pod default/p1: status.podIP: must be text, not a whole number (correct its value)",
    } <= told


def ended(api: Api, tmp_path: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    """Run it with something else in it."""
    program = """
import os, sys
from kproxy.client.informer import Informer
from kproxy.logs import Log
from kproxy.monitoring.discovery import __main__ as it
from kproxy.monitoring.discovery.__main__ import Finder
{}
sys.exit(it.main(sys.argv[1:]))
""".format("\n".join(lines))
    options = [f"--kubeconfig={api.kubeconfig}", f"--directory={tmp_path}"]
    return subprocess.run(
        [*DIES_WITH_US, sys.executable, "-c", program, *options, "--metrics-bind-address="],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.parametrize(
    ("broken", "thread"),
    [("Finder._write", "finder"), ("Informer._list", "informer-")],
)
def test_a_thread_that_dies_ends_the_program(
    api: Api, tmp_path: Path, broken: str, thread: str
) -> None:
    done = ended(api, tmp_path, "def die(self): raise KeyError('a bug')", f"{broken} = die")
    assert done.returncode == 1
    last = json.loads(done.stderr.splitlines()[-1])
    assert (last["level"], last["msg"]) == ("error", "thread died")
    assert last["thread"].startswith(thread)
    assert last["error"] == "KeyError: 'a bug'"
    assert "Traceback" in done.stderr, "for those who mend it"


def test_a_thread_whose_words_nobody_takes_ends_the_program(api: Api, tmp_path: Path) -> None:
    done = ended(
        api,
        tmp_path,
        "def tell(self):",
        "    nobody, stderr = os.pipe()",
        "    os.close(nobody)",
        "    os.dup2(stderr, 2)",
        "    Log('finder').warning('problem')",
        "Finder._write = tell",
    )
    assert done.returncode == 1


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

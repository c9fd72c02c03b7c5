"""A program of the control plane as a process: options, health, metrics, its end."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from child_processes import DIES_WITH_US
from exposition_parser import parse

from kproxy.controlplane.access import kubeconfigs
from kproxy.errors import UsageError
from kproxy.healthhttp import HealthServer

MANAGER = [sys.executable, "-m", "kproxy.controlplane.manager"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    nobody_listens = {"server": "http://127.0.0.1:1"}
    path.write_text(kubeconfigs.document(nobody_listens, "u", {}))
    return path


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return answer.read().decode()


def test_health_and_metrics_are_served_and_sigterm_ends_it_cleanly(config: Path) -> None:
    options = ["--kubeconfig", str(config), "--healthz-bind-address", "127.0.0.1:0"]
    command = [*DIES_WITH_US, *MANAGER, *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            port = json.loads(process.stderr.readline())["port"]
            assert get(port, "/healthz") == "ok"
            assert get(port, "/readyz") == "ok", "one that waits for its turn is ready"
            metrics = get(port, "/metrics")
            assert 'leader_election_master_status{name="kube-controller-manager"} 0' in metrics
            for name in ("depth", "adds_total", "retries_total"):
                assert f'workqueue_{name}{{name="deployment"}} 0' in metrics
            families = parse(metrics)
            assert families["process_open_fds"].samples["process_open_fds", ()] > 3
            followed = families["kproxy_watch_last_event_timestamp_seconds"].samples
            assert {dict(labels)["resource"] for _, labels in followed} >= {"pods", "nodes"}
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(port, "/elsewhere")
        finally:
            process.terminate()
            said = process.stderr.read()
        assert process.wait(60) == 0
    assert '"stopped"' in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--leader-elect-lease-duration", "5s"], "use a lease duration above"),
        (["--leader-elect-retry-period", "20s"], "use a renew deadline above"),
        (["--healthz-bind-address", "nowhere:http"], "choose another HOST:PORT"),
        (["--leader-elect-retry-period", "often"], "is not a duration"),
        (["--leader-elect=perhaps"], "neither true nor false"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(
    config: Path, options: list[str], words: str
) -> None:
    command = [*MANAGER, "--kubeconfig", str(config), "--healthz-bind-address=", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_an_address_that_is_taken_is_told() -> None:
    with (
        HealthServer("127.0.0.1:0", {}) as first,
        pytest.raises(UsageError, match="cannot listen"),
    ):
        HealthServer(f"127.0.0.1:{first.port}", {})


def test_nothing_is_served_without_an_address() -> None:
    with HealthServer("", {}) as server:
        assert server.port == 0

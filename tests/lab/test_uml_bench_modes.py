"""The benches of modes, whole: every mode in an embedded kernel, in real time; nothing is left."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from uml_runner import Runner, wait_until_clean

from kproxy.backends.base import BACKENDS
from kproxy.lab import pathbench, syncbench
from netns.kernels import base, registry

pytestmark = [
    pytest.mark.uml,
    pytest.mark.slow,
    pytest.mark.skipif(base.inside_guest(), reason="needs the host: boots embedded kernels"),
    pytest.mark.skipif(
        not registry.built_kernels(), reason="needs a kernel of our own: kproxy kernel build"
    ),
]

DEADLINE = 600.0  # a loaded machine is slow
PROXY = (
    f"{sys.executable} -m kproxy proxy --proxy-mode {{mode}} --kubeconfig {{kubeconfig}}"
    " --config {config} --hostname-override {node}"
)


def bench(tmp_path: Path, *words: str) -> dict[str, Any]:
    runner = Runner(state=tmp_path / "state")
    command = (sys.executable, "-m", "kproxy", "bench", *words, "--kernel", "uml", "--json")
    done = subprocess.run(
        command, env=runner.variables(), capture_output=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert wait_until_clean(runner) == []
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["failures"] == []
    assert found["kernel"]["provider"] == "uml"
    return found


def test_every_step_of_every_mode_has_a_figure_and_a_peer(tmp_path: Path) -> None:
    sizes = ("--services", "3", "--endpoints", "2", "--runs", "1")
    found = bench(tmp_path, "sync", *sizes, "--proxy-command", PROXY)
    rows = found["rows"]
    steps: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        steps.setdefault((row["mode"], row["proxy"]), set()).add(row["step"])
        assert row["seconds"] > 0
        assert row["rss_mb"] > 1
        assert row["kernel"].startswith("User-Mode Linux")
        if row["peer"] is not None:
            assert row["ratio"] == pytest.approx(row["seconds"] / row["peer_seconds"])
    outside = {"start", "endpoint", "service", "restart"}
    stranger = Path(sys.executable).name
    for mode in BACKENDS:
        assert steps[mode, "kproxy"] == set(syncbench.STEPS)
        assert steps[mode, stranger] == outside
    idle = [row for row in rows if row["step"] in syncbench.IDLE_STEPS and row["writes"]]
    assert idle == []
    peers = {(row["mode"], row["peer"]) for row in rows if row["step"] == "cold"}
    assert ("ipvs", "replay of prepared messages") in peers
    assert ("ipvs", "ipvsadm --restore") in peers


def test_every_target_of_every_mode_has_a_path(tmp_path: Path) -> None:
    found = bench(tmp_path, "path", "--services", "1,3", "--endpoints", "2", "--samples", "100")
    places = {(row["mode"], row["services"], row["step"], row["target"]) for row in found["rows"]}
    assert places == {
        (mode, services, step, target)
        for mode in BACKENDS
        for services in (1, 3)
        for step in (pathbench.CONNECT, pathbench.FIRST_PACKET)
        for target in (pathbench.FIRST, pathbench.LAST, pathbench.POD)
    }
    assert all(0 < row["seconds"] <= row["p99_seconds"] for row in found["rows"])

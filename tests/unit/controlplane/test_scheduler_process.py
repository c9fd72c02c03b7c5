"""Schedulers as processes: one binds, its successor goes on; and the options of a manager."""

import argparse
import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from child_processes import DIES_WITH_US

from kproxy import logs
from kproxy.api import catalog, kinds
from kproxy.api.pods import Pod
from kproxy.client import informer, kubeconfig, objects, rest
from kproxy.controlplane import addresses, apiserver, manager
from kproxy.controlplane.access import kubeconfigs
from kproxy.controlplane.controllers import times

PATIENCE = 60.0
QUICK = (
    "--leader-elect-lease-duration=6s",
    "--leader-elect-renew-deadline=5s",
    "--leader-elect-retry-period=200ms",
    "--healthz-bind-address=",
)


@pytest.fixture
def server() -> Iterator[Any]:
    cidrs = addresses.parse_cidrs("10.96.0.0/16")
    log = logs.Log("test", stream=io.StringIO())
    server = apiserver.start(("127.0.0.1", 0), cidrs, log)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    yield server
    server.stop()
    thread.join()


@contextlib.contextmanager
def scheduler(config: Path) -> Iterator[subprocess.Popen[str]]:
    command = [*DIES_WITH_US, sys.executable, "-m", "kproxy.controlplane.scheduler"]
    command += ["--kubeconfig", str(config), *QUICK]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_killed_scheduler_is_followed_by_another_and_no_pod_is_bound_twice(
    server: Any, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{server.server_address[1]}"
    config = tmp_path / "kubeconfig"
    config.write_text(kubeconfigs.document({"server": url}, "u", {}))
    client = rest.Rest(kubeconfig.Access(server=url))
    api = objects.ObjectClient(client)
    for name in ("n1", "n2"):
        api.create(kinds.NODE, {"metadata": {"name": name}})
    changed = threading.Condition()
    nodes: dict[str, list[str]] = {}

    def hear(old: Pod | None, new: Pod | None) -> None:
        with changed:
            if new is not None and new.spec.node_name:
                seen = nodes.setdefault(new.metadata.name, [])
                if new.spec.node_name not in seen:
                    seen.append(new.spec.node_name)
            changed.notify_all()

    def bind_more(numbers: range) -> None:
        for number in numbers:
            spec = {"containers": [{"name": "c", "image": "x"}]}
            meta = {"namespace": "default", "name": f"p{number}"}
            api.create(catalog.POD, {"metadata": meta, "spec": spec})
        with changed:
            assert changed.wait_for(lambda: len(nodes) == numbers.stop, PATIENCE), nodes

    watch = informer.Informer(client, Pod, on_change=hear)
    watch.start()
    try:
        with scheduler(config) as first:
            bind_more(range(3))
            with scheduler(config):
                os.kill(first.pid, signal.SIGKILL)
                bind_more(range(3, 6))
    finally:
        watch.stop()
        client.close()
    assert sorted(len(found) for found in nodes.values()) == [1] * 6
    assert sorted(found[0] for found in nodes.values()) == ["n1"] * 3 + ["n2"] * 3


@pytest.mark.parametrize(
    ("text", "there", "missing"),
    [
        ("*", {"podgc", "deployment"}, set()),
        ("*,-podgc", {"deployment"}, {"podgc"}),
        ("endpointslice", {"endpointslice"}, {"podgc", "deployment"}),
    ],
)
def test_controllers_are_chosen_by_name(text: str, there: set[str], missing: set[str]) -> None:
    chosen = {one.name for one in manager._chosen(text)}
    assert there <= chosen
    assert not missing & chosen


def test_unknown_controllers_and_times_are_refused_in_one_line(tmp_path: Path) -> None:
    for option, words in (
        ("--controllers=postman", "there is no controller 'postman'"),
        ("--node-monitor-period=often", "is not a duration"),
    ):
        command = [sys.executable, "-m", "kproxy.controlplane.manager", option]
        done = subprocess.run(
            [*command, "--kubeconfig", str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2
        assert words in done.stderr.splitlines()[-1]


def test_the_times_of_a_manager_are_those_of_its_options() -> None:
    parser = argparse.ArgumentParser()
    times.add_options(parser)
    assert times.of(parser.parse_args([])) == times.DEFAULT
    given = ["--node-monitor-grace-period=4s", "--terminated-pod-gc-threshold=7"]
    assert times.of(parser.parse_args(given)) == times.Times(node_grace=4.0, terminated_pods=7)

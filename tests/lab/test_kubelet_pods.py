"""Pods with probes, hooks and grace periods, run for real; in virtual time, so times are exact."""

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import kubelet_lab
import pytest
from kubelet_lab import NODE, PLAN, PORT, KubeletLab
from wsproto import ConnectionType, WSConnection, events

from kproxy import errors
from netns.kernels import base

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(base.clock() is not base.Clock.VIRTUAL, reason="needs the virtual clock"),
]
MARGIN_S = 1.0
"""For starting programs and telling the API server: no time at all in theory."""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[KubeletLab]:
    with kubelet_lab.running(tmp_path / "state") as made:
        made.start_api()
        made.kubelet = made.start_kubelet()
        yield made


def test_a_pod_is_ready_only_when_its_probe_says_so(lab: KubeletLab) -> None:
    """The server says so seven seconds after its start; it is asked every two."""
    probe = {"httpGet": {"port": "http", "path": "/readyz"}, "periodSeconds": 2}
    lab.create(
        "web",
        {
            "image": "web",
            "args": ["--ready-after", "7"],
            "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": probe,
        },
    )
    began = lab.until(lambda: "running" in lab.state("web").get("state", {}), "the server to run")
    assert not lab.ready("web")
    ready = lab.until(lambda: lab.ready("web"), "the pod to be ready")
    assert 7 - MARGIN_S <= ready - began <= 7 + 2 + MARGIN_S
    metrics = lab.ask("/metrics")
    assert 'prober_probe_total{probe_type="Readiness",result="successful",container="c"' in metrics


def test_a_container_that_fails_its_liveness_probe_is_restarted(
    lab: KubeletLab, tmp_path: Path
) -> None:
    alive = tmp_path / "alive"
    alive.touch()
    lab.create(
        "a",
        {
            "command": ["sh", "-c", "echo started; exec sleep 10000"],
            "livenessProbe": {
                "exec": {"command": ["test", "-e", str(alive)]},
                "periodSeconds": 5,
                "failureThreshold": 2,
            },
        },
    )
    lab.until(lambda: lab.state("a").get("started", False), "the container to start")
    first = lab.state("a")["containerID"]
    lab.until(lambda: lab.ask("/metrics").count('probe_type="Liveness"') > 0, "a probe")
    assert lab.state("a")["restartCount"] == 0
    alive.unlink()
    began = lab.until(lambda: True, "now")
    ended = lab.until(lambda: lab.state("a")["restartCount"] == 1, "the restart")
    assert 5 - MARGIN_S <= ended - began <= 10 + MARGIN_S
    told = lab.state("a")
    assert told["lastState"]["terminated"]["containerID"] == first
    assert told["lastState"]["terminated"]["exitCode"] == 143
    assert lab.log("a") == "started\n"
    assert lab.log("a", "previous=true") == "started\n"


def test_pre_stop_then_sigterm_within_the_grace_period(lab: KubeletLab) -> None:
    script = "trap 'echo term; sleep 3; echo bye; exit 0' TERM; echo up; sleep 10000 & wait"
    lab.create(
        "a",
        {
            "command": ["sh", "-c", script],
            "lifecycle": {"preStop": {"sleep": {"seconds": 4}}},
        },
    )
    lab.until(lambda: lab.ready("a"), "the pod")
    lab.until(lambda: lab.log("a") == "up\n", "the trap")
    with lab.asking("/containerLogs/default/a/c?follow=true&timestamps=true") as answer:
        lab.delete("a")
        began = lab.until(lambda: True, "now")
        gone = lab.until(lambda: lab.get("a") is None, "the end")
        lines = answer.read().decode().splitlines()
    assert 7 - MARGIN_S <= gone - began <= 7 + MARGIN_S
    assert [line.split()[-1] for line in lines] == ["up", "term", "bye"]


def test_who_ignores_sigterm_is_killed_when_the_grace_period_is_over(lab: KubeletLab) -> None:
    lab.create(
        "a",
        {"command": ["sh", "-c", "trap '' TERM; echo up; sleep 10000 & wait; sleep 10000"]},
        terminationGracePeriodSeconds=6,
    )
    lab.until(lambda: lab.ready("a"), "the pod")
    lab.until(lambda: lab.log("a") == "up\n", "the trap")
    lab.delete("a")
    began = lab.until(lambda: True, "now")
    gone = lab.until(lambda: lab.get("a") is None, "the end")
    assert 6 - MARGIN_S <= gone - began <= 6 + MARGIN_S


def test_a_crash_loop_waits_ten_seconds_then_twenty(lab: KubeletLab) -> None:
    lab.create("a", {"command": ["sh", "-c", "exit 3"]})
    seen = [
        lab.until(lambda count=count: lab.state("a")["restartCount"] >= count, "a restart")
        for count in (1, 2, 3)
    ]
    assert seen[1] - seen[0] == pytest.approx(10, abs=MARGIN_S)
    assert seen[2] - seen[1] == pytest.approx(20, abs=MARGIN_S)
    told = lab.state("a")
    assert told["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert told["lastState"]["terminated"]["exitCode"] == 3


def test_a_command_in_a_pod_over_the_kubelets_server(lab: KubeletLab) -> None:
    lab.create("a", {"image": "pause", "env": [{"name": "WHO", "value": "me"}]})
    lab.until(lambda: lab.ready("a"), "the pod")
    pod = lab.get("a")
    assert pod
    words = ("sh", "-c", "echo $WHO; cat /proc/net/fib_trie; exit 5")
    output, status = execute(lab, (str(NODE.address), PORT), "/exec/default/a/c", *words)
    assert output.startswith("me\n")
    assert pod["status"]["podIP"] in output  # it is in the pod's own network
    assert str(NODE.address) not in output
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "5"}]
    server = (str(PLAN.control_address), PLAN.api_port)
    path = "/api/v1/namespaces/default/pods/a/exec"
    assert execute(lab, server, path, "echo", "hi") == ("hi\n", OK)


def test_logs_through_the_api_server(lab: KubeletLab) -> None:
    lab.create("a", {"command": ["sh", "-c", "echo one; echo two; sleep 10000"]})
    lab.until(lambda: lab.ready("a"), "the pod")
    lab.until(lambda: lab.log("a") == "one\ntwo\n", "the lines")
    path = "/api/v1/namespaces/default/pods/a/log"
    assert lab.through_api(path, tailLines="1") == "two\n"
    with pytest.raises(errors.ApiError, match='previous terminated container "c"'):
        lab.through_api(path, previous="true")


OK = {"metadata": {}, "status": "Success"}


def execute(
    lab: KubeletLab, address: tuple[str, int], path: str, *command: str
) -> tuple[str, dict]:
    words = "&".join(f"command={word.replace(' ', '%20')}" for word in command)
    socketed = WSConnection(ConnectionType.CLIENT)
    request = events.Request(
        host="node1",
        target=f"{path}?{words}&stdout=true",
        subprotocols=["v5.channel.k8s.io"],
    )
    output, status, message = b"", {}, b""
    with lab.call(socket.create_connection, address, kubelet_lab.PATIENCE) as sock:
        sock.sendall(socketed.send(request))
        while data := sock.recv(65536):
            socketed.receive_data(data)
            for event in socketed.events():
                if not isinstance(event, events.Message):
                    continue
                message += bytes(event.data)
                if event.message_finished:
                    if message[0] == 1:
                        output += message[1:]
                    elif message[0] == 3:
                        status = json.loads(message[1:])
                    message = b""
    return output.decode(), status


def test_a_kubelet_that_is_killed_leaves_its_pods_as_they_are(lab: KubeletLab) -> None:
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 1}
    ports = [{"containerPort": 8080}]
    lab.create("web", {"image": "web", "ports": ports, "readinessProbe": probe})
    lab.until(lambda: lab.ready("web"), "the pod")
    before = lab.get("web")
    lab.kubelet.kill()
    lab.kubelet.wait(10)
    lab.start_kubelet()
    lab.until(lambda: "container adopted" in kubelet_log(lab), "the adoption")
    # Were it to report the pod otherwise, it would do so within its first rounds of probing.
    count = metric_count(lab)
    lab.until(lambda: metric_count(lab) >= count + 3, "three probes")
    after = lab.get("web")
    assert before
    assert after
    assert after["status"] == before["status"]
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def kubelet_log(lab: KubeletLab) -> str:
    return lab.files.log("node1-node").read_text()


def metric_count(lab: KubeletLab) -> float:
    try:
        lines = lab.ask("/metrics").splitlines()
    except OSError:
        return 0.0
    found = [line for line in lines if line.startswith("prober_probe_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in found)


def test_static_pods_run_without_an_api_server(tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    manifest = manifests / "web.yaml"
    manifest.write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\n"
        "spec: {containers: [{name: c, image: web}], terminationGracePeriodSeconds: 2}\n"
    )
    with kubelet_lab.running(tmp_path / "state") as lab:
        lab.start_kubelet("--standalone", "--pod-manifest-path", str(manifests))

        def pods() -> list[dict]:
            try:
                return json.loads(lab.ask("/pods"))["items"]
            except OSError:
                return []

        lab.until(
            lambda: [one["status"]["phase"] for one in pods()] == ["Running"], "the static pod"
        )
        (pod,) = pods()
        assert pod["metadata"]["name"] == "web-node1"
        address = (pod["status"]["podIP"], 8080)
        lab.until(lambda: answers(lab, address), "the server")
        manifest.unlink()
        lab.until(lambda: pods() == [], "the end of the static pod")


def answers(lab: KubeletLab, address: tuple[str, int]) -> bool:
    try:
        lab.node.call(socket.create_connection, address, 1).close()
    except OSError:
        return False
    return True


def test_a_lab_whose_kubelet_ends_in_order_leaves_its_pods(lab: KubeletLab) -> None:
    lab.create("a", {"image": "pause"})
    lab.until(lambda: lab.ready("a"), "the pod")
    lab.kubelet.signal(signal.SIGTERM)
    lab.kubelet.wait(10)
    host = lab.lab.host("default-a")
    assert len(host.processes()) == 1

"""What kubectl may ask of an API server alone, with every kubectl that is there."""

import signal
import subprocess

import api_process
import kubectl_script
import pytest

PROGRAMS = kubectl_script.programs()


@pytest.mark.needs_tool("kubectl")
@pytest.mark.parametrize("program", PROGRAMS)
def test_kubectl(program, tmp_path):
    with api_process.running(tmp_path) as server:
        kubectl = kubectl_script.Kubectl(
            program, server.admin, tmp_path, image="example.org/image", node="alone"
        )
        problems = kubectl_script.run(kubectl, whole=False)
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.mark.needs_tool("kubectl")
@pytest.mark.parametrize("program", PROGRAMS)
def test_kubectl_watches(program, tmp_path):
    """``get -w`` shows a row for every change, until it is interrupted."""
    with api_process.running(tmp_path) as server:
        kubectl = kubectl_script.Kubectl(program, server.admin, tmp_path, image="x", node="alone")

        def run(command):
            step = kubectl_script.Step(command)
            assert list(kubectl.problems(step)) == []

        run("create configmap a --from-literal=x=1")
        watch = subprocess.Popen(
            [program, "get", "configmaps", "-w"],
            env=kubectl.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert watch.stdout is not None
        with watch, watch.stdout:
            assert watch.stdout.readline().split() == ["NAME", "DATA", "AGE"]
            assert watch.stdout.readline().split()[:2] == ["a", "1"]
            run("create configmap b --from-literal=x=1 --from-literal=y=2")
            assert watch.stdout.readline().split()[:2] == ["b", "2"]
            run("label configmap a some=label")
            assert watch.stdout.readline().split()[:2] == ["a", "1"]
            watch.send_signal(signal.SIGINT)

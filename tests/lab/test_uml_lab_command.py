"""``kproxy lab`` as its user has it: on an embedded kernel, from the start to nothing left."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from uml_runner import Runner, wait_until_clean

from netns.kernels import base
from netns.process import ProcessId
from netns.wait import wait_until

pytestmark = [
    pytest.mark.uml,
    pytest.mark.needs_tool("linux.uml"),
    pytest.mark.skipif(base.inside_guest(), reason="needs the host: boots embedded kernels"),
]
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PATIENCE = 300.0
FILE = """
name: demo
mode: iptables
nodes: 1
profile: lab
images: {example.org/one: {image: web}}
manifests: [one.yaml]
"""
ONE = """
apiVersion: v1
kind: Pod
metadata: {name: one, labels: {app: one}}
spec:
  containers:
    - name: web
      image: example.org/one
      ports: [{containerPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: one}
spec:
  type: NodePort
  selector: {app: one}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
---
apiVersion: v1
kind: Service
metadata: {name: wrong}
spec:
  ports: [{port: 99999}]
"""


class Command:
    """Runs ``kproxy lab`` with a state directory of its own."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.env = os.environ | {"KPROXY_STATE_DIR": str(state)}

    def __call__(self, *words: str, data: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "kproxy", "lab", *words],
            input=data,
            capture_output=True,
            text=True,
            env=self.env,
            timeout=PATIENCE,
            check=False,
        )


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    root = tmp_path_factory.mktemp("command")
    (root / "lab.yaml").write_text(FILE)
    (root / "one.yaml").write_text(ONE)
    made = Command(root / "state")
    done = made("up", "--detach", "--kernel", "uml", "-f", str(root / "lab.yaml"))
    assert done.returncode == 0, done.stderr
    assert "Service default/wrong" in done.stderr
    assert "lab demo is up after" in done.stderr
    yield made
    done = made("down")
    assert (done.returncode, done.stderr) == (0, "kproxy: down: demo\n")
    assert wait_until_clean(Runner(made.state)) == []
    assert not (made.state / "labs").exists()


def test_status_tells_everything_as_table_and_as_json(lab: Command) -> None:
    table = lab("status")
    assert table.returncode == 0, table.stdout
    assert "apiserver, manager*, scheduler*" in table.stdout
    found = json.loads(lab("status", "--json").stdout)
    assert found["name"] == "demo"
    assert [node["ready"] for node in found["nodes"]] == [True]
    assert {one["role"] for one in found["controlPlane"] if one["leads"]} == {
        "manager",
        "scheduler",
    }
    assert found["owner"]["clock"] == "real"


def test_a_command_runs_in_a_host_with_its_streams_and_exit_code(lab: Command) -> None:
    done = lab("exec", "outside1", "--", "sh", "-c", "cat; echo no >&2; exit 7", data="words")
    assert (done.returncode, done.stdout, done.stderr) == (7, "words", "no\n")
    got = lab("exec", "outside1", "--", "curl", "-s", "http://192.168.50.11:30080/x")
    assert got.stdout == "one /x\n"
    wrong = lab("exec", "nowhere", "true")
    assert wrong.returncode == 2
    assert "there are: " in wrong.stderr


def test_pods_are_hosts_too(lab: Command) -> None:
    done = lab("exec", "default/one", "--", "ip", "-4", "-o", "address", "show", "eth0")
    assert " 10.244.1." in done.stdout
    done = lab("exec", "default/one", "--", "getent", "hosts", "one.default.svc.cluster.local")
    assert done.stdout.startswith("10.96."), done
    done = lab("exec", "default/none", "true")
    assert done.returncode == 2
    assert "no container of pod default/none runs now" in done.stderr


@pytest.mark.needs_tool("kubectl")
def test_kubectl_works_and_reads_files_that_the_lab_does_not_see(
    lab: Command, tmp_path: Path
) -> None:
    assert "one " in lab("kubectl", "get", "pods").stdout
    path = tmp_path / "more.yaml"
    path.write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: more}\n")
    assert "namespace/more created" in lab("kubectl", "apply", "-f", str(path)).stdout
    done = lab("kubectl", "get", "pod", "none")
    assert done.returncode == 1
    assert 'pods "none" not found' in done.stderr


def test_apply_tells_each_object_and_goes_on_after_a_mistake(lab: Command, tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    good = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: good}\n"
    bad = "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {ports: [{port: 0}]}\n"
    path.write_text(f"{bad}---\n{good}---\nkind: Nothing\napiVersion: v1\nmetadata: {{name: x}}\n")
    done = lab("apply", "-f", str(path))
    assert done.returncode == 1
    assert done.stdout == "ConfigMap default/good applied\n"
    assert "Service default/bad" in done.stderr
    assert "Nothing" in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert lab("apply", "-f", "-", data=good).stdout == "ConfigMap default/good unchanged\n"


def test_graph_and_logs(lab: Command) -> None:
    assert "manager*" in lab("graph").stdout
    assert lab("graph", "--dot").stdout.startswith("graph lab {")
    assert lab("graph", "--svg", "-").stdout.startswith("<svg ")
    assert "listening address=0.0.0.0:6443" in lab("logs", "control1/apiserver").stdout
    assert "control1-apiserver" in lab("logs").stdout.splitlines()


class Page:
    """``kproxy lab dashboard``, asked as its page asks."""

    def __init__(self, lab: Command, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kproxy", "lab", "dashboard", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=lab.env,
        )
        assert self.process.stdout is not None
        found = urllib.parse.urlsplit(self.process.stdout.readline().strip())
        self.place = f"{found.scheme}://{found.netloc}"
        self.token = urllib.parse.parse_qs(found.query)["token"][0]

    def ask(self, path: str, order: dict[str, str] | None = None) -> dict[str, Any]:
        body = None if order is None else json.dumps(order).encode()
        headers = {"X-Kproxy-Token": self.token, "Content-Type": "application/json"}
        request = urllib.request.Request(self.place + path, body, headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return dict(json.load(answer))

    def parts(self) -> dict[tuple[str, str], dict[str, Any]]:
        hosts = [one for part in self.ask("/view")["view"]["segments"] for one in part["hosts"]]
        return {(host["name"], one["role"]): one for host in hosts for one in host["parts"]}

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, said


def lookers(lab: Command) -> int:
    """Return how many processes look on beside the lab's hosts."""
    done = lab("exec", "node1", "--", "pgrep", "-fc", "kproxy.lab.dashboard.insid[e]")
    return int(done.stdout)


def test_the_live_page_shows_the_lab_and_breaks_it(lab: Command) -> None:
    page = Page(lab, "--allow-faults")
    view = page.ask("/view")["view"]
    assert (view["name"], view["trouble"], view["faults"]) == ("demo", [], True)
    assert {one["role"]: one["host"] for one in view["leaders"]} == {
        "manager": "control1",
        "scheduler": "control1",
    }
    assert "default/one" in {one["name"] for one in view["services"]}
    assert "default/one" in json.dumps(view["segments"])
    assert {one["reason"] for one in view["events"]} >= {"Scheduled", "Started"}
    kubelet = ("node1", "kubelet")
    assert page.parts()[kubelet]["state"] == "up"
    hang = {"fault": "hang", "host": "node1", "role": "kubelet"}
    assert "SIGSTOP" in page.ask("/order", hang)["done"]
    assert page.parts()[kubelet]["state"] == "hung"
    assert page.ask("/order", {**hang, "fault": "resume"})["error"] == ""
    assert page.parts()[kubelet]["state"] == "up"
    pods = [
        one["name"] for part in view["segments"] for host in part["hosts"] for one in host["pods"]
    ]
    pod = next(name for name in pods if name.startswith("kube-system/kube-dns-"))
    assert page.ask("/order", {"fault": "delete", "pod": pod})["error"] == ""
    events = page.ask("/view")["view"]["events"]
    assert f"pod {pod}" in {one["about"] for one in events if one["reason"] == "Fault"}
    assert "node7" in page.ask("/order", {**hang, "host": "node7"})["error"]
    assert lookers(lab) == 1
    assert page.end() == (0, "kproxy: lab demo, with buttons for faults; Ctrl-C ends it\n")
    wait_until(lambda: lookers(lab) == 0, PATIENCE, "nobody to look on")


def test_the_live_page_breaks_nothing_unasked(lab: Command) -> None:
    page = Page(lab)
    assert page.ask("/view")["view"]["faults"] is False
    with pytest.raises(urllib.error.HTTPError, match="403"):
        page.ask("/order", {"fault": "kill", "host": "node1", "role": "kubelet"})
    assert page.end(signal.SIGTERM)[0] == 128 + signal.SIGTERM
    assert lab("dashboard", "--listen", "8080").returncode == 2
    assert lab("dashboard", "--name", "other").returncode == 2


def test_a_second_lab_of_that_name_is_refused(lab: Command, tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text("name: demo")
    for more in ((), ("--detach",)):
        done = lab("up", "-f", str(path), *more)
        assert done.returncode == 2
        assert "lab demo is up already" in done.stderr
    assert lab("list").stdout.startswith("demo  up  ")


def test_after_sigkill_of_the_owner_the_kernel_is_gone_and_down_tidies_up(
    tmp_path: Path,
) -> None:
    made = Command(tmp_path / "state")
    (tmp_path / "lab.yaml").write_text("name: dead\nnodes: 1\ndns: false\nmode: iptables")
    words = ("--detach", "--no-wait", "--kernel", "uml", "-f", str(tmp_path / "lab.yaml"))
    assert made("up", *words).returncode == 0
    (owner,) = json.loads(made("list", "--json").stdout)
    identity = ProcessId.of(int(owner["pid"]))
    assert identity is not None
    os.kill(identity.pid, signal.SIGKILL)
    wait_until(lambda: not identity.alive, PATIENCE, "the end of the owner")
    assert wait_until_clean(Runner(made.state)) == []
    assert json.loads(made("list", "--json").stdout) == [{"name": "dead", "state": "dead"}]
    lost = made("status", "--name", "dead")
    assert lost.returncode == 2
    assert "lab dead is not up" in lost.stderr
    assert made("down").returncode == 0
    assert not (made.state / "labs").exists()

"""An API server and a node's kubelet in a lab, and what a user of both would do."""

import contextlib
import http.client
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kproxy.api import catalog
from kproxy.client.kubeconfig import load_kubeconfig
from kproxy.client.objects import ObjectClient
from kproxy.client.rest import Rest
from kproxy.controlplane.access import kubeconfigs
from kproxy.controlplane.access.kubeconfigs import Credentials
from kproxy.lab import layout, plan
from netns import wait
from netns.host import LiveHost
from netns.lab import Lab
from netns.process import Process

Object = dict[str, Any]
PATIENCE = 60.0
PORT = 10250
PLAN = plan.Plan(nodes=2)
NODE = PLAN.node("node1")


class KubeletLab:
    """One node with a kubelet; pods are bound to it by the test."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.files = layout.Layout(lab.scratch)
        for directory in (self.files.logs, self.files.records):
            directory.mkdir(exist_ok=True)
        self.node = lab["node1"]
        self.kubelet: Process
        self._rest: Rest | None = None

    def start_api(self) -> None:
        text = kubeconfigs.document({"server": PLAN.api_url}, "lab", {})
        self.files.kubeconfig.write_text(text)
        self._start_api("--insecure")

    def start_secure_api(self) -> None:
        """Start an API server with TLS, for kubelets with ``kubelet_config``."""
        address = str(PLAN.control_address)
        url = f"https://{address}:{PLAN.api_port}"
        secrets = Credentials(self.files.root / "pki", (address,), url)
        secrets.directory.mkdir()
        admin = secrets.kubeconfig(kubeconfigs.ADMIN)
        self.files.kubeconfig.write_text(admin.read_text())
        self.kubelet_config = secrets.node_kubeconfig("node1")
        self._start_api("--pki", str(secrets.directory))

    def _start_api(self, *options: str) -> None:
        bind = f"{PLAN.control_address}:{PLAN.api_port}"
        self._spawn(self.lab["control"], "controlplane.apiserver", *options, "--bind", bind)
        self._rest = Rest(load_kubeconfig(self.files.kubeconfig), agent="test")
        self.api = ObjectClient(self._rest)
        self.until(lambda: self._answers(), "the API server")

    def start_kubelet(self, *options: str) -> Process:
        state = ("--state-dir", str(self.lab.state_dir), "--node", "node1")
        return self._spawn(self.node, "lab.node", *state, "--serve-port", str(PORT), *options)

    def create(self, name: str, container: Object, **spec: object) -> None:
        body = {
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"nodeName": "node1", "containers": [{"name": "c", **container}], **spec},
        }
        self.call(self.api.create, catalog.POD, body)

    def get(self, name: str) -> Object | None:
        return self.call(self.api.get, catalog.POD, "default", name)

    def delete(self, name: str) -> None:
        self.call(self.api.delete, catalog.POD, "default", name)

    def state(self, name: str) -> Object:
        """Return what is told of the pod's container."""
        pod = self.get(name)
        assert pod
        (told,) = pod["status"].get("containerStatuses") or [{"ready": False, "restartCount": -1}]
        return told

    def ready(self, name: str) -> bool:
        pod = self.get(name)
        assert pod
        conditions = pod["status"].get("conditions") or ()
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def until(
        self, accept: Callable[[], bool], why: str, patience: float = PATIENCE, every: float = 0.02
    ) -> float:
        """Wait until something is so; return the time at which it was seen."""
        wait.wait_until(accept, patience, why, interval=every)
        return time.monotonic()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self.lab["control"].call(function, *arguments)

    def ask(self, path: str) -> str:
        """Ask the kubelet's server, from the control plane's host."""
        with self.asking(path) as answer:
            text = answer.read().decode()
            assert answer.status == 200, text
            return text

    @contextlib.contextmanager
    def asking(self, path: str) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(str(NODE.address), PORT, timeout=PATIENCE)
        with contextlib.closing(connection):
            self.call(connection.connect)
            connection.request("GET", path)
            yield connection.getresponse()

    def serves(self) -> bool:
        """Return whether the kubelet's server answers."""
        with contextlib.suppress(OSError):
            return self.ask("/healthz") == "ok"
        return False

    def log(self, name: str, query: str = "") -> str:
        return self.ask(f"/containerLogs/default/{name}/c?{query}")

    def through_api(self, path: str, **query: str) -> str:
        """Ask the API server, which asks the kubelet."""
        rest = self._rest
        assert rest is not None
        return self.call(lambda: rest.request("GET", path, query=query)).decode()

    def valid(self, token: str) -> bool:
        """Return whether the API server takes a token."""
        rest = self._rest
        assert rest is not None
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
        request = json.dumps({**body, "spec": {"token": token}}).encode()
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        answer = json.loads(self.call(lambda: rest.request("POST", path, body=request)))
        return bool(answer["status"].get("authenticated"))

    def close(self) -> None:
        if self._rest is not None:
            self._rest.close()

    def _answers(self) -> bool:
        with contextlib.suppress(Exception):
            self.call(self.api.list_objects, catalog.POD)
            return True
        return False

    def _spawn(self, host: LiveHost, module: str, *options: str) -> Process:
        log = self.files.log(f"{host.name}-{module.rpartition('.')[2]}")
        command = [sys.executable, "-m", f"kproxy.{module}", *options]
        return host.spawn(command, stdout=log, stderr=log, env=dict(os.environ))


@contextlib.contextmanager
def running(state_dir: Path) -> Iterator[KubeletLab]:
    topology = plan.topology(PLAN)
    with Lab(topology, name=f"kl{os.getpid()}", state_dir=state_dir) as lab:
        made = KubeletLab(lab)
        try:
            yield made
        finally:
            made.close()

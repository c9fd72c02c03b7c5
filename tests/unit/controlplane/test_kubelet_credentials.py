"""A kubelet with a node's own credentials, at an API server over TLS: what it may do is enough."""

import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kproxy import logs
from kproxy.api import catalog, kinds
from kproxy.client import kubeconfig, objects, rest
from kproxy.controlplane import addresses, apiserver, kubeletserver, security, supervisor
from kproxy.controlplane.access import kubeconfigs
from kproxy.controlplane.fakeruntime import FakePerformer, FakeRuntime
from kproxy.controlplane.kubelet import Kubelet
from kproxy.controlplane.probesockets import Outcome
from kproxy.controlplane.runtime import LogFiles
from netns.errors import WaitTimeout
from netns.wait import wait_until

PATIENCE = 60.0


class Secured:
    """An API server that asks who one is, and a kubelet that says so."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = io.StringIO()
        log = logs.Log("test", stream=self.log)
        here = ("127.0.0.1",)
        secured = security.Security.from_directory(directory / "pki", here, "https://127.0.0.1:1")
        secrets = kubeconfigs.Credentials(directory / "pki", here, "https://127.0.0.1:1")
        cidrs = addresses.parse_cidrs("10.96.0.0/16")
        self.server = apiserver.start(("127.0.0.1", 0), cidrs, log, security=secured)
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}"
        self.admin_rest = self.client(secrets.kubeconfig(kubeconfigs.ADMIN))
        self.admin = objects.ObjectClient(self.admin_rest)
        certificate, key = secrets.node_server("n1", here)
        self.access = kubeletserver.Access(
            cert_file=certificate, key_file=key, client_ca_file=secrets.ca_file
        )
        self.manifests = directory / "manifests"
        self.manifests.mkdir()
        self.runtime = FakeRuntime()
        bad = Outcome(success=False, message="no")
        # The port must be known before the Node is told, so it is taken here.
        self.serving = kubeletserver.Server(("127.0.0.1", 0), _Later(), self.access)
        options = supervisor.Options(
            manifests=self.manifests,
            performer=FakePerformer(lambda action: bad),
            port=self.serving.server_address[1],
            serve=self._serve,
        )
        self.write_manifest()
        self.supervisor = supervisor.Supervisor(
            "n1",
            self.client(secrets.node_kubeconfig("n1")),
            self.runtime,
            addresses=["127.0.0.1"],
            options=options,
            log=log,
        )
        self.threads = [
            threading.Thread(target=self.server.serve),
            threading.Thread(target=self.supervisor.run),
        ]
        for thread in self.threads:
            thread.start()

    def _serve(self, kubelet: Kubelet) -> supervisor.Service:
        self.serving.kubelet = kubelet
        return supervisor.Service("server", self.serving.serve, self.serving.stop)

    def write_manifest(self) -> None:
        text = "kind: Pod\nmetadata: {name: etcd}\nspec: {containers: [{name: c, image: pause}]}\n"
        (self.manifests / "etcd.yaml").write_text(text)

    def client(self, path: Path) -> rest.Rest:
        return rest.Rest(kubeconfig.load_kubeconfig(path, server=self.url))

    def until(self, accept: Callable[[], object]) -> None:
        try:
            wait_until(accept, PATIENCE, "the cluster is not as it should be", interval=0.05)
        except WaitTimeout as late:
            raise AssertionError(self.log.getvalue()[-3000:]) from late

    def phase(self, name: str) -> str:
        pod = self.admin.get(catalog.POD, "default", name)
        return str(pod["status"]["phase"]) if pod else ""

    def close(self) -> None:
        self.supervisor.stop()
        self.threads[1].join()
        self.server.stop()
        self.threads[0].join()
        self.admin_rest.close()
        self.runtime.close()


class _Later:
    """Stands in for a kubelet that is not there yet."""


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    with contextlib.closing(Secured(tmp_path)) as made:
        yield made


def test_a_nodes_credentials_are_enough_for_a_kubelet(secured, tmp_path):
    probe = {"tcpSocket": {"port": 80}, "periodSeconds": 1}
    container = {"name": "c", "image": "pause", "readinessProbe": probe}
    secured.admin.create(
        catalog.POD,
        {
            "metadata": {"name": "a", "namespace": "default"},
            "spec": {"nodeName": "n1", "containers": [container]},
        },
    )
    secured.until(lambda: secured.admin.get(kinds.NODE, "", "n1"))
    secured.until(lambda: secured.admin.get(catalog.LEASE, "kube-node-lease", "n1"))
    secured.until(lambda: secured.phase("a") == "Running")
    secured.until(lambda: secured.phase("etcd-n1") == "Running")  # a mirror

    def reasons() -> set[str]:
        return {one["reason"] for one in secured.admin.list_objects(catalog.EVENT, "default")}

    secured.until(lambda: {"Started", "Unhealthy"} <= reasons())
    log = tmp_path / "0.log"
    log.write_text("2026-11-26T10:00:01Z stdout F hello\n")
    uid = secured.admin.get(catalog.POD, "default", "a")["metadata"]["uid"]
    secured.runtime.logs[uid, "c", 0] = LogFiles(paths=(log,))
    path = "/api/v1/namespaces/default/pods/a/log"
    assert secured.admin_rest.request("GET", path) == b"hello\n"
    secured.admin.delete(catalog.POD, "default", "a")
    secured.until(lambda: secured.admin.get(catalog.POD, "default", "a") is None)
    assert "forbidden" not in secured.log.getvalue().lower()

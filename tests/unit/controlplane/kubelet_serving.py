"""A kubelet with its server on loopback, each in a thread; programs in its containers are real."""

import contextlib
import http.client
import io
import threading
from collections.abc import Iterator, Sequence

import pytest
from local_cluster import LocalCluster, new_api

from kproxy import logs
from kproxy.api import codec
from kproxy.api.pods import Pod
from kproxy.controlplane import kubeletserver
from kproxy.controlplane.fakeruntime import FakePerformer, FakeRuntime
from kproxy.controlplane.kubelet import Kubelet
from kproxy.controlplane.runtime import ContainerSpec, Sandbox, Streams
from kproxy.lab.podexec import Beside

PATIENCE = 60.0
SECRET = "s3cret"


class Here:
    """A host that is this one."""

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        yield


class Runtime(FakeRuntime):
    """Containers are records, but programs beside them are real."""

    def exec(
        self, sandbox: Sandbox, spec: ContainerSpec, command: Sequence[str], streams: Streams
    ) -> Beside:
        env = {"PATH": "/usr/bin:/bin", **dict(spec.env)}
        return Beside(Here(), command, streams, env=env, cwd="/")


def pod(name: str = "a", **container: object) -> Pod:
    body = {"name": "c", "image": "pause", "env": [{"name": "WHO", "value": "me"}], **container}
    return codec.from_dict(
        {
            "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"},
            "spec": {"nodeName": "n1", "containers": [body]},
        },
        Pod,
    )


class Serving:
    """A kubelet with its server, each in a thread."""

    def __init__(self, access: kubeletserver.Access | None = None, **options: int) -> None:
        self.runtime = Runtime()
        log = logs.Log("kubelet", stream=io.StringIO())
        self.kubelet = Kubelet(
            "n1",
            LocalCluster(new_api()),
            self.runtime,
            performer=FakePerformer(),
            log=log,
        )
        self.kubelet.replace([pod(), pod("waiting", image="unknown")])
        address = ("127.0.0.1", 0)
        access = access or kubeletserver.Access()
        self.server = kubeletserver.Server(address, self.kubelet, access, **options)
        self.port = self.server.server_address[1]
        self.threads = [
            threading.Thread(target=self.kubelet.run),
            threading.Thread(target=self.server.serve),
        ]
        for thread in self.threads:
            thread.start()
        self.kubelet.ask(lambda: None)

    def close(self) -> None:
        self.server.stop()
        self.kubelet.stop()
        for thread in self.threads:
            thread.join(PATIENCE)
        self.kubelet.close()
        self.runtime.close()

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()


@pytest.fixture
def serving() -> Iterator[Serving]:
    made = Serving()
    yield made
    made.close()


def message(answer: tuple[int, str]) -> tuple[int, str]:
    return answer[0], answer[1].removesuffix("\n")

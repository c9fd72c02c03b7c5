"""A kubelet on the clock of a test, with an API in this process and a runtime in memory."""

import io
import json

from local_cluster import LocalCluster, new_api

from kproxy import logs
from kproxy.api import catalog, codec
from kproxy.api.pods import Pod
from kproxy.controlplane.envsources import EnvSources
from kproxy.controlplane.fakeruntime import FakePerformer, FakeRuntime
from kproxy.controlplane.images import Images
from kproxy.controlplane.kubelet import Kubelet
from kproxy.controlplane.podtools import Accounts


class Node:
    """A kubelet with its API, runtime and clock; :meth:`turn` does what a loop would do now."""

    def __init__(self, accounts: Accounts | None = None) -> None:
        self.accounts = accounts
        self.sources: EnvSources | None = None
        self.cluster = LocalCluster(new_api(now=lambda: 0.0))
        self.time = 0.0
        self.runtime = FakeRuntime(now=lambda: self.time)
        self.performer = FakePerformer()
        self.images = Images()
        self.log = io.StringIO()
        self.kubelets: list[Kubelet] = []
        self.boot()

    def boot(self) -> None:
        """Start a (new) kubelet, and give it the API's pods."""
        self.start()
        self.kubelet.replace(self.pods())
        self.turn()

    def start(self) -> None:
        """Start a (new) kubelet; a former one is just forgotten, as if killed."""
        if self.kubelets:
            self.performer = FakePerformer(self.performer.answers)
        self.kubelet = Kubelet(
            "n1",
            self.cluster,
            self.runtime,
            host_ips=("192.0.2.1",),
            images=self.images,
            performer=self.performer,
            accounts=self.accounts,
            sources=self.sources,
            now=lambda: self.time,
            wall=lambda: self.time,
            log=logs.Log("kubelet", stream=self.log),
        )
        self.kubelets.append(self.kubelet)

    def close(self) -> None:
        for kubelet in self.kubelets:
            kubelet.close()
        self.runtime.close()

    def pods(self) -> list[Pod]:
        found = self.cluster.list_objects(catalog.POD)
        return [codec.from_dict(obj, Pod) for obj in found]

    def turn(self) -> float | None:
        """Deliver the API's state, step, send reports; return when the kubelet wants to wake."""
        self.kubelet.replace(self.pods())
        wait = self.kubelet.step()
        for _ in range(20):
            if wait == 0:
                wait = self.kubelet.step()
        assert wait != 0, "the kubelet would spin"
        assert self.kubelet.outbox.flush() is None
        return wait

    def run(self, until: float) -> None:
        """Let time pass, and do everything that is due meanwhile."""
        while True:
            wait = self.turn()
            if wait is None or self.time + wait > until:
                self.time = until
                self.turn()
                return
            self.time += wait

    def create(self, name: str = "a", **spec: object) -> str:
        container = {"name": "c", "image": "echo", "ports": [{"containerPort": 80}]}
        body = {
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"nodeName": "n1", "containers": [container], **spec},
        }
        return self.cluster.create(catalog.POD, body)["metadata"]["uid"]

    def delete(self, name: str = "a", grace: int | None = None) -> None:
        self.cluster.delete(catalog.POD, "default", name, grace=grace)

    def get(self, name: str = "a"):
        return self.cluster.get(catalog.POD, "default", name)

    def status(self, name: str = "a"):
        return self.get(name)["status"]

    def restarts(self) -> int:
        return self.status()["containerStatuses"][0]["restartCount"]

    def pod_events(self, name: str = "a") -> list[tuple[str, str]]:
        """Return reason and message of the pod's Events."""
        found = self.cluster.list_objects(catalog.EVENT, "default")
        return [
            (one["reason"], one["message"])
            for one in found
            if one["involvedObject"]["name"] == name
        ]

    def events(self) -> list[str]:
        return [json.loads(line)["msg"] for line in self.log.getvalue().splitlines()]

    def event(self, msg: str) -> dict:
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in lines if line["msg"] == msg][-1]


def is_ready(status) -> bool:
    return {one["type"]: one["status"] for one in status["conditions"]}["Ready"] == "True"

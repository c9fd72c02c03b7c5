"""API server, controllers and kubelets together, over HTTP on loopback, on a runtime in memory."""

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from child_processes import DIES_WITH_US

from kproxy import logs
from kproxy.api import catalog, core, discovery, kinds
from kproxy.api.pods import Pod
from kproxy.client import informer, kubeconfig, objects, rest
from kproxy.controlplane import addresses, apiserver, supervisor
from kproxy.controlplane.access import kubeconfigs
from kproxy.controlplane.fakeruntime import FakeRuntime
from kproxy.controlplane.manager import Manager
from kproxy.controlplane.scheduler import registration

PATIENCE = 60.0


class Follower:
    """What a client sees of one kind; :meth:`until` waits for it to see something."""

    def __init__(self, client: rest.Rest, wanted: type[Any]) -> None:
        self._changed = threading.Condition()
        self._informer = informer.Informer(client, wanted, on_change=self._hear)

    def __enter__(self) -> "Follower":
        self._informer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._informer.stop()

    def until(self, accept: Callable[[list[Any]], bool]) -> list[Any]:
        with self._changed:
            found = self._changed.wait_for(lambda: accept(self.objects()), PATIENCE)
            assert found, self.objects()
            return self.objects()

    def objects(self) -> list[Any]:
        return sorted(self._informer.objects.values(), key=lambda obj: obj.metadata.name)

    def _hear(self, old: object, new: object) -> None:
        with self._changed:
            self._changed.notify_all()


class Cluster:
    """A cluster of two nodes."""

    def __init__(self) -> None:
        self.log = logs.Log("test", stream=io.StringIO())
        self.clients: list[rest.Rest] = []
        self.port = 0
        self.serve()
        self.runtimes = {f"n{number}": FakeRuntime([f"10.244.{number}.0/24"]) for number in (1, 2)}
        self.supervisors = [
            supervisor.Supervisor(
                name, self.client(), runtime, addresses=[f"192.0.2.{name[1]}"], log=self.log
            )
            for name, runtime in self.runtimes.items()
        ]
        self.threads = [threading.Thread(target=one.run, daemon=True) for one in self.supervisors]
        for thread in self.threads:
            thread.start()
        self.manager = Manager(self.client(), self.log)
        self.manager.start()
        self.scheduler = Manager(self.client(), self.log, controllers=(registration(),))
        self.scheduler.start()
        self.api = objects.ObjectClient(self.client())

    def serve(self) -> None:
        """Start an API server, a second time at the same place."""
        cidrs = addresses.parse_cidrs("10.96.0.0/16")
        self.server = apiserver.start(("127.0.0.1", self.port), cidrs, self.log)
        self.port = self.server.server_address[1]
        self.serving = threading.Thread(target=self.server.serve, daemon=True)
        self.serving.start()

    def stop_serving(self) -> None:
        self.server.stop()
        self.serving.join()

    def client(self) -> rest.Rest:
        made = rest.Rest(kubeconfig.Access(server=f"http://127.0.0.1:{self.port}"))
        self.clients.append(made)
        return made

    def close(self) -> None:
        """End all of it, in the order in which it would otherwise complain."""
        self.manager.stop()
        self.scheduler.stop()
        for one in self.supervisors:
            one.stop()
        for thread in self.threads:
            thread.join()
        self.stop_serving()
        for client in self.clients:
            client.close()
        for runtime in self.runtimes.values():
            runtime.close()


@pytest.fixture
def cluster():
    made = Cluster()
    yield made
    made.close()


def workload(name: str, **spec: object) -> dict:
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 8080}]}]},
    }
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template, **spec},
    }


def ready_addresses(slices: list[discovery.EndpointSlice]) -> set[str]:
    return {
        endpoint.addresses[0]
        for one in slices
        for endpoint in one.endpoints or ()
        if endpoint.conditions and endpoint.conditions.ready
    }


def test_a_destroyed_pod_leaves_its_slice_and_is_replaced(cluster):
    service = {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    cluster.api.create(kinds.SERVICE, service)
    cluster.api.create(catalog.DEPLOYMENT, workload("web", replicas=3))
    with Follower(cluster.client(), discovery.EndpointSlice) as slices:
        before = ready_addresses(slices.until(lambda found: len(ready_addresses(found)) == 3))
        (victim, *_) = cluster.runtimes["n1"].list()
        address = victim[0].addresses[0]
        cluster.runtimes["n1"].destroy(victim[0].uid)
        after = ready_addresses(
            slices.until(
                lambda found: (
                    address not in ready_addresses(found) and len(ready_addresses(found)) == 3
                )
            )
        )
    assert address in before
    assert len(before & after) == 2


def test_a_daemon_set_is_restarted_recreated_and_rolled_one_at_a_time(cluster):
    cluster.api.create(catalog.DAEMON_SET, workload("proxy"))

    def all_ready(pods: list[Pod]) -> bool:
        return len(pods) == 2 and all(is_ready(pod) for pod in pods)

    with Follower(cluster.client(), Pod) as pods:
        first = pods.until(all_ready)
        cluster.runtimes["n1"].kill()
        restarted = pods.until(
            lambda found: (
                all_ready(found)
                and sum(pod.status.container_statuses[0].restart_count for pod in found) == 1
            )
        )
        assert {pod.metadata.uid for pod in restarted} == {pod.metadata.uid for pod in first}
        victim = first[0].metadata
        cluster.api.delete(catalog.POD, "default", victim.name)
        recreated = pods.until(
            lambda found: all_ready(found) and victim.uid not in {p.metadata.uid for p in found}
        )
        # A patch: the controller reports the status meanwhile, so a version read may be old.
        change = {"spec": {"template": {"metadata": {"annotations": {"version": "2"}}}}}
        cluster.api.patch(catalog.DAEMON_SET, "default", "proxy", change)
        old = {pod.metadata.uid for pod in recreated}
        rolled = pods.until(
            lambda found: all_ready(found) and not old & {pod.metadata.uid for pod in found}
        )
    assert all(pod.metadata.annotations == {"version": "2"} for pod in rolled)


def is_ready(pod: Pod) -> bool:
    conditions = (pod.status.conditions if pod.status else None) or ()
    return any(one.type == "Ready" and one.status == "True" for one in conditions)


def test_nodes_register_themselves(cluster):
    with Follower(cluster.client(), core.Node) as nodes:
        found = nodes.until(lambda found: len(found) == 2)
    assert [node.metadata.name for node in found] == ["n1", "n2"]
    assert [node.status.addresses[0].address for node in found] == ["192.0.2.1", "192.0.2.2"]


def test_a_killed_manager_process_is_replaced_by_one_that_goes_on(cluster, tmp_path):
    cluster.manager.stop()
    server = {"server": f"http://127.0.0.1:{cluster.port}"}
    path = tmp_path / "kubeconfig"
    path.write_text(kubeconfigs.document(server, "u", {}))
    command = [*DIES_WITH_US, sys.executable, "-m", "kproxy.controlplane.manager"]
    command += ["--kubeconfig", str(path), "--leader-elect=false", "--healthz-bind-address="]
    with Follower(cluster.client(), Pod) as pods:
        for number in (1, 2):
            process = subprocess.Popen(command, stderr=subprocess.PIPE)
            try:
                cluster.api.create(catalog.DEPLOYMENT, workload(f"web{number}", replicas=2))
                pods.until(lambda found, number=number: len(found) == 2 * number)
            finally:
                os.kill(process.pid, signal.SIGKILL if number == 1 else signal.SIGTERM)
                process.communicate()
    assert process.returncode == 0


def test_an_api_server_that_comes_back_empty_is_found_again(cluster):
    with Follower(cluster.client(), core.Node) as nodes:
        nodes.until(lambda found: len(found) == 2)
        before = {node.metadata.uid for node in nodes.objects()}
        cluster.stop_serving()
        cluster.serve()
        nodes.until(
            lambda found: len(found) == 2 and not before & {node.metadata.uid for node in found}
        )
    cluster.api.create(catalog.DEPLOYMENT, workload("web", replicas=2))
    with Follower(cluster.client(), Pod) as pods:
        pods.until(lambda found: len(found) == 2 and all(is_ready(pod) for pod in found))

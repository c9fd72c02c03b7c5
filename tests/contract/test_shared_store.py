"""Three API servers over one SQLite file, killed in turn while Services come and go."""

import contextlib
import http.client
import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from child_processes import DIES_WITH_US
from storage_processes import free_loopback

from netns.wait import wait_until

PORT = 6443
DEADLINE = 60.0
SERVICES = "/api/v1/namespaces/default/services"


class Servers:
    """API servers by number."""

    def __init__(self, store: Path, stack: contextlib.ExitStack) -> None:
        stack.callback(self._end)
        self._store = store
        self.addresses = [free_loopback(PORT) for _ in range(3)]
        self._running: dict[int, subprocess.Popen] = {}
        for number in range(3):
            self.start(number)

    def start(self, number: int) -> None:
        module = "kproxy.controlplane.apiserver"
        options = [f"--bind={self.addresses[number]}:{PORT}", f"--store=sqlite:{self._store}"]
        self._running[number] = subprocess.Popen(
            [*DIES_WITH_US, sys.executable, "-m", module, "--insecure", *options],
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        why = "an API server does not start"
        wait_until(lambda: self._answers(number), DEADLINE, why, interval=0.05)

    def _answers(self, number: int) -> bool:
        try:
            return self.ask(number, "GET", "/version")[0] == 200
        except OSError:
            return False

    def kill(self, number: int) -> None:
        process = self._running.pop(number)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def _end(self) -> None:
        for number in list(self._running):
            self.kill(number)

    def ask(self, number: int, verb: str, path: str, body: object = None) -> tuple[int, dict]:
        connection = http.client.HTTPConnection(self.addresses[number], PORT, timeout=60)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request(verb, path, json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from None
        finally:
            connection.close()


@pytest.fixture
def servers(tmp_path) -> Iterator[Servers]:
    with contextlib.ExitStack() as stack:
        yield Servers(tmp_path / "db", stack)


class Client:
    """Creates node-port Services through whichever server answers; notes what was acknowledged."""

    def __init__(self, servers: Servers, number: int) -> None:
        self.created: set[str] = set()
        self.deleted: set[str] = set()
        self.stop = threading.Event()
        self._servers = servers
        self._number = number
        self._draw = random.Random(number)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        count = 0
        while not self.stop.is_set():
            name = f"s{self._number}-{count}"
            count += 1
            spec = {"type": "NodePort", "ports": [{"port": 80}]}
            if self._done("POST", SERVICES, {"metadata": {"name": name}, "spec": spec}, 201):
                self.created.add(name)
                if count % 3 == 0 and self._done("DELETE", f"{SERVICES}/{name}", None, 200):
                    self.deleted.add(name)

    def _done(self, verb: str, path: str, body: object, code: int) -> bool:
        try:
            return self._servers.ask(self._draw.randrange(3), verb, path, body)[0] == code
        except OSError:
            return False


def test_killed_api_servers_lose_nothing_that_was_acknowledged(servers):
    clients = [Client(servers, number) for number in range(3)]
    for round_ in range(6):
        wait_for_more(clients, 15)
        servers.kill(round_ % 3)
        wait_for_more(clients, 15)
        servers.start(round_ % 3)
    for client in clients:
        client.stop.set()
        client.thread.join()
    shown = [servers.ask(number, "GET", "/api/v1/services")[1] for number in range(3)]
    assert shown[0]["items"] == shown[1]["items"] == shown[2]["items"]
    specs = {item["metadata"]["name"]: item["spec"] for item in shown[0]["items"]}
    created = set.union(*(client.created for client in clients))
    deleted = set.union(*(client.deleted for client in clients))
    assert created - deleted <= set(specs) | unsure(created, deleted)
    assert not deleted & set(specs)
    addresses = [spec["clusterIP"] for spec in specs.values()]
    ports = [port["nodePort"] for spec in specs.values() for port in spec.get("ports", ())]
    assert len(set(addresses)) == len(addresses)
    assert len(set(ports)) == len([port for port in ports if port])
    taken = servers.ask(0, "GET", "/apis/networking.k8s.io/v1/ipaddresses")[1]["items"]
    assert {item["metadata"]["name"] for item in taken} == set(addresses)


def unsure(created: set[str], deleted: set[str]) -> set[str]:
    """Return those whose deletion may have been done by a server that died before it said so."""
    return {name for name in created - deleted if int(name.partition("-")[2]) % 3 == 2}


def wait_for_more(clients: list[Client], number: int) -> None:
    def created() -> int:
        return sum(len(client.created) for client in clients)

    goal = created() + number
    wait_until(lambda: created() >= goal, DEADLINE, f"{number} more Services are not created")

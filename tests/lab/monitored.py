"""A whole cluster that is watched, in virtual time: what fires, and things that make it fire."""

import contextlib
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from kproxy import errors
from kproxy.api import catalog, kinds
from kproxy.lab import clusterfile
from kproxy.lab.chain.alarms import Prometheus
from kproxy.lab.eventlog import Event
from kproxy.lab.site import Site
from kproxy.lab.whole.cluster import WholeCluster
from netns.lab import Lab

PATIENCE = 120.0
NAMESPACE, SHOP = "default", "shop"
HIT, OTHER = "node1", "node2"
REPLICAS = 3
"""So that each node has a backend."""
ALWAYS = "Watchdog"
_AGAIN_S = 0.5

Object = dict[str, Any]


class Monitored:
    """The cluster, and its first Prometheus."""

    def __init__(self, cluster: WholeCluster) -> None:
        self.cluster = cluster
        self.prometheus = Prometheus(cluster, cluster.site.monitors[0])

    @property
    def hit(self) -> Any:
        """The host of the first node."""
        return self.cluster.lab.host(HIT)

    def firing(self, prometheus: Prometheus | None = None) -> set[str]:
        """Return the names of the alerts that fire now."""
        asked = prometheus or self.prometheus
        return {one["labels"]["alertname"] for one in asked.alerts() if one["state"] == "firing"}

    def fired_since(self, began: float) -> set[str]:
        """Return the names of the alerts that have fired since then (monotonic seconds)."""
        seconds = int(time.monotonic() - began) + 1
        expression = f'count_over_time(ALERTS{{alertstate="firing"}}[{seconds}s])'
        return {one["metric"]["alertname"] for one in self.prometheus.query(expression)}

    def await_fired(self, names: Collection[str], began: float, timeout: float = PATIENCE) -> None:
        """Wait until each of these alerts has fired since then, not necessarily all at once."""
        missing = set(names)

        def fired() -> bool:
            missing.difference_update(self.fired_since(began))
            return not missing

        self.await_it(fired, timeout, f"{', '.join(sorted(names))} to fire", missing)

    def await_ended(self, names: Collection[str], timeout: float = PATIENCE) -> None:
        """Wait until none of these alerts fires."""
        left: set[str] = set()

        def ended() -> bool:
            left.clear()
            left.update(self.firing() & set(names))
            return not left

        self.await_it(ended, timeout, "alerts to end", left)

    def await_only(self, names: Collection[str], timeout: float = PATIENCE) -> None:
        """Wait until nothing fires but these."""
        rest: set[str] = set()

        def quiet() -> bool:
            rest.clear()
            rest.update(self.firing() - set(names))
            return not rest

        self.await_it(quiet, timeout, "other alerts to end", rest)

    def await_it(self, done: Any, timeout: float, why: str, left: Collection[str] = ()) -> None:
        """Wait; the failure says what is left. Who does not answer now may later."""
        deadline = time.monotonic() + timeout

        def asked() -> bool:
            try:
                return bool(done())
            except errors.KproxyError:
                return False

        while not asked():
            assert time.monotonic() < deadline, f"waited {timeout:g} s for {why}: {sorted(left)}"
            time.sleep(_AGAIN_S)

    def event(self, msg: str, since_ns: int, **fields: Any) -> Event:
        """Wait for a log line."""
        return self.cluster.events.wait(
            lambda event: (
                event.msg == msg
                and all(event.fields.get(name) == value for name, value in fields.items())
            ),
            why=f"{msg} {fields}",
            timeout=PATIENCE,
            since_ns=since_ns,
        )

    def settle(self) -> None:
        """Wait until everything that is declared runs."""
        self.cluster.wait_ready(PATIENCE)

    def scale(self, replicas: int) -> None:
        """Have so many backends."""
        patch = {"spec": {"replicas": replicas}}
        self.cluster.api.patch(catalog.DEPLOYMENT, NAMESPACE, SHOP, patch)

    def service_address(self) -> str:
        """Return the shop's ClusterIP."""
        found = self.cluster.api.get(kinds.SERVICE, NAMESPACE, SHOP)
        assert found is not None
        return str(found["spec"]["clusterIP"])

    @contextlib.contextmanager
    def down(self, *processes: tuple[str, Any]) -> Iterator[None]:
        """Have programs be away (host and role), and back in the end."""
        for host, role in processes:
            self.cluster.processes.bring_down(host, role)
        try:
            yield
        finally:
            for host, role in processes:
                self.cluster.processes.bring_up(host, role)


@contextlib.contextmanager
def running(state: Path, name: str, **fields: Any) -> Iterator[Monitored]:
    """Have a monitored cluster of two nodes, with a shop; ``fields`` are of the lab's file."""
    document = {
        "profile": "lab",
        "nodes": 2,
        "outside": 0,
        "monitoring": True,
        "controlPlane": {"store": "etcd", "etcdMembers": 1},
        **fields,
    }
    site = Site(clusterfile.parse(yaml.safe_dump(document), "lab.yaml"))
    with Lab(site.topology(), name=name, state_dir=state) as lab, WholeCluster(lab, site) as made:
        made.must_apply(shop())
        made.wait_ready(PATIENCE)
        yield Monitored(made)


def shop() -> list[Object]:
    """Return the shop, and its Service."""
    return [deployment(SHOP, REPLICAS), service(SHOP)]


def deployment(name: str, replicas: int) -> Object:
    """Return a Deployment of echo servers."""
    labels = {"app": name}
    ports = [
        {"name": "udp", "containerPort": 5353, "protocol": "UDP"},
        {"name": "tcp", "containerPort": 8080, "protocol": "TCP"},
    ]
    container = {
        "name": name,
        "image": "echo",
        "ports": ports,
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 2},
        "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
    }
    template: Mapping[str, Any] = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 10},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": template,
        },
    }


def service(name: str, **spec: Any) -> Object:
    """Return a Service of the shop's pods; ``spec`` is more of its spec."""
    ports = [
        {"name": "udp", "port": 5353, "targetPort": 5353, "protocol": "UDP"},
        {"name": "tcp", "port": 80, "targetPort": 8080, "protocol": "TCP"},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "annotations": {"kproxy/probe": "tcp-connect,udp-echo"},
        },
        "spec": {"selector": {"app": SHOP}, "ports": ports, **spec},
    }

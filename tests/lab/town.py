"""A cluster whose pods say who they are and who asks; for tests of Services from outside."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import service_servers
import yaml

from kproxy.api import catalog, kinds
from kproxy.lab import clusterfile, site
from kproxy.lab.site import DNS_ADDRESS
from kproxy.lab.whole.cluster import WholeCluster
from netns.lab import Lab

OUTSIDE, OUTSIDE6 = "198.51.100.11", "2001:db8:100::b"
PATIENCE_S = 60.0
SHORT_S = 3.0
PORT = 8080


def manifests(text: str) -> list[dict[str, Any]]:
    """Return the objects of a text; workloads in it get what their pods run."""
    found = list(yaml.safe_load_all(text))
    for one in found:
        if one["kind"] in ("DaemonSet", "Deployment", "StatefulSet"):
            labels = one["spec"]["selector"]["matchLabels"]
            one["spec"]["template"] = {"metadata": {"labels": labels}, "spec": pod_spec()}
    return found


def pod_spec() -> dict[str, Any]:
    fields = {"POD": "metadata.name", "NODE": "spec.nodeName"}
    container = {
        "name": "server",
        "command": [sys.executable, service_servers.__file__, str(PORT)],
        "env": [
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
            for name, path in fields.items()
        ],
        "ports": [{"name": "http", "containerPort": PORT}],
        # Programs beside a container's own find names as well.
        "readinessProbe": {
            "exec": {"command": ["getent", "hosts", "kubernetes.default"]},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
        },
    }
    return {"containers": [container], "terminationGracePeriodSeconds": 1}


class Town:
    """A cluster, and what is asked of it."""

    def __init__(self, cluster: WholeCluster) -> None:
        self.cluster = cluster
        self.lab = cluster.lab

    def ask(self, host: str, address: str, port: int, line: str = "") -> list[str]:
        """Ask a pod something, from a host; TimeoutError where nobody answers soon."""
        sock = self.lab.host(host).call(
            socket.create_connection, (address, port), SHORT_S if not line else PATIENCE_S
        )
        with sock, sock.makefile("rw") as stream:
            stream.write(f"{line}\n")
            stream.flush()
            return stream.readline().split()

    def answer(self, host: str, address: str, port: int = 80) -> list[str]:
        """Return what a pod answers; nothing, if the connection fails."""
        try:
            return self.ask(host, address, port)
        except OSError:
            return []

    def reaches(self, host: str, address: str, port: int) -> bool:
        return bool(self.answer(host, address, port))

    def answering(self, host: str, address: str, times: int = 8) -> set[str]:
        """Return the pods that answer new connections; none, if one connection fails."""
        try:
            return {self.ask(host, address, 80)[0] for _ in range(times)}
        except OSError:
            return set()

    def await_reached(self, host: str, address: str, port: int = 80) -> None:
        self.until(lambda: self.reaches(host, address, port), f"{address} to be reached")

    def until(self, done: Any, why: str) -> None:
        self.cluster.wait_for(done, PATIENCE_S, why)

    def service(self, name: str) -> dict[str, Any]:
        found = self.cluster.api.get(kinds.SERVICE, "shop", name)
        assert found is not None
        return found

    def ingress(self, name: str) -> list[str]:
        balancer = self.service(name).get("status", {}).get("loadBalancer", {})
        return [one["ip"] for one in balancer.get("ingress") or []]

    def node_of(self, app: str) -> str:
        """Return the node of the one pod of an app that is not going away."""
        (pod,) = [
            pod
            for pod in self.cluster.api.objects(catalog.POD, "shop", {"app": app})
            if not pod["metadata"].get("deletionTimestamp")
        ]
        return str(pod["spec"].get("nodeName", ""))

    def names(self, line: str) -> list[str]:
        """Return what a pod finds for a name."""
        return self.ask("client-node1", self.pod_address("db-0"), PORT, line)

    def pod_address(self, name: str) -> str:
        pod = self.cluster.api.get(catalog.POD, "shop", name)
        assert pod is not None
        return str(pod["status"]["podIP"])

    def query(self, name: str, kind: str, server: str = str(DNS_ADDRESS)) -> list[str]:
        """Ask the cluster's name server, from a pod's place."""
        asked = dns.message.make_query(name, kind)
        host = self.lab.host("client-node1")
        response = host.call(dns.query.udp_with_fallback, asked, server, PATIENCE_S)[0]
        return sorted(str(rdata) for rrset in response.answer for rdata in rrset)


@contextmanager
def running(file: str, objects: str, state: Path) -> Iterator[Town]:
    """Start a cluster by a lab's file, with objects; its Services have their addresses."""
    place = site.Site(clusterfile.parse(file, "lab.yaml"))
    with (
        Lab(place.topology(), name=place.file.name, state_dir=state) as lab,
        WholeCluster(lab, place) as cluster,
    ):
        declared = manifests(objects)
        cluster.must_apply(declared)
        cluster.wait_ready()
        town = Town(cluster)
        for one in declared:
            if one.get("spec", {}).get("type") == "LoadBalancer":
                name = one["metadata"]["name"]
                town.until(lambda name=name: town.ingress(name), f"{name} to get an address")
        yield town

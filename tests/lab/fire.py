"""A node under fire: services with endpoints in pods, packets to all of them, and an account.

::

    client ── node ── pod1 … pod12        node: API server and proxy; one responder in each pod

Every pod is an endpoint of many services, and lives as long as the test, also when it has left
one. So every endpoint is healthy during every packet's flight, and a packet that no pod has had
was lost by the proxy.
"""

import json
import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from agent_node import Proxy
from traffic_pair import Generator, Speaker, close_speakers

from kproxy.api import kinds
from kproxy.client.kubeconfig import Access
from kproxy.client.objects import ObjectClient
from kproxy.client.rest import Rest
from kproxy.controlplane.access import kubeconfigs
from kproxy.lab import plan
from kproxy.traffic import frames, profile, records
from netns.lab import Lab
from netns.topology import Host, Topology

SERVICES = 100
FLOWS = 4
"""To each service."""
PODS = 12
LEAST, MOST = 3, 6
"""Endpoints of a service."""
PORT = 5353
TRIAL = 1
ROUTER = {**plan.QUIET, "net.ipv4.ip_forward": "1", "net.ipv4.conf.all.send_redirects": "0"}
CLIENT = IPv4Address("10.244.1.254")


def pod_address(number: int) -> IPv4Address:
    return IPv4Address("10.244.2.0") + number


def cluster_ip(service: int) -> IPv4Address:
    return IPv4Address("10.96.1.0") + service


class Fire:
    """The running node."""

    def __init__(self, lab: Lab, directory: Path, mode: str, seed: int) -> None:
        self.lab = lab
        self._mode = mode
        self._directory = directory
        self._lots = random.Random(seed)
        self.proxies: list[Proxy] = []
        self.endpoints: dict[int, set[int]] = {}
        self._records: list[Path] = []
        self._start_api()
        for number in range(1, PODS + 1):
            self._start_responder(number)
        for service in range(SERVICES):
            self._create(service)

    def _start_api(self) -> None:
        command = [sys.executable, "-m", "kproxy.controlplane.apiserver", "--insecure"]
        process = self.lab["node"].spawn(command, stderr=subprocess.PIPE)
        assert process.popen is not None
        self._log = process.popen.stderr
        assert self._log is not None
        while json.loads(self._log.readline())["msg"] != "listening":
            pass
        server = "http://127.0.0.1:6443"
        self._rest = Rest(Access(server=server), agent="test")
        self._api = ObjectClient(self._rest)
        self._kubeconfig = self._directory / "kubeconfig"
        self._kubeconfig.write_text(kubeconfigs.document({"server": server}, "u", {}))
        self._config = self._directory / "config"
        period = {"minSyncPeriod": "0s", "syncPeriod": "30s"}
        self._config.write_text(json.dumps({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "clusterCIDR": str(plan.CLUSTER_CIDR), "hostnameOverride": "node",
            "conntrack": {"maxPerCore": 0, "min": 0},
            "iptables": period, "ipvs": period, "nftables": period,
        }))  # fmt: skip

    def _start_responder(self, number: int) -> None:
        record = self.lab.scratch / f"pod{number}.received"
        command = [sys.executable, "-m", "kproxy.traffic.responder", "--udp", str(PORT)]
        command += ["--name", f"pod{number}", "--record", str(record), "--rate", "5000"]
        Speaker(self.lab, f"pod{number}", command)
        self._records.append(record)

    def _create(self, service: int) -> None:
        self.endpoints[service] = set(self._lots.sample(range(1, PODS + 1), LEAST + 1))
        node = self.lab["node"]
        node.call(self._api.create, kinds.SERVICE, {
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "default", "name": f"s{service}"},
            "spec": {
                "clusterIP": str(cluster_ip(service)),
                "ports": [{"name": "p", "port": 53, "targetPort": PORT, "protocol": "UDP"}],
            },
        })  # fmt: skip
        node.call(self._api.create, kinds.ENDPOINT_SLICE, self._slice(service))

    def _slice(self, service: int) -> dict[str, Any]:
        return {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "namespace": "default", "name": f"s{service}-1",
                "labels": {"kubernetes.io/service-name": f"s{service}"},
            },
            "addressType": "IPv4",
            "ports": [{"name": "p", "port": PORT, "protocol": "UDP"}],
            "endpoints": [
                {
                    "addresses": [str(pod_address(pod))], "conditions": {"ready": True},
                    "nodeName": "other",
                }
                for pod in sorted(self.endpoints[service])
            ],
        }  # fmt: skip

    # What is done to it.

    def start_proxy(self, *flags: str) -> Proxy:
        """Start a proxy."""
        with self.lab["node"].entered():
            proxy = Proxy([
                *(sys.executable, "-m", "kproxy", "proxy", "--proxy-mode", self._mode),
                *("--kubeconfig", str(self._kubeconfig), "--config", str(self._config), *flags),
            ])  # fmt: skip
        self.proxies.append(proxy)
        return proxy

    def change(self) -> None:
        """Take a pod into some service, or out of it."""
        service = self._lots.randrange(SERVICES)
        now = self.endpoints[service]
        grow = len(now) <= LEAST or (len(now) < MOST and self._lots.random() < 0.5)
        pods = set(range(1, PODS + 1)) - now if grow else now
        now ^= {self._lots.choice(sorted(pods))}
        self.lab["node"].call(self._api.update, kinds.ENDPOINT_SLICE, self._slice(service))

    def send(self, rate_pps: float) -> Generator:
        """Begin to send to all services."""
        client, node = self.lab["client"], self.lab["node"]
        flows: list[profile.UdpFlow] = []
        for service in range(SERVICES):
            flows += frames.probes(
                flows=FLOWS,
                first_flow=len(flows),
                first_port=20000 + len(flows),
                source_mac=str(client.interface("eth0").mac),
                gateway_mac=str(node.interface("client").mac),
                source=CLIENT,
                destination=cluster_ip(service),
                destination_port=53,
            )
        sender = Generator(self.lab, "udp_send")
        sent = self.lab.scratch / "sent"
        wanted = profile.UdpProfile(
            interface="eth0",
            rate_pps=rate_pps,
            trial=TRIAL,
            flows=tuple(flows),
            record=sent,
            # A fraction of the time between two packets of a flow, and a fifth of the wake-ups.
            quantum_ms=5.0,
        )
        assert sender.start(wanted)["event"] == "started"
        return sender

    def close(self) -> None:
        """End what is no process of the lab."""
        for proxy in self.proxies:
            if proxy.process.poll() is None:
                proxy.end(signal.SIGKILL)
        self._rest.close()
        if self._log is not None:
            self._log.close()

    # The account.

    def account(self) -> "Account":
        """Return what became of every packet."""
        had: dict[int, dict[int, int]] = defaultdict(dict)
        for pod, path in enumerate(self._records, 1):
            for packet in records.read_received(path, TRIAL)[0]:
                had[packet.flow][packet.seq] = pod
        flows: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for one in records.read_sent(self.lab.scratch / "sent"):
            if one.status == records.STATUS_SENT:
                flows[one.flow].append((one.seq, one.ns))
        found = Account()
        for flow, packets in flows.items():
            last = 0
            for seq, ns in packets:
                found.sent += 1
                if pod := had[flow].get(seq, 0):
                    found.moved += last not in (0, pod)
                    last = pod
                else:
                    found.lost.append((flow, seq, ns))
        return found


@dataclass(slots=True)
class Account:
    """Packets by their fate. ``lost``: flow, sequence number and time of sending of each."""

    sent: int = 0
    moved: int = 0
    """Flows that went on to another endpoint, with every change of endpoint counted."""
    lost: list[tuple[int, int, int]] = field(default_factory=list)


@contextmanager
def burning(directory: Path, mode: str, seed: int = 1) -> Iterator[Fire]:
    """Make a node with services, pods and a client, and take it all away again."""
    pods = [f"pod{number}" for number in range(1, PODS + 1)]
    hosts = [Host(name="node", sysctls=ROUTER)]
    hosts += [Host(name=name, sysctls=plan.QUIET) for name in ("client", *pods)]
    links = [plan.pod_link("node", "client", CLIENT, node_end="client")]
    for number, name in enumerate(pods, 1):
        links.append(plan.pod_link("node", name, pod_address(number), node_end=name))
    topology = Topology(hosts=tuple(hosts), links=tuple(links))
    with Lab(topology, name=f"fire{os.getpid()}", state_dir=directory / "lab") as lab:
        fire = Fire(lab, directory, mode, seed)
        try:
            yield fire
        finally:
            fire.close()
            close_speakers()

"""An agent whose proxier is a stub: what it logs, what its proxier is told."""

import io
import json
from typing import Any

from kproxy.agent.daemon import Agent
from kproxy.agent.settings import Settings, from_config
from kproxy.api.config import KubeProxyConfiguration, with_defaults
from kproxy.backends.base import SyncResult
from kproxy.client.kubeconfig import Access
from kproxy.client.rest import Rest
from kproxy.desired.model import Family, State
from kproxy.logs import Log
from kproxy.proxier import SyncReport


class Stub:
    """Stands in for the proxiers: says what the test wants."""

    on_slices: Any

    def __init__(self, *results: SyncResult) -> None:
        self.results = list(results)
        self.read = 0
        self.unsupported: str | None = None
        self.state = State(family=Family.IPV4, services={})
        self.zones: list[str] = []
        self.node_ports: list[Any] = []
        self.cluster_cidrs: list[Any] = []
        self.service_cidrs: list[Any] = []
        self.proxiers = [self]
        self.left_over = False
        self.backend = self

    def supported(self) -> str | None:
        return self.unsupported

    def reread(self) -> None:
        self.read += 1

    def sync(self) -> list[SyncReport]:
        result = self.results.pop(0)
        return [
            SyncReport(
                state=self.state, result=result, services=1, endpoints=2, duration_ns=1_500_000
            )
        ]

    def set_zone(self, zone: str) -> None:
        self.zones.append(zone)

    def set_node_ports(self, node_ports: Any) -> None:
        self.node_ports.append(node_ports)

    def set_cluster_cidrs(self, cidrs: Any) -> None:
        self.cluster_cidrs.append(cidrs)

    def set_service_cidrs(self, cidrs: Any) -> None:
        self.service_cidrs.append(cidrs)

    def find_left_over(self) -> bool:
        return self.left_over

    def take_problems(self) -> list[Any]:
        return []

    def take_disabled(self) -> list[str]:
        return []


def settings(**fields: Any) -> Settings:
    return from_config(with_defaults(KubeProxyConfiguration(hostname_override="n", **fields)))


class Watched:
    """An agent whose proxier is a stub, and what it logs."""

    def __init__(self, *results: SyncResult, **configured: Any) -> None:
        self.output = io.StringIO()
        rest = Rest(Access(server="http://127.0.0.1:1"))
        self.agent: Any = Agent(settings(**configured), rest, Log("proxy", "debug", self.output))
        self.stub = Stub(*results)
        self.rounds, self.informers = self.agent._rounds, self.agent._informers
        for part in (self.agent, self.rounds, self.informers, self.agent._node):
            part._proxier = self.stub
        self.agent._node._read = lambda device: {}
        # What follows the first round is not this test's: no server, no switches.
        self.agent._start_health_server = lambda: None
        self.agent._start_companions = lambda: None
        self.agent._node.follow = lambda: None
        self.agent._tune = lambda: None

    def events(self, msg: str) -> list[dict[str, Any]]:
        lines = map(json.loads, self.output.getvalue().splitlines())
        return [line for line in lines if line["msg"] == msg]


def all_listed(watched: Watched) -> None:
    for _ in watched.informers._all:
        watched.informers.note_listed()

"""A whole proxy without a machine: JSON text goes in, the kernel's content comes out.

Everything between is the real thing: informers, trackers, rounds, a backend in each IP family,
what is logged, measured and listened at. Only the API server, the kernel and sockets are
stand-ins, and nothing runs in threads.
"""

import contextlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fake_node import FakeNode

from kproxy.agent.daemon import Agent
from kproxy.agent.metrics import Metrics
from kproxy.agent.servicehealth import ServiceHealth
from kproxy.agent.settings import Settings, from_config
from kproxy.api.config import KubeProxyConfiguration, with_defaults
from kproxy.client.kubeconfig import Access
from kproxy.client.rest import Rest
from kproxy.kernel import inet
from kproxy.kernel.iptables.types import Chain
from kproxy.logs import Log

MODES = ("ipvs", "iptables", "nftables")
OWN = {
    inet.Family.IPV4: ("192.168.1.1",),
    inet.Family.IPV6: ("fd00:192:168:1::1",),
}


_wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def _share(waiting: Any) -> None:
    """Save a descriptor: hundreds of proxies are made, and nobody wakes any of them."""
    os.close(waiting._wake)
    waiting._wake = _wake


class _Listeners:
    """Listens nowhere, and refuses what a socket refuses."""

    def listen(self, at: tuple[str, int], *, only_ipv6: bool = False) -> Any:
        if not 0 <= at[1] <= 65535:
            raise OverflowError("bind(): port must be 0-65535.")
        return at

    def close(self, listener: Any) -> None:
        pass


class _Health(ServiceHealth):
    """Answers nobody: nothing runs in threads here."""

    def _start(self) -> None:
        pass


class _Beside:
    """What is told of every round: metrics, which are scraped, and health checks."""

    def __init__(self, agent: Any, mode: str) -> None:
        self.metrics = Metrics(mode, agent._informers, agent._rounds)
        listeners: Any = _Listeners()
        self.health = _Health(listeners, agent._log, healthy=lambda: True)
        _share(self.health)

    def observe(self, done: Any) -> None:
        self.health.update(report.state for report in done.reports)
        self.metrics.observe(done)
        self.metrics.registry.text()


class WholeProxy:
    """One proxy on one kernel. What goes wrong inside is raised at the caller."""

    def __init__(self, mode: str, settings: Settings | None = None, **configured: Any) -> None:
        self.kernel = FakeNode()
        self.lists: dict[str, bytes] = {}
        self.lines: dict[str, Sequence[bytes]] = {}
        self._output = io.StringIO()
        rest: Any = Rest(Access(server="http://127.0.0.1:1"))
        rest.request = self._request  # kept by the clients that informers derive
        rest.watch = self._watch
        if settings is None:
            fields: dict[str, Any] = {"hostname_override": "n1", "mode": mode, **configured}
            settings = from_config(with_defaults(KubeProxyConfiguration(**fields)))
        agent: Any = Agent(settings, rest, Log("proxy", "debug", self._output))
        _share(agent._listeners)
        agent._start_health_server = agent._start_companions = lambda *_: None
        agent._after_first_round = lambda: None
        agent._rounds._after_first = lambda: None
        agent._node._read = lambda device: OWN
        agent._companions = _Beside(agent, mode)
        for proxier in agent._proxier.proxiers:
            proxier._load = lambda family: self.kernel.backend(mode, settings.options, family)
        self.agent = agent
        self._informers = {informer._thread.name: informer for informer in agent._informers._all}

    @property
    def ready(self) -> bool:
        """Return whether the first sync may begin."""
        return bool(self.agent._rounds._ready)

    def relist(self, **lists: Sequence[Any] | bytes) -> None:
        """Let the informers list what is given, by resource."""
        for resource, items in lists.items():
            self.lists[resource] = items if isinstance(items, bytes) else listed(*items)
        for resource, informer in self._by_resource():
            self.lists.setdefault(resource, listed())
            informer._list()

    def watch(self, **lines: Sequence[bytes]) -> None:
        """Let the informers watch, until the server ends it."""
        for resource, informer in self._by_resource():
            self.lines = {resource: lines.get(resource, ())}
            informer._watch()

    def sync(self) -> None:
        """Do a round; what the kernel or an object's contradictions left undone is no failure."""
        self.agent._rounds.once()

    def writes(self) -> int:
        """Read the kernel anew, do a round, and return how much it wrote."""
        before = len(self._synced())
        self.agent._rounds.read_kernel()
        self.sync()
        return sum(line["writes"] for line in self._synced()[before:])

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._output.getvalue().splitlines()]

    def _synced(self) -> list[dict[str, Any]]:
        return [line for line in self._lines() if line["msg"] == "synced"]

    def told(self, *messages: str) -> list[str]:
        """Return what was logged, by message; all warnings if none is named."""
        return [
            str(line.get("error") or line.get("failures"))
            for line in self._lines()
            if (line["msg"] in messages if messages else line["level"] == "warning")
        ]

    def _by_resource(self) -> Iterator[tuple[str, Any]]:
        for name, informer in self._informers.items():
            yield name.removeprefix("informer-").lower() + "s", informer

    def _request(self, method: str, path: str, *, query: Mapping[str, str]) -> bytes:
        return self.lists[path.rpartition("/")[2]]

    @contextlib.contextmanager
    def _watch(self, *_: Any, **__: Any) -> Iterator[Sequence[bytes]]:
        (lines,) = self.lines.values()
        yield lines


def text(obj: Any) -> bytes:
    """Return an object as JSON; bytes are JSON already."""
    return obj if isinstance(obj, bytes) else json.dumps(obj).encode()


def listed(*items: Any) -> bytes:
    """Return a list as an API server sends it."""
    return b'{"metadata":{"resourceVersion":"7"},"items":[' + b",".join(map(text, items)) + b"]}"


def event(kind: str, obj: Any) -> bytes:
    """Return a line of a watch."""
    return b'{"type":"' + kind.encode() + b'","object":' + text(obj) + b"}"


OF_ONE_SERVICE = ("KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-")


def missing(part: Any, whole: Any, at: str = "") -> str:
    """Return what of one kernel's content is not in another's, empty if all of it is.

    Lists must be there in their order; other things may stand between, but in chains of one
    service nothing may.
    """
    if isinstance(part, Mapping) and isinstance(whole, Mapping):
        lost = [key for key in part if key not in whole]
        found = (missing(one, whole[key], f"{at}/{key}") for key, one in part.items())
        return f"{at}: no {lost[0]}" if lost else next(filter(None, found), "")
    if type(part) is tuple and type(whole) is tuple and len(part) == len(whole):
        found = (missing(*both, at) for both in zip(part, whole, strict=True))
        return next(filter(None, found), "")
    if isinstance(part, frozenset):
        return f"{at}: no {part - whole}" if part - whole else ""
    same = part == whole
    if (
        not same
        and isinstance(part, Chain)
        and not at.rpartition("/")[2].startswith(OF_ONE_SERVICE)
    ):
        rest = iter(whole.rules)
        same = all(rule in rest for rule in part.rules)
    return "" if same else f"{at}: {part} has become {whole}"

"""A node for the proxy alone: a network namespace, an API server in it, and its kernel state."""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import stub_api

from kproxy.controlplane.access import kubeconfigs
from netns import namespace
from netns.wait import wait_until

PATIENCE_S = 60.0
READERS = (
    ["iptables-legacy-save"],
    ["iptables-nft-save"],
    ["ip6tables-legacy-save"],
    ["ipset", "list", "-n"],
    ["ipvsadm", "-Sn"],
    ["ip", "-o", "addr", "show", "dev", "kube-ipvs0"],
)


class Proxy:
    """A running ``kproxy proxy`` and the events that it writes."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )
        self.lines: list[str] = []
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                self.lines.append(line)
                if line.startswith("{"):
                    self._events.put(json.loads(line))
        self._events.put({"msg": "end of output"})

    def wait_for(self, msg: str, **fields: Any) -> dict[str, Any]:
        """Return the next event of this name with these fields."""
        while True:
            event = self._events.get(timeout=PATIENCE_S)
            if event["msg"] == msg and fields.items() <= event.items():
                return event
            if event["msg"] == "end of output":
                raise AssertionError(f"no {msg!r} came; the proxy said: {''.join(self.lines)}")

    def pending(self, msg: str) -> int:
        """Return how many events of this name have been written so far."""
        return sum(json.loads(line)["msg"] == msg for line in list(self.lines) if line[0] == "{")

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it and return its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code


class Node:
    """One namespace, one API server, proxies one after the other."""

    def __init__(self, name: str, directory: Path, mode: str) -> None:
        self.name = name
        self.mode = mode
        with namespace.entered(name):
            self.api = stub_api.StubApi()
        self._proxies: list[Proxy] = []
        self.kubeconfig = directory / "kubeconfig"
        self.config = directory / "config"
        self.kubeconfig.write_text(kubeconfigs.document({"server": self.api.url}, "u", {}))
        period = {"minSyncPeriod": "10ms", "syncPeriod": "1s"}
        self.config.write_text(json.dumps({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "clusterCIDR": "10.128.0.0/9", "hostnameOverride": "node1",
            "iptables": period, "ipvs": period, "nftables": period,
        }))  # fmt: skip

    def start(self, programs: Path | None = None, *flags: str, pod: str = "") -> Proxy:
        """Start a proxy, which finds the programs of a directory first."""
        path = f"{programs}:{os.environ['PATH']}" if programs else os.environ["PATH"]
        with namespace.entered(self.name):
            proxy = Proxy([
                *("env", f"PATH={path}", f"POD_UID={pod}"),
                *(sys.executable, "-m", "kproxy", "proxy", "--proxy-mode", self.mode),
                *("--kubeconfig", str(self.kubeconfig), "--config", str(self.config), *flags),
            ])  # fmt: skip
        self._proxies.append(proxy)
        return proxy

    def run(self, *command: str, check: bool = True) -> str:
        """Run a program in the namespace and return what it prints."""
        with namespace.entered(self.name):
            done = subprocess.run(command, capture_output=True, text=True, check=check)
        return done.stdout

    def change(self, tool: str, *lines: str) -> None:
        """Change table nat at once: a proxy's own sync must not find it half changed."""
        text = "\\n".join(("*nat", *lines, "COMMIT", ""))
        self.run("sh", "-c", f"printf '{text}' | {tool}-restore --noflush")

    def healthz(self) -> str:
        """Return the proxy's answer to a health check; empty if there is none."""
        try:
            with namespace.entered(self.name):
                connection = socket.create_connection(("127.0.0.1", 10256), PATIENCE_S)
            with connection:
                connection.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
                return connection.recv(4096).decode()
        except ConnectionError:
            return ""

    def await_healthy(self) -> None:
        """Wait until the proxy says that it is healthy."""
        wait_until(
            lambda: self.healthz().startswith("HTTP/1.1 200"),
            PATIENCE_S,
            "a healthy proxy",
            interval=0.01,
        )

    def clean_up(self) -> int:
        """Run the proxy with ``--cleanup``."""
        with namespace.entered(self.name):
            command = [sys.executable, "-m", "kproxy", "proxy", "--cleanup"]
            return subprocess.run(command, check=False, capture_output=True).returncode

    def contents(self) -> str:
        """Return all that packets meet, as text without counters and times."""
        found = []
        for command in READERS:
            lines = self.run(*command, check=False).splitlines()
            found += sorted(line.split(" [")[0] for line in lines if not line.startswith("#"))
        return "\n".join(found)

    def close(self) -> None:
        """End everything."""
        for proxy in self._proxies:
            if proxy.process.poll() is None:
                proxy.end(signal.SIGKILL)
        self.api.close()


@contextmanager
def running(directory: Path, mode: str) -> Iterator[Node]:
    """Make a node and take it away again."""
    name = f"kproxy-agent-{os.getpid()}"
    namespace.create(name)
    try:
        with namespace.entered(name):
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        node = Node(name, directory, mode)
        try:
            yield node
        finally:
            node.close()
    finally:
        namespace.delete(name)

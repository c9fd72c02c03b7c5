"""An API server of which programs of monitoring learn, and how they are run beside it."""

import contextlib
import io
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from child_processes import DIES_WITH_US
from exposition_parser import Parsed, parse

from kproxy import logs
from kproxy.api import kinds
from kproxy.client import kubeconfig, rest
from kproxy.client.objects import ObjectClient
from kproxy.controlplane import addresses, apiserver, versions
from kproxy.controlplane.access import kubeconfigs
from kproxy.controlplane.storage import base
from kproxy.controlplane.storage.memory import MemoryStorage
from netns.wait import wait_until

PATIENCE_S = 60.0
Object = dict[str, Any]
CIDR = "127.96.0.0/16"
"""Services of addresses that this machine answers for, so that no network is needed."""


class Api:
    """An API server without secrets, and a client that may do everything."""

    def __init__(self, directory: Path) -> None:
        log = logs.Log("apiserver", stream=io.StringIO())
        self._storage = MemoryStorage()
        self._server = apiserver.start(
            ("127.0.0.1", 0), addresses.parse_cidrs(CIDR), log, self._storage
        )
        self._thread = threading.Thread(target=self._server.serve)
        self._thread.start()
        url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._rest = rest.Rest(kubeconfig.Access(server=url))
        self.client = ObjectClient(self._rest)
        self.kubeconfig = directory / "kubeconfig"
        self.kubeconfig.write_text(kubeconfigs.document({"server": url}, "u", {}))

    def create(self, kind: kinds.Kind, name: str, **parts: Any) -> Object:
        """Create an object; ``annotations`` and ``labels`` go into its metadata."""
        meta = {key: parts.pop(key) for key in ("annotations", "labels") if key in parts}
        meta |= {"name": name} | ({"namespace": "default"} if kind.namespaced else {})
        return self.client.create(kind, {"metadata": meta, **parts})

    def put(self, kind: kinds.Kind, name: str, **parts: Any) -> None:
        """Replace parts of an object (None: remove) without asking the API server's opinion."""
        key = ("default" if kind.namespaced else "", name)
        entry, _ = self._storage.get(versions.path_of(kind.plural, key))
        assert entry is not None
        left = {key: value for key, value in json.loads(entry.value).items() if key not in parts}
        new = left | {key: value for key, value in parts.items() if value is not None}
        self._storage.commit([base.Write(entry.key, json.dumps(new).encode(), entry.revision)])

    def close(self) -> None:
        """End it; twice is once."""
        if self._thread.is_alive():
            self._rest.close()
            self._server.stop()
            self._thread.join()


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[Api]:
    """Have an API server."""
    with contextlib.closing(Api(directory)) as made:
        yield made


class Program:
    """A program of monitoring, with its port of metrics."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stderr is not None
        first = json.loads(process.stderr.readline())
        assert first["msg"] == "started", first
        self.port = first["port"]

    def text(self, path: str = "/metrics") -> str:
        """Return a page."""
        url = f"http://127.0.0.1:{self.port}{path}"
        for tries_left in (2, 1, 0):
            try:
                with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
                    return answer.read().decode()
            except ConnectionResetError:  # it hung up: we were too slow, on a busy machine
                if not tries_left:
                    raise
        raise AssertionError

    def families(self) -> dict[str, Parsed]:
        """Return all that is exposed."""
        return parse(self.text())

    def value(self, name: str, **labels: str) -> float | None:
        """Return the sum of the samples with (at least) these labels; None: there are none."""
        family = name.removesuffix("_count")
        found = [
            value
            for (sample, given), value in self.families().get(family, _NONE).samples.items()
            if sample == name and labels.items() <= dict(given).items()
        ]
        return sum(found) if found else None

    def until(self, accept: Callable[[], object]) -> None:
        """Wait for something of it."""

        def told() -> object:
            try:
                return accept()
            except ConnectionError:  # it hangs up on us when we are too slow, on a busy machine
                return None

        wait_until(told, PATIENCE_S, "the metrics do not tell it", interval=0.05)

    def end(self) -> tuple[int, str]:
        """Send SIGTERM; return the exit code, and what it said since its start."""
        self.process.terminate()
        _, said = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, said


_NONE = Parsed("", "", {})


@contextlib.contextmanager
def running(module: str, *options: str, files: int | None = None) -> Iterator[Program]:
    """Run a program; its metrics are at a port of loopback. ``files``: see :func:`started`."""
    given = ("--metrics-bind-address=127.0.0.1:0", *options)
    with started(module, *given, files=files) as process:
        yield Program(process)


@contextlib.contextmanager
def started(
    module: str, *options: str, files: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start a program with these options alone; ``files``: so many it may have open."""
    limited = () if files is None else ("prlimit", f"--nofile={files}")
    program = [sys.executable, "-m", f"kproxy.monitoring.{module}", *options]
    command = [*DIES_WITH_US, *limited, *program]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def checked_by_promtool(text: str) -> str:
    """Return what promtool has against metrics; empty: nothing."""
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr

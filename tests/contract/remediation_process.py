"""The real receiver as a process that tests kill and start again, and an API server for it."""

import http.client
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import ports

from kproxy import rfc3339
from netns.errors import WaitTimeout
from netns.wait import wait_until

PROGRAM = Path(__file__).with_name("remediation_program.py")
TOKEN = "a token that nobody guesses"
NODES = 700
"""A third of them may be unwell before a storm is no fault of one node."""
PATIENCE_S = 60.0


class Api(BaseHTTPRequestHandler):
    """An API server with nodes, which takes events."""

    events: list[dict[str, Any]]
    """Set by a subclass for each server."""

    def do_GET(self) -> None:
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        nodes = [
            {"metadata": {"name": f"n{i}", "uid": f"u{i}"}, "status": ready} for i in range(NODES)
        ]
        name = self.path.rpartition("/")[2]
        one = {"metadata": {"name": name, "uid": f"uid-of-{name}"}}
        self._answer(200, {"items": nodes} if self.path.endswith("/nodes") else one)

    def do_POST(self) -> None:
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.events.append(event)
        self._answer(201, event)

    def _answer(self, code: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Says nothing when a client is killed in the middle."""

    def handle_error(self, *_: object) -> None:
        pass


@contextmanager
def api() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serve an API; give its URL and the events that it takes."""
    events: list[dict[str, Any]] = []
    handler = type("Handler", (Api,), {"events": events})
    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", events
        server.shutdown()
        thread.join()


@dataclass
class Receiver:
    """The receiver's process, which can be killed and started again on the same port."""

    directory: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None
    accepted: list[str] = field(default_factory=list)

    @property
    def log(self) -> list[list[str]]:
        path = self.directory / "log"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def said(self) -> str:
        return (self.directory / "stderr").read_text()[-3000:]

    def start(self) -> None:
        words = [sys.executable, str(PROGRAM), str(self.directory / "log")]
        with (self.directory / "stderr").open("ab") as stderr:
            self.process = subprocess.Popen(
                [*words, str(self.directory / "c.yaml")], stderr=stderr
            )

    def end(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait()

    def ask(
        self, path: str, body: bytes | None = None, *, token: str = TOKEN
    ) -> tuple[int, bytes]:
        """Send a request once. Raises OSError, HTTPException."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            method = "GET" if body is None else "POST"
            connection.request(method, path, body, {"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def deliver(self, group: str, body: bytes) -> None:
        """Send a notification until it is accepted, as Alertmanager does."""

        def taken() -> bool:
            try:
                status, answer = self.ask("/alerts", body)
            except (OSError, http.client.HTTPException):
                return False
            # 408: this machine is so busy that we were too slow.
            assert status in (200, 408, 503), (status, answer)
            return status == 200

        self.until(taken, f"{group} to be accepted", interval=0.02)
        self.accepted.append(group)

    def await_metric(self, wanted: Callable[[dict[str, float]], bool]) -> None:
        def told() -> bool:
            try:
                text = self.ask("/metrics")[1].decode()
            except (OSError, http.client.HTTPException):
                assert self.process is None or self.process.poll() is None, self.said
                return False
            series = (line.rpartition(" ") for line in text.splitlines() if line[:1] != "#")
            return bool(text) and wanted({name: float(value) for name, _, value in series})

        self.until(told, "metrics to be as wanted", interval=0.05)

    def until(self, met: Callable[[], bool], why: str, *, interval: float) -> None:
        """Wait; a failure tells what the receiver has said."""
        try:
            wait_until(met, PATIENCE_S, why, interval=interval)
        except WaitTimeout as error:
            error.add_note(self.said)
            raise


@contextmanager
def receiver(directory: Path, server: str, more: str = "") -> Iterator[Receiver]:
    """Start a receiver; it is ended at the end."""
    port = ports.unused()
    (directory / "token").write_text(TOKEN)
    (directory / "token").chmod(0o600)
    user = {"name": "u", "user": {}}
    config = {
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [user],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
    (directory / "kubeconfig").write_text(json.dumps(config))
    (directory / "c.yaml").write_text(
        f"listen: 127.0.0.1:{port}\ntokenFile: token\nkubeconfig: kubeconfig\n"
        "journal: {directory: journal, fileBytes: 200000, files: 1000}\n"
        "nodeAccess: {kind: command, options: {command: 'true {node}'}}\n"
        "requestWithin: 2s\nguards: {queue: 1000}\nactions: {mend: {}}\n" + more
    )
    one = Receiver(directory, port)
    one.start()
    try:
        one.await_metric(lambda _: True)
        yield one
    finally:
        if one.process is not None and one.process.poll() is None:
            one.end(signal.SIGTERM)


def alert(trouble: str, starts: float, *, firing: bool = True, **labels: str) -> dict[str, Any]:
    """Return an alert; the number in its name is that of its node."""
    node = "n" + "".join(filter(str.isdigit, trouble))
    return {
        "status": "firing" if firing else "resolved",
        "labels": {
            "alertname": "Broken",
            "trouble": trouble,
            "node": node,
            "remediation": "mend",
            **labels,
        },
        "startsAt": rfc3339.microtime(starts),
        "endsAt": "0001-01-01T00:00:00Z" if firing else rfc3339.microtime(starts + 1),
        "fingerprint": f"of-{trouble}",
    }


def body(group: str, *alerts: dict[str, Any]) -> bytes:
    return json.dumps({"version": "4", "groupKey": group, "alerts": alerts}).encode()

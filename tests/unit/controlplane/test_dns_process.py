"""The name server as a process: before it knows anything, and at its end."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import dns.message
import dns.query
import dns.rcode
import pytest
from child_processes import DIES_WITH_US

from kproxy.controlplane.access import kubeconfigs

PATIENCE_S = 60.0


def kubeconfig(directory: Path, server: str) -> Path:
    path = directory / "kubeconfig"
    path.write_text(kubeconfigs.document({"server": server}, "u", {}))
    return path


@contextmanager
def running(*options: str) -> Iterator[subprocess.Popen[str]]:
    command = [*DIES_WITH_US, sys.executable, "-m", "kproxy.controlplane.dns", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def event(stream: IO[str] | None, msg: str) -> dict[str, Any]:
    """Return the next line with this message."""
    assert stream is not None
    for line in stream:
        if (found := json.loads(line))["msg"] == msg:
            return dict(found)
    raise AssertionError(f"no {msg!r} came")


def status(port: int, path: str) -> int:
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        return int(sock.recv(100).split()[1])


def test_without_an_api_it_lives_but_is_not_ready(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
    options = [f"--kubeconfig={kubeconfig(tmp_path, nobody)}", "--listen=127.0.0.1:0"]
    options += ["--health-bind-address=127.0.0.1:0", "--lameduck=0s"]
    options.append("--metrics-bind-address=127.0.0.1:0")
    with running(*options) as process:
        found = event(process.stderr, "listening")
        assert status(found["health"], "/health") == 200
        assert status(found["health"], "/ready") == 503
        assert status(found["metrics"], "/metrics") == 200
        query = dns.message.make_query("web.shop.svc.cluster.local", "A")
        response = dns.query.udp(query, "127.0.0.1", PATIENCE_S, found["ports"][0])
        assert response.rcode() == dns.rcode.SERVFAIL
        process.send_signal(signal.SIGTERM)
        event(process.stderr, "stopped")
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--listen=nowhere", "is no ADDRESS[:PORT]"),
        ("--listen=127.0.0.1:99999", "is no ADDRESS[:PORT]"),
        ("--forward=example.org", "is no ADDRESS[:PORT]"),
        ("--domain=a..b", "is no domain"),
        ("--pods=perhaps", "invalid PodNames value"),
        ("--kubeconfig=/nonexistent", "cannot read kubeconfig"),
        ("--listen=192.0.2.254:5353", "cannot listen at 192.0.2.254 port 5353"),
    ],
)
def test_mistakes_are_told_in_words(tmp_path: Path, option: str, words: str) -> None:
    given = f"--kubeconfig={kubeconfig(tmp_path, 'http://127.0.0.1:1')}"
    nowhere = ["--health-bind-address=", "--metrics-bind-address="]
    with running(given, *nowhere, option) as process:
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert words in said
    assert "Traceback" not in said

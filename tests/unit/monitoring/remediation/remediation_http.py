"""The real server on loopback, and how it is asked."""

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from remediation_alerts import Mend

from kproxy.logs import Log
from kproxy.monitoring.remediation import service
from kproxy.monitoring.remediation.actions import catalog
from kproxy.monitoring.remediation.settings import ActionSettings, Journal, Settings

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def mend(monkeypatch: pytest.MonkeyPatch) -> Mend:
    one = Mend()
    monkeypatch.setattr(catalog, "ACTIONS", {"mend": lambda _: one})
    monkeypatch.setattr(catalog, "NODE_ACCESS", {"none": lambda *_: None})
    return one


def settings(directory: Path, **fields: object) -> Settings:
    (directory / "token").write_text(TOKEN)
    (directory / "token").chmod(0o600)
    default = Settings(
        listen="127.0.0.1:0",
        token_file=str(directory / "token"),
        journal=Journal(directory=str(directory / "journal")),
        node_access=msgspec.convert({"kind": "none"}, type(Settings().node_access)),
        actions={"mend": ActionSettings()},
    )
    return msgspec.structs.replace(default, **fields)


@contextmanager
def served(directory: Path, **fields: object) -> Iterator[int]:
    with service.running(settings(directory, **fields), Log("test")) as port:
        yield port


def ask(
    port: int,
    path: str,
    body: bytes | None = None,
    *,
    token: str = TOKEN,
    method: str = "",
    headers: dict[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> tuple[int, bytes]:
    """Send one request; return status and body."""
    if tls is not None:
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=60, context=tls
        )
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        given = {"Authorization": f"Bearer {token}"} if token else {}
        how = method or ("POST" if body is not None else "GET")
        connection.request(how, path, body, {**given, **(headers or {})})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def raw(port: int, data: bytes, *, end: bool = True) -> bytes:
    """Send bytes, and return all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
        one.sendall(data)
        if end:
            one.shutdown(socket.SHUT_WR)
        with one.makefile("rb") as answer:
            return answer.read()


def audit(port: int) -> list[dict[str, Any]]:
    status, body = ask(port, "/audit")
    assert status == 200
    found: list[dict[str, Any]] = json.loads(body)
    return found

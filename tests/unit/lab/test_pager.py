"""Who is told of alerts in a lab, and the switch that misses a dead man."""

import contextlib
import http.client
import io
import json
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kproxy import logs
from kproxy.api.durations import Duration
from kproxy.lab import pager
from netns.errors import WaitTimeout
from netns.wait import wait_until

PATIENCE = 60.0
NEVER = 3600.0


class Lines(io.StringIO):
    """A log that can be waited for."""

    def find(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            return [one for one in map(json.loads, self.getvalue().splitlines()) if wanted(one)]

        try:
            return wait_until(found, PATIENCE, "a line of the log", interval=0.01)[0]
        except WaitTimeout as error:
            error.add_note(self.getvalue())
            raise


def state(word: str) -> Callable[[dict[str, Any]], bool]:
    return lambda line: line["msg"] == pager.SWITCH and line["state"] == word


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def port(lines: Lines) -> Iterator[int]:
    log = logs.Log("pager", stream=lines)
    with serving(pager.Server(("127.0.0.1", 0), log, pager.Switch(log, NEVER, NEVER))) as number:
        yield number


@contextlib.contextmanager
def serving(server: pager.Server) -> Iterator[int]:
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield int(server.server_address[1])
    server.stop()
    thread.join()


def post(port: int, path: str, body: bytes, length: str = "") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("POST", path, body, {"Content-Length": length or str(len(body))})
        return connection.getresponse().status
    finally:
        connection.close()


def notification(*names: str, status: str = "firing") -> bytes:
    alerts = [
        {
            "status": status,
            "labels": {"alertname": name, "node": "node1"},
            "startsAt": "2026-01-01T00:00:00Z",
            "surprise": 1,
        }
        for name in names
    ]
    return json.dumps({"version": "4", "alerts": alerts}).encode()


def test_each_alert_is_a_line(port: int, lines: Lines) -> None:
    assert post(port, pager.HUMANS_PATH, notification("One", "Two")) == 200
    assert post(port, pager.HUMANS_PATH, notification("One", status="resolved")) == 200
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [(one["alert"], one["status"]) for one in told] == [
        ("One", "firing"), ("Two", "firing"), ("One", "resolved"),
    ]  # fmt: skip
    assert told[0]["labels"] == {"node": "node1"}
    assert told[0]["sender"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("path", "body", "length", "code"),
    [
        ("/humans", b"not json", "", 400),
        ("/humans", b"[]", "", 400),
        ("/humans", b'{"alerts": [{}]}', "", 400),
        ("/elsewhere", notification("One"), "", 404),
        ("/humans", b"", "many", 411),
        ("/humans", b"", str(pager.LARGEST_BODY + 1), 411),
    ],
)
def test_what_is_no_notification_is_refused_and_told_to_nobody(
    port: int, lines: Lines, path: str, body: bytes, length: str, code: int
) -> None:
    assert post(port, path, body, length) == code
    assert lines.getvalue() == ""


def test_silence_is_told_once_and_so_is_its_end(lines: Lines) -> None:
    switch = pager.Switch(logs.Log("pager", stream=lines), Duration(0.2), 0.0)
    threading.Thread(target=switch.watch, daemon=True).start()
    lines.find(state("silent"))
    switch.heard()
    lines.find(state("back"))
    lines.find(lambda _: lines.getvalue().count("silent") == 2)


def test_the_dead_mans_alert_is_heard(lines: Lines) -> None:
    log = logs.Log("pager", stream=lines)
    switch = pager.Switch(log, NEVER, 0.0)
    threading.Thread(target=switch.watch, daemon=True).start()
    lines.find(state("silent"))
    with serving(pager.Server(("127.0.0.1", 0), log, switch)) as number:
        assert post(number, pager.DEAD_MAN_PATH, notification("Watchdog")) == 200
        lines.find(state("back"))


def test_an_address_that_cannot_be_had_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert pager.main(["--bind-address", "192.0.2.1:80"]) == 2
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set(), "what is started here can end"
    (line,) = capsys.readouterr().err.splitlines()
    assert "192.0.2.1:80" in json.loads(line)["error"]

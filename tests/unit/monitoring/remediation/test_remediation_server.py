"""The real server on loopback, with an action that only remembers."""

import http.client
import json
import socket
import threading
import time
from pathlib import Path

import pytest
from exposition_parser import parse
from remediation_alerts import Mend, alert, notification
from remediation_http import TOKEN, ask, audit, mend, raw, served, settings

from kproxy.api.durations import Duration
from kproxy.logs import Log
from kproxy.monitoring.remediation import service
from kproxy.monitoring.remediation.settings import Journal
from kproxy.monitoring.remediation.tokens import Token
from netns.wait import wait_until

__all__ = ["mend"]


@pytest.mark.usefixtures("mend")
def test_a_notification_is_taken_and_shown(tmp_path: Path) -> None:
    with served(tmp_path) as port:
        status, body = ask(port, "/alerts", notification(alert()))
        assert (status, json.loads(body)["alerts"][0]["fingerprint"]) == (200, "of-n1")
        shown = [one for one in audit(port) if one["what"] == "notified"]
        assert [one["fingerprint"] for one in shown[0]["alerts"]] == ["of-n1"]
        assert ask(port, "/healthz", token="") == (200, b"ok\n")
        families = parse(ask(port, "/metrics", token="")[1].decode())
        assert "kproxy_remediation_notifications_total" in families


@pytest.mark.usefixtures("mend")
def test_the_audit_shows_what_happened_and_no_snapshots(tmp_path: Path) -> None:
    small = Journal(directory=str(tmp_path / "journal"), file_bytes=1, files=8)
    with served(tmp_path, journal=small) as port:
        ask(port, "/alerts", notification(alert()))
        assert len(list((tmp_path / "journal").glob("journal-*.jsonl"))) > 1
        assert {one["what"] for one in audit(port)} == {"started", "notified"}


@pytest.mark.usefixtures("mend")
@pytest.mark.parametrize("path", ["/alerts", "/audit"])
@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer \xff\xfe",
    ],
)
def test_without_the_token_nothing_is_read(tmp_path: Path, path: str, header: str) -> None:
    with served(tmp_path) as port:
        body = notification(alert()) if path == "/alerts" else None
        headers = {"Authorization": header} if header else {}
        status, answer = ask(port, path, body, token="", headers=headers)
        assert (status, b"bearer token" in answer) == (401, True)
        assert [one["what"] for one in audit(port)] == ["started"]
        _, text = ask(port, "/metrics", token="")
        assert b'notifications_total{result="unauthenticated"} 1' in text


@pytest.mark.usefixtures("mend")
def test_a_new_token_holds_at_once_and_without_one_nobody_gets_in(tmp_path: Path) -> None:
    with served(tmp_path) as port:
        (tmp_path / "token").write_text("another token that is long")
        assert ask(port, "/audit")[0] == 401
        assert ask(port, "/audit", token="another token that is long")[0] == 200
        (tmp_path / "token").write_text("short")
        assert ask(port, "/audit", token="short")[0] == 401
        (tmp_path / "token").unlink()
        assert ask(port, "/audit", token="another token that is long")[0] == 401


def test_that_there_is_no_token_is_told_once_not_to_each_stranger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    token = Token(file, Log("test"))
    file.write_text("short")
    told = []
    for change in (lambda: None, file.unlink):
        change()
        for _ in range(3):
            assert not token.admits({"authorization": f"Bearer {TOKEN}"})
        told.append(capsys.readouterr().err.count('"no token"'))
    assert told == [1, 1]


@pytest.mark.usefixtures("mend")
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/alerts", 405), ("DELETE", "/audit", 411), ("GET", "/other", 404)],
)
def test_other_paths_and_methods(tmp_path: Path, method: str, path: str, status: int) -> None:
    with served(tmp_path) as port:
        headers = {"Transfer-Encoding": "chunked"} if status == 411 else {}
        assert ask(port, path, method=method, headers=headers)[0] == status


@pytest.mark.usefixtures("mend")
def test_a_body_that_cannot_be_read_is_told_of_and_not_kept(tmp_path: Path) -> None:
    with served(tmp_path) as port:
        status, body = ask(port, "/alerts", notification({**alert(), "startsAt": "x"}))
        assert status == 400
        assert "alerts[0].startsAt" in json.loads(body)["error"]
        assert [one["what"] for one in audit(port)] == ["started"]


@pytest.mark.usefixtures("mend")
def test_a_body_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    with served(tmp_path, body_bytes=100) as port:
        head = b"POST /alerts HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n" % TOKEN.encode()
        answer = raw(port, head + b"Content-Length: 101\r\n\r\n", end=False)
        assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.usefixtures("mend")
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n\r\n", b"400"),
        (b"GET /healthz\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nno header\r\n\r\n", b"400"),
        (b"POST /alerts HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400"),
        (b"POST /alerts HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST /alerts HTTP/1.1\r\n\r\n", b"411"),
        (b"GET /healthz HTTP/1.1\r\nContent-Length: 1\r\n\r\n", b"400"),
        # Of 15 000 spaces a search that begins anew at each would not see the end.
        (b"GET /healthz HTTP/1.1\r\nA:" + b" " * 15_000 + b"\n\r\nB: 1\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", b"431"),
        (b"GET /healthz HTTP/1.1\r\n", b""),
        (b"", b""),
    ],
)
def test_what_is_no_request_is_answered_or_dropped(
    tmp_path: Path, data: bytes, status: bytes
) -> None:
    with served(tmp_path) as port:
        assert raw(port, data)[9:12] == status
        assert ask(port, "/healthz")[0] == 200


@pytest.mark.usefixtures("mend")
@pytest.mark.parametrize(
    "begin", [b"", b"GET /healthz HTT", b"POST /alerts HTTP/1.1\r\nContent-Length: 10\r\n\r\n12"]
)
def test_who_is_slow_is_not_waited_for(tmp_path: Path, begin: bytes) -> None:
    with served(tmp_path, request_within=Duration(0.1)) as port:
        if begin.startswith(b"POST"):
            token = b"HTTP/1.1\r\nAuthorization: Bearer " + TOKEN.encode()
            begin = begin.replace(b"HTTP/1.1", token, 1)
        assert raw(port, begin, end=False).startswith(b"HTTP/1.1 408 ")


@pytest.mark.usefixtures("mend")
def test_one_address_does_not_keep_the_others_out(tmp_path: Path) -> None:
    with served(tmp_path, connections=8) as port:
        silent = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(6)]
        try:
            # Two wait for their request, the rest was told to come again.
            answers = [one.recv(100)[9:12] for one in silent[2:]]
            assert answers == [b"503"] * 4
            other = http.client.HTTPConnection(
                "127.0.0.1", port, timeout=60, source_address=("127.0.0.2", 0)
            )
            other.request("GET", "/healthz")
            assert other.getresponse().status == 200
            other.close()
        finally:
            for one in silent:
                one.close()


@pytest.mark.usefixtures("mend")
def test_who_is_turned_away_takes_nobody_s_place(tmp_path: Path) -> None:
    with served(tmp_path, connections=8) as port:
        # Two wait for their request, and more than there may be at all are turned away.
        crowd = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(16)]
        try:
            assert [one.recv(100)[9:12] for one in crowd[2:10]] == [b"503"] * 8
            other = http.client.HTTPConnection(
                "127.0.0.1", port, timeout=60, source_address=("127.0.0.2", 0)
            )
            other.request("GET", "/healthz")
            assert other.getresponse().status == 200
            other.close()
        finally:
            for one in crowd:
                one.close()


def test_many_at_once_are_each_taken_once(tmp_path: Path, mend: Mend) -> None:
    with served(tmp_path) as port:
        taken: list[bytes] = []
        body = notification(alert(starts=time.time()))

        def send() -> None:
            taken.append(ask(port, "/alerts", body)[1])

        threads = [threading.Thread(target=send) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        notified = [one for one in audit(port) if one["what"] == "notified"]
    assert len(notified) == 20
    assert sum(b'"taken"' in one for one in taken) == 1
    assert len(mend.ran) <= 1


@pytest.mark.usefixtures("mend")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_fails_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("kproxy.monitoring.remediation.engine.Engine.step", fail)
    failed = threading.Event()
    with service.running(settings(tmp_path), Log("test"), failed.set) as port:
        assert ask(port, "/healthz")[0] == 200
        ask(port, "/alerts", notification(alert(starts=time.time())))
        assert failed.wait(60)
        wait_until(
            lambda: ask(port, "/healthz")[0] == 503, 60, "it to say so of itself", interval=0.01
        )

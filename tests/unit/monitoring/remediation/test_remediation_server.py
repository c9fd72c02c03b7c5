"""The real server on loopback, with an action that only remembers."""

import http.client
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from exposition_parser import parse
from remediation_alerts import Mend, alert, notification

from kproxy.api.durations import Duration
from kproxy.errors import InvalidObject, UsageError
from kproxy.logs import Log
from kproxy.monitoring.remediation import service, webhook
from kproxy.monitoring.remediation.actions import catalog
from kproxy.monitoring.remediation.records import Started
from kproxy.monitoring.remediation.settings import ActionSettings, Journal, Settings, Tls
from kproxy.monitoring.remediation.tokens import Token
from netns.wait import wait_until

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
            "127.0.0.1", port, timeout=30, context=tls
        )
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
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
    with socket.create_connection(("127.0.0.1", port), timeout=30) as one:
        one.sendall(data)
        if end:
            one.shutdown(socket.SHUT_WR)
        with one.makefile("rb") as answer:
            return answer.read()


def audit(port: int) -> list[dict[str, object]]:
    status, body = ask(port, "/audit")
    assert status == 200
    found: list[dict[str, object]] = json.loads(body)
    return found


@pytest.mark.usefixtures("mend")
def test_a_notification_is_taken_and_shown(tmp_path: Path) -> None:
    with served(tmp_path) as port:
        status, body = ask(port, "/alerts", notification(alert()))
        assert (status, json.loads(body)["alerts"][0]["fingerprint"]) == (200, "of-n1")
        shown = [one for one in audit(port) if one["what"] == "notified"]
        assert [one["fingerprint"] for one in shown[0]["alerts"]] == ["of-n1"]  # type: ignore[attr-defined]
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
        silent = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(6)]
        try:
            # Two wait for their request, the rest was told to come again.
            answers = [one.recv(100)[9:12] for one in silent[2:]]
            assert answers == [b"503"] * 4
            other = http.client.HTTPConnection(
                "127.0.0.1", port, timeout=30, source_address=("127.0.0.2", 0)
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
        crowd = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(16)]
        try:
            assert [one.recv(100)[9:12] for one in crowd[2:10]] == [b"503"] * 8
            other = http.client.HTTPConnection(
                "127.0.0.1", port, timeout=30, source_address=("127.0.0.2", 0)
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
        assert failed.wait(30)
        wait_until(
            lambda: ask(port, "/healthz")[0] == 503, 30, "it to say so of itself", interval=0.01
        )


@pytest.fixture
def certificate(tmp_path: Path) -> Tls:
    return make_certificate(tmp_path)


def make_certificate(directory: Path) -> Tls:
    pair = Tls(cert_file=str(directory / "cert"), key_file=str(directory / "key"))
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=a"
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*command.split(), *names, "-keyout", pair.key_file, "-out", pair.cert_file],
        check=True,
        capture_output=True,
    )
    return pair


@pytest.mark.usefixtures("mend")
@pytest.mark.needs_tool("openssl")
def test_tls(tmp_path: Path, certificate: Tls) -> None:
    trusting = ssl.create_default_context(cafile=certificate.cert_file)
    with served(tmp_path, tls=certificate) as port:
        assert ask(port, "/alerts", notification(alert()), tls=trusting)[0] == 200
        assert raw(port, b"GET /healthz HTTP/1.1\r\n\r\n")[:4] != b"HTTP"


@pytest.mark.usefixtures("mend")
@pytest.mark.needs_tool("openssl")
def test_a_certificate_that_is_half_written_spoils_nothing_and_whole_is_used(
    tmp_path: Path, certificate: Tls
) -> None:
    (tmp_path / "next").mkdir()
    coming = make_certificate(tmp_path / "next")
    old = ssl.create_default_context(cafile=certificate.cert_file)
    new = ssl.create_default_context(cafile=coming.cert_file)
    with served(tmp_path, tls=certificate) as port:
        assert ask(port, "/healthz", tls=old)[0] == 200
        Path(coming.cert_file).rename(certificate.cert_file)
        for _ in range(3):  # It is read again once an answer was given.
            assert ask(port, "/healthz", tls=old)[0] == 200
        Path(coming.key_file).rename(certificate.key_file)

        def taken() -> bool:
            _trusts(port, old)
            return _trusts(port, new)

        wait_until(taken, 30, "the new certificate to be used")


def _trusts(port: int, tls: ssl.SSLContext) -> bool:
    try:
        return ask(port, "/healthz", tls=tls)[0] == 200
    except ssl.SSLError:
        return False


@pytest.mark.usefixtures("mend")
def test_what_is_wrong_at_the_start_is_told(tmp_path: Path) -> None:
    with served(tmp_path) as port:
        cases: list[tuple[dict[str, object], str]] = [
            ({"token_file": ""}, "tokenFile is not set"),
            ({"token_file": str(tmp_path / "none")}, "holds no token"),
            ({"journal": Journal(directory=str(tmp_path / "journal"))}, "another receiver"),
            ({"listen": "nowhere"}, "not HOST:PORT"),
            ({"listen": f"127.0.0.1:{port}"}, "cannot listen"),
            ({"tls": Tls(cert_file="/a", key_file="/b")}, "cannot use the certificate"),
        ]
        for number, (fields, words) in enumerate(cases):
            place = Journal(directory=str(tmp_path / f"journal{number}"))
            with (
                pytest.raises(UsageError, match=words),
                service.running(settings(tmp_path, **{"journal": place, **fields}), Log("test")),
            ):
                pass


def test_where_the_port_is_taken_nothing_is_begun(tmp_path: Path, mend: Mend) -> None:
    (tmp_path / "waiting").mkdir()
    with service.opened(settings(tmp_path), Log("test")) as before:
        body = notification(alert(starts=time.time()))
        before.ledger.accept(webhook.decode(body), "", before.policy)
    with served(tmp_path / "waiting") as port:
        taken = settings(tmp_path, listen=f"127.0.0.1:{port}")
        with pytest.raises(UsageError, match="cannot listen"), service.running(taken, Log("test")):
            pass
    assert mend.ran == []
    with service.opened(settings(tmp_path), Log("test")) as after:
        assert len(after.ledger.state.waiting()) == 1


@pytest.mark.usefixtures("mend")
def test_a_journal_of_a_time_to_come_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for ahead, told in ((0.0, False), (10_000.0, True)):
        with service.opened(settings(tmp_path), Log("test")) as one:
            assert "a time to come" not in capsys.readouterr().err
            one.ledger.write(Started(at=time.time() + ahead, pid=1))
        with service.opened(settings(tmp_path), Log("test")):
            assert ("a time to come" in capsys.readouterr().err) is told


@pytest.mark.usefixtures("mend")
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"actions": {"unheard-of": ActionSettings()}}, "actions.unheard-of"),
        ({"node_access": type(Settings().node_access)(kind="magic")}, "nodeAccess.kind"),
    ],
)
def test_names_that_do_not_exist_are_told(
    tmp_path: Path, fields: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidObject) as caught, served(tmp_path, **fields):
        pass
    assert caught.value.field == field

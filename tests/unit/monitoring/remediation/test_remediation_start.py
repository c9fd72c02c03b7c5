"""What the server needs when it starts: certificates, a port, a journal, names that exist."""

import ssl
import subprocess
import time
from pathlib import Path

import pytest
from remediation_alerts import Mend, alert, notification
from remediation_http import ask, mend, raw, served, settings

from kproxy.errors import InvalidObject, UsageError
from kproxy.logs import Log
from kproxy.monitoring.remediation import service, webhook
from kproxy.monitoring.remediation.records import Started
from kproxy.monitoring.remediation.settings import ActionSettings, Journal, Settings, Tls
from netns.wait import wait_until

__all__ = ["mend"]


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

        wait_until(taken, 60, "the new certificate to be used")


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
            ({"listen": "127.0.0.1:\N{SUPERSCRIPT TWO}"}, "not HOST:PORT"),
            ({"listen": "a..b:9095"}, "cannot listen"),
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

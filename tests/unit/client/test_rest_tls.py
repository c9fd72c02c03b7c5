"""HTTPS: trust, client certificates, and closing a blocked read."""

import base64
import json
import shutil
import socket
import threading
from pathlib import Path

import pytest
from scripted_server import CHUNKED, answer
from tls_server import TlsServer, make_certificate

from kproxy.api import core
from kproxy.client.kubeconfig import Access, parse_kubeconfig
from kproxy.client.rest import Rest, Unreachable
from kproxy.errors import UsageError

pytestmark = pytest.mark.needs_tool("openssl")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"), "api")


def hello(request):
    return [answer({"hello": "you"})]


def test_a_server_that_is_trusted_by_file_or_data(certificate):
    cert, _ = certificate
    with TlsServer(hello, certificate) as server:
        for trust in ({"ca_file": cert}, {"ca_data": cert.read_text()}, {"insecure": True}):
            with Rest(Access(server=server.url, **trust)) as rest:
                assert rest.request("GET", "/") == b'{"hello": "you"}'


def test_a_server_that_is_not_trusted(certificate):
    with (
        TlsServer(hello, certificate) as server,
        Rest(Access(server=server.url)) as rest,
        pytest.raises(Unreachable, match=r"CERTIFICATE_VERIFY_FAILED|certificate verify failed"),
    ):
        rest.request("GET", "/")


def test_the_name_of_the_server_may_be_given(certificate):
    cert, _ = certificate
    with TlsServer(hello, certificate) as server:
        good = Access(server=server.url, ca_file=cert, tls_server_name="api")
        bad = Access(server=server.url, ca_file=cert, tls_server_name="other")
        with Rest(good) as rest:
            rest.request("GET", "/")
        with Rest(bad) as rest, pytest.raises(Unreachable, match="ismatch"):
            rest.request("GET", "/")


@pytest.mark.parametrize("how", ["files", "data"])
def test_a_client_certificate(certificate, how):
    cert, key = certificate
    mine = {"cert_file": cert, "key_file": key}
    if how == "data":
        mine = {"cert_data": cert.read_text(), "key_data": key.read_text()}
    with TlsServer(hello, certificate, ask=True) as server:
        with Rest(Access(server=server.url, ca_file=cert, **mine)) as rest:
            assert rest.request("GET", "/") == b'{"hello": "you"}'
        with Rest(Access(server=server.url, ca_file=cert)) as rest, pytest.raises(Unreachable):
            rest.request("GET", "/")


def test_keys_of_a_kubeconfig_are_written_to_no_disk(certificate, monkeypatch):
    cert, key = certificate
    mine = {"cert_data": cert.read_text(), "key_data": key.read_text()}
    # Where a container's file system is read-only there is no directory for such files either.
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    with (
        TlsServer(hello, certificate, ask=True) as server,
        Rest(Access(server=server.url, ca_file=cert, **mine)) as rest,
    ):
        rest.request("GET", "/")


def test_closing_ends_a_blocked_read(certificate):
    reading = threading.Event()

    def reply(request):
        yield CHUNKED
        reading.set()
        threading.Event().wait()

    ends = []
    with TlsServer(reply, certificate) as server:
        rest = Rest(Access(server=server.url, insecure=True))

        def read():
            try:
                with rest.watch(core.Service, resource_version="1") as lines:
                    list(lines)
            except Unreachable as error:
                ends.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        assert reading.wait(60)
        rest.close()
        thread.join(60)
        assert not thread.is_alive()
        assert len(ends) == 1


def test_closing_ends_a_handshake_that_nobody_answers():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        rest = Rest(Access(server=f"https://127.0.0.1:{silent.getsockname()[1]}", insecure=True))
        ends = []

        def ask():
            try:
                rest.request("GET", "/")
            except Unreachable as error:
                ends.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        accepted, _ = silent.accept()
        with accepted:
            assert accepted.recv(1), "the client says hello"
            rest.close()
            thread.join(60)
            assert not thread.is_alive()
            assert len(ends) == 1


@pytest.mark.parametrize(
    "wrong",
    [{"ca_data": "no certificate"}, {"ca_file": Path("/no/such")}, {"cert_data": "x"}],
    ids=["ca data", "ca file", "client"],
)
def test_unusable_certificates_are_usage_errors(wrong):
    with pytest.raises(UsageError, match=r"certificates for https://127\.0\.0\.1"):
        Rest(Access(server="https://127.0.0.1:1", **wrong))


def encoded(path):
    return base64.b64encode(path.read_bytes()).decode()


@pytest.mark.parametrize("how", ["data", "files"])
def test_a_kubeconfig_leads_to_a_server_that_asks_who_we_are(certificate, how):
    cert, key = certificate
    cluster, user = {"certificate-authority": cert.name}, {}
    user = {"client-certificate": cert.name, "client-key": key.name}
    if how == "data":
        cluster = {"certificate-authority-data": encoded(cert)}
        user = {"client-certificate-data": encoded(cert), "client-key-data": encoded(key)}
    with TlsServer(hello, certificate, ask=True) as server:
        config = {
            "clusters": [{"name": "c", "cluster": {**cluster, "server": server.url}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        }
        access = parse_kubeconfig(json.dumps(config), "kubeconfig", cert.parent)
        with Rest(access) as rest:
            assert rest.request("GET", "/") == b'{"hello": "you"}'


def closing(request):
    return [answer({}, extra="Connection: close\r\n")]


def test_renewed_files_count_from_the_next_connection_on(certificate, tmp_path):
    other = make_certificate(tmp_path, "other")
    ca, cert, key = tmp_path / "ca", tmp_path / "client", tmp_path / "client-key"
    shutil.copy(other[0], ca)
    for source, target in zip(other, (cert, key), strict=True):
        shutil.copy(source, target)
    access = {"ca_file": ca, "cert_file": cert, "key_file": key}
    with (
        TlsServer(closing, certificate, ask=True, trust=[certificate[0], other[0]]) as server,
        Rest(Access(server=server.url, **access)) as rest,
    ):
        with pytest.raises(Unreachable):
            rest.request("GET", "/")
        shutil.copy(certificate[0], ca)
        rest.request("GET", "/")
        # Half of the new pair is there: the old one still counts.
        shutil.copy(certificate[0], cert)
        rest.request("GET", "/")
        shutil.copy(certificate[1], key)
        rest.request("GET", "/")
        assert server.clients == ["other", "other", "api"]


def test_a_trusted_server_with_another_name_is_refused(certificate, tmp_path):
    elsewhere = make_certificate(tmp_path, "api", "DNS:api,IP:127.0.0.2")
    with (
        TlsServer(hello, elsewhere) as server,
        Rest(Access(server=server.url, ca_file=elsewhere[0])) as rest,
        pytest.raises(Unreachable, match="mismatch"),
    ):
        rest.request("GET", "/")

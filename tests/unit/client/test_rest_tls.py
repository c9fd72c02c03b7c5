"""HTTPS: trust, client certificates, and closing a blocked read."""

import contextlib
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from scripted_server import CHUNKED, ScriptedServer, answer

from kproxy.api import core
from kproxy.client.kubeconfig import Access
from kproxy.client.rest import Rest, Unreachable
from kproxy.errors import UsageError

pytestmark = pytest.mark.needs_tool("openssl")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Return a self-signed certificate and its key, as files."""
    directory = tmp_path_factory.mktemp("tls")
    cert, key = directory / "cert.pem", directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
               "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=api",
               "-addext", "subjectAltName=IP:127.0.0.1,DNS:api"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


class TlsServer(ScriptedServer):
    """Speaks TLS; asks for a client certificate if told to."""

    def __init__(self, reply, certificate, *, ask=False):
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(*certificate)
        if ask:
            self._tls.load_verify_locations(certificate[0])
            self._tls.verify_mode = ssl.CERT_REQUIRED
        super().__init__(reply)
        self.url = self.url.replace("http:", "https:")

    def _serve(self, connection, number):
        with contextlib.suppress(OSError), connection:
            secure = self._tls.wrap_socket(connection, server_side=True)
            self._open.append(secure)
            super()._serve(secure, number)


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
        assert reading.wait(5)
        rest.close()
        thread.join(5)
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
            thread.join(5)
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

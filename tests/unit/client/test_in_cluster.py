"""In a pod: the service account's token, which is renewed in place, and the cluster's own CA."""

import shutil
import threading

import pytest
from scripted_server import CHUNKED, LAST_CHUNK, answer, status
from tls_server import TlsServer, make_certificate

from kproxy.api import core
from kproxy.cli import nodeproxy
from kproxy.client import kubeconfig
from kproxy.client.backoff import BackoffPolicy
from kproxy.client.informer import Informer
from kproxy.client.rest import Rest, Unreachable

pytestmark = pytest.mark.needs_tool("openssl")

QUICK = BackoffPolicy(initial=0.001, maximum=0.01, refused=0.001, refused_maximum=0.01)
PATIENCE_S = 60


class Api:
    """Takes the token of the day, and tells which ones it was given."""

    def __init__(self):
        self.wanted = "first"
        self.refused = threading.Semaphore(0)
        self.taken = threading.Semaphore(0)
        self.accepted = []
        self.end = threading.Event()

    def __call__(self, request):
        token = request.headers["authorization"].removeprefix("Bearer ")
        if token != self.wanted:
            self.refused.release()
            return [status(401, "Unauthorized", "the token has expired")]
        self.accepted.append(token)
        self.taken.release()
        if "watch" in request.query:
            return self.stream()
        return [answer({"metadata": {"resourceVersion": "1"}, "items": []})]

    def stream(self):
        yield CHUNKED
        self.end.wait(PATIENCE_S)
        yield LAST_CHUNK


@pytest.fixture
def account(tmp_path, monkeypatch):
    """Return the directory of a service account; the server is told by the environment."""
    (tmp_path / "token").write_text("first\n")
    monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    return tmp_path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"), "api")


def test_a_renewed_token_is_used_when_the_old_one_is_refused(account, certificate, monkeypatch):
    shutil.copy(certificate[0], account / "ca.crt")
    api = Api()
    with TlsServer(api, certificate) as server:
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
        rest = Rest(nodeproxy.api_access("", ""))
        informer = Informer(rest, core.Service, policy=QUICK)
        informer.start()
        try:
            assert informer.wait_synced(PATIENCE_S)
            api.wanted = "second"
            api.end.set()
            for _ in range(3):
                assert api.refused.acquire(timeout=PATIENCE_S), "it asks with the old token"
            while api.taken.acquire(blocking=False):
                pass  # all that came before the first refusal
            seen = len(api.accepted)
            # Kubelets replace the file by a link that is turned.
            (account / "new").write_text("second\n")
            (account / "new").rename(account / "token")
            assert api.taken.acquire(timeout=PATIENCE_S)
            assert len(api.accepted) > seen
            assert api.accepted[-1] == "second"
        finally:
            informer.stop()


def test_the_server_must_be_the_clusters(account, certificate, tmp_path, monkeypatch):
    other = make_certificate(tmp_path, "other")
    shutil.copy(other[0], account / "ca.crt")
    with TlsServer(Api(), certificate) as server:
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
        with Rest(nodeproxy.api_access("", "")) as rest, pytest.raises(Unreachable):
            rest.list(core.Service)
        assert server.requests == [], "the token was told to nobody"

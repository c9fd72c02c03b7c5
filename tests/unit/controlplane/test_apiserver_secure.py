"""The API server over TLS: who is let in, tokens, logs and exec through to a kubelet."""

import base64
import contextlib
import io
import json
import os
import socket
import ssl
import threading
import time

import pytest

from kproxy import errors, logs
from kproxy.api import catalog, core, kinds
from kproxy.client import kubeconfig, rest
from kproxy.controlplane import addresses, apiserver, security
from kproxy.controlplane.access import kubeconfigs, tokens
from kproxy.controlplane.serving import conversation


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pki")
    made = kubeconfigs.Credentials(directory, ["127.0.0.1"], "https://127.0.0.1:1")
    made.node_server("n1", ["127.0.0.1"])
    return made


@pytest.fixture
def server(secrets):
    log = logs.Log("apiserver", stream=io.StringIO())
    secured = security.Security.from_directory(
        secrets.directory, tuple(secrets.servers), secrets.url
    )
    cidrs = addresses.parse_cidrs("10.96.0.0/16")
    made = apiserver.start(("127.0.0.1", 0), cidrs, log, security=secured)
    thread = threading.Thread(target=made.serve)
    thread.start()
    yield made
    made.stop()
    thread.join()


@pytest.fixture
def client_of(server, secrets):
    """Return a client with the credentials of a kubeconfig, or with a token."""
    url = f"https://127.0.0.1:{server.server_address[1]}"
    with contextlib.ExitStack() as clients:

        def make(path=None, **access):
            if path is None:
                made = kubeconfig.Access(server=url, ca_file=secrets.ca_file, **access)
            else:
                made = kubeconfig.load_kubeconfig(path, server=url)
            return clients.enter_context(rest.Rest(made))

        yield make


@pytest.fixture
def admin(client_of, secrets):
    return client_of(secrets.kubeconfig(kubeconfigs.ADMIN))


def post(client, kind, namespace, obj, name="", part=""):
    path = kind.path(namespace, name, part)
    return json.loads(client.request("POST", path, body=json.dumps(obj).encode()))


def refused(client, *request, **options):
    with pytest.raises(errors.ApiError) as caught:
        client.request(*request, **options)
    return caught.value.code, caught.value.message


def pod(name, node=""):
    spec = {"containers": [{"name": "c"}]} | ({"nodeName": node} if node else {})
    return {"metadata": {"name": name}, "spec": spec}


def test_an_admin_is_let_in(admin):
    assert len(admin.list(core.Namespace).items) == 4


def test_nobody_sees_only_whether_it_is_healthy(client_of):
    nobody = client_of()
    assert nobody.request("GET", "/healthz") == b"ok"
    assert b"gitVersion" in nobody.request("GET", "/version")
    code, message = refused(nobody, "GET", "/api/v1/pods")
    assert code == 403
    assert 'User "system:anonymous" cannot list resource "pods"' in message
    assert refused(nobody, "GET", "/api")[0] == 403


def test_a_wrong_token_is_401_and_no_body_is_read(client_of):
    stranger = client_of(token="wrong")
    assert refused(stranger, "GET", "/api/v1/pods")[0] == 401
    big = b"x" * 1_000_000
    assert refused(stranger, "POST", "/api/v1/namespaces", body=big)[0] == 401


def test_a_certificate_of_another_authority_is_no_proof(client_of, tmp_path, server, secrets):
    other = kubeconfigs.Credentials(tmp_path, [], "https://127.0.0.1:1")
    access = kubeconfig.load_kubeconfig(other.kubeconfig(kubeconfigs.ADMIN))
    stranger = client_of(cert_data=access.cert_data, key_data=access.key_data)
    with pytest.raises(rest.Unreachable):
        stranger.request("GET", "/api/v1/pods")


def test_a_node_may_do_what_is_its_own(admin, client_of, secrets):
    node = client_of(secrets.node_kubeconfig("n1"))
    post(node, kinds.NODE, "", {"metadata": {"name": "n1"}})
    lease = {"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1"}}
    post(node, catalog.LEASE, "kube-node-lease", lease)
    with pytest.raises(errors.ApiError) as caught:
        post(node, kinds.NODE, "", {"metadata": {"name": "n2"}})
    assert caught.value.code == 403
    post(admin, catalog.POD, "default", pod("mine", "n1"))
    post(admin, catalog.POD, "default", pod("other", "n2"))
    running = b'{"status":{"phase":"Running"}}'
    options = {"body": running, "content_type": rest.MERGE_PATCH}
    node.request("PATCH", catalog.POD.path("default", "mine", "status"), **options)
    other = catalog.POD.path("default", "other", "status")
    code, message = refused(node, "PATCH", other, **options)
    assert code == 403
    assert "can only access pods with spec.nodeName set to itself" in message
    query = {"fieldSelector": "spec.nodeName=n1"}
    listed = json.loads(node.request("GET", catalog.POD.path(), query=query))
    assert [item["metadata"]["name"] for item in listed["items"]] == ["mine"]
    assert refused(node, "GET", catalog.POD.path())[0] == 403
    assert refused(node, "GET", catalog.SECRET.path("default", "x"))[0] == 403


def test_a_node_gets_tokens_for_its_pods_and_keeps_its_taints(admin, client_of, secrets):
    node = client_of(secrets.node_kubeconfig("n1"))
    post(node, kinds.NODE, "", {"metadata": {"name": "n1"}})
    tainted = b'{"spec":{"taints":[{"key":"a","effect":"NoSchedule"}]}}'
    options = {"body": tainted, "content_type": rest.MERGE_PATCH}
    assert refused(node, "PATCH", kinds.NODE.path("", "n1"), **options)[0] == 403
    meta = post(admin, catalog.POD, "default", pod("mine", "n1"))["metadata"]
    ref = {"kind": "Pod", "name": "mine", "uid": meta["uid"]}
    spec = {"spec": {"boundObjectRef": ref}}
    given = post(node, catalog.SERVICE_ACCOUNT, "default", spec, "default", "token")
    holder = client_of(token=given["status"]["token"])
    assert b"APIGroupList" in holder.request("GET", "/apis")
    path = catalog.SERVICE_ACCOUNT.path("default", "default", "token")
    assert refused(node, "POST", path, body=b"{}")[0] == 403
    gone = json.dumps({"gracePeriodSeconds": 0}).encode()
    admin.request("DELETE", catalog.POD.path("default", "mine"), body=gone)
    admin.list(core.Namespace)  # the memory has seen it
    assert refused(holder, "GET", "/apis")[0] == 401


def test_a_token_of_a_service_account_lets_in_while_the_account_lives(admin, client_of):
    account = catalog.SERVICE_ACCOUNT
    post(admin, account, "kube-system", {"metadata": {"name": "kube-proxy"}})
    answer = post(admin, account, "kube-system", {"spec": {}}, "kube-proxy", "token")
    proxy = client_of(token=answer["status"]["token"])
    assert proxy.list(core.Service).items == []
    assert refused(proxy, "GET", catalog.SECRET.path())[0] == 403
    review = {"spec": {"resourceAttributes": {"verb": "list", "resource": "services"}}}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    asked = json.loads(proxy.request("POST", path, body=json.dumps(review).encode()))
    assert asked["status"]["allowed"]
    token = {"spec": {"token": answer["status"]["token"]}}
    path = "/apis/authentication.k8s.io/v1/tokenreviews"
    told = json.loads(admin.request("POST", path, body=json.dumps(token).encode()))["status"]
    assert told["user"]["username"] == "system:serviceaccount:kube-system:kube-proxy"
    admin.request("DELETE", account.path("kube-system", "kube-proxy"))
    admin.list(core.Namespace)  # accounts are looked up in memory; a list waits for the newest
    assert refused(proxy, "GET", kinds.SERVICE.path())[0] == 401


def test_a_token_that_has_expired_is_renewed_by_replacing_its_file(client_of, secrets, tmp_path):
    clock = [time.time() - 1000]
    signer = tokens.Signer(secrets.token_key().read_text().strip(), lambda: clock[0])

    def token(uid):
        return signer.sign("kube-system", "default", uid, 600)[0]

    admin = client_of(secrets.kubeconfig(kubeconfigs.ADMIN))
    path = catalog.SERVICE_ACCOUNT.path("kube-system", "default")
    uid = json.loads(admin.request("GET", path))["metadata"]["uid"]
    file = tmp_path / "token"
    file.write_text(token(uid))
    client = client_of(token_file=file)
    assert refused(client, "GET", "/apis")[0] == 401
    clock[0] += 999
    file.write_text(token(uid))
    assert b"APIGroupList" in client.request("GET", "/apis")
    file.write_text(token("another account's"))
    assert refused(client, "GET", "/apis")[0] == 401


def test_a_handshake_that_never_ends_holds_up_nobody(server, admin, monkeypatch):
    monkeypatch.setattr(conversation, "HANDSHAKE_SECONDS", 0.2)
    with socket.create_connection(server.server_address, timeout=10) as stalled:
        stalled.sendall(b"\x16\x03\x01")
        assert len(admin.list(core.Namespace).items) == 4
        assert stalled.recv(1000) in (b"", b"\x15\x03\x01\x00\x02\x02\x32")


def test_plain_http_to_a_tls_port_holds_up_nobody(server, admin):
    with socket.create_connection(server.server_address, timeout=10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while plain.recv(1000):
                pass
    assert len(admin.list(core.Namespace).items) == 4


class Kubelet(threading.Thread):
    """A kubelet that answers each connection with what a function makes of its request."""

    def __init__(self, secrets, answer):
        super().__init__()
        certificate, key = secrets.node_server("n1", ["127.0.0.1"])
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.context.load_verify_locations(secrets.ca_file)
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.answer = answer
        self.requests = []
        self.is_over = threading.Event()

    def run(self):
        while True:
            connection, _ = self.listener.accept()
            with connection:
                if self.is_over.is_set():
                    return
                with contextlib.suppress(OSError):
                    self.serve(connection)

    def serve(self, connection):
        with self.context.wrap_socket(connection, server_side=True) as secured:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                piece = secured.recv(1)
                if not piece:
                    return
                head += piece
            self.requests.append(head.decode())
            self.answer(secured)

    def close(self):
        self.is_over.set()
        with socket.create_connection(self.listener.getsockname()):
            pass
        self.join()
        self.listener.close()


@contextlib.contextmanager
def kubelet(secrets, admin, answer):
    made = Kubelet(secrets, answer)
    made.start()
    port = made.listener.getsockname()[1]
    node = {
        "metadata": {"name": "n1"},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        },
    }
    post(admin, kinds.NODE, "", node)
    post(admin, catalog.POD, "default", pod("web", "n1"))
    try:
        yield made
    finally:
        made.close()


def test_logs_come_from_the_kubelet(secrets, admin):
    def answer(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello\nworld\n")

    with kubelet(secrets, admin, answer) as made:
        query = {"tailLines": "2", "timestamps": "true", "insecure": "x"}
        path = catalog.POD.path("default", "web", "log")
        assert admin.request("GET", path, query=query) == b"hello\nworld\n"
        code, message = refused(admin, "GET", path, query={"container": "nothing"})
        assert (code, "is not valid for pod" in message) == (400, True)
    first = made.requests[0].split("\r\n")[0]
    assert first == "GET /containerLogs/default/web/c?tailLines=2&timestamps=true HTTP/1.1"


def test_a_log_that_is_followed_comes_bit_by_bit_and_ends_with_its_client(server, secrets, admin):
    is_over = threading.Event()

    def answer(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b"4\r\none\n\r\n4\r\ntwo\n\r\n")
        connection.sendall(b"6\r\nthr")
        connection.sendall(b"ee\n\r\n")
        assert connection.recv(1) == b""
        is_over.set()

    with kubelet(secrets, admin, answer), raw(server, secrets) as connection:
        path = f"{catalog.POD.path('default', 'web', 'log')}?follow=true"
        connection.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        got = b""
        while b"ee\n" not in got:
            got += connection.recv(1000)
        assert got.index(b"one\n") < got.index(b"two\n") < got.index(b"thr")
        connection.close()
        assert is_over.wait(10)


def test_what_a_kubelet_refuses_is_told(secrets, admin):
    def answer(connection):
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\nno logs")

    with kubelet(secrets, admin, answer):
        path = catalog.POD.path("default", "web", "log")
        assert refused(admin, "GET", path) == (404, "no logs")


def test_a_kubelet_that_is_not_there(secrets, admin):
    with kubelet(secrets, admin, lambda connection: None) as made:
        pass
    assert made.requests == []
    code, message = refused(admin, "GET", catalog.POD.path("default", "web", "log"))
    assert (code, "kubelet of node n1 cannot be reached" in message) == (502, True)
    post(admin, catalog.POD, "default", pod("unbound"))
    code, message = refused(admin, "GET", catalog.POD.path("default", "unbound", "log"))
    assert (code, "does not have a host" in message) == (400, True)


def exec_request(upgrade):
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        "POST" if upgrade == "SPDY/3.1" else "GET",
        "/api/v1/namespaces/default/pods/web/exec?command=ls&command=-l&container=c",
        f"Host: x\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\nSec-WebSocket-Key: {key}\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n",
    )


@contextlib.contextmanager
def raw(server, secrets):
    access = kubeconfig.load_kubeconfig(secrets.kubeconfig(kubeconfigs.ADMIN))
    from kproxy.client.tls import TlsContexts

    context = TlsContexts(access).current()
    with (
        socket.create_connection(server.server_address, timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        yield secured


def test_exec_is_a_tunnel_to_the_kubelet(server, secrets, admin):
    def answer(connection):
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
        while data := connection.recv(1000):
            connection.sendall(data.upper())

    with kubelet(secrets, admin, answer) as made, raw(server, secrets) as connection:
        method, path, headers = exec_request("websocket")
        connection.sendall(f"{method} {path} HTTP/1.1\r\n{headers}\r\n".encode())
        stream = connection.makefile("rb")
        assert stream.readline().startswith(b"HTTP/1.1 101")
        while stream.readline() != b"\r\n":
            pass
        for word in (b"hello\n", b"again\n"):
            connection.sendall(word)
            assert stream.readline() == word.upper()
        stream.close()
        connection.close()
    first, *rest_of_head = made.requests[0].split("\r\n")
    assert first == "GET /exec/default/web/c?command=ls&command=-l HTTP/1.1"
    assert "sec-websocket-protocol: v5.channel.k8s.io" in rest_of_head


def test_an_older_kubectl_is_told_what_to_use(server, secrets, admin):
    with kubelet(secrets, admin, lambda connection: None), raw(server, secrets) as connection:
        method, path, headers = exec_request("SPDY/3.1")
        connection.sendall(f"{method} {path} HTTP/1.1\r\n{headers}\r\n".encode())
        answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"kproxy lab exec web" in answer
        state = {"waiting": {"reason": "ErrImagePull"}}
        status = {"containerStatuses": [{"name": "c", "state": state}]}
        admin.request(
            "PATCH",
            catalog.POD.path("default", "web", "status"),
            body=json.dumps({"status": status}).encode(),
            content_type=rest.MERGE_PATCH,
        )
        connection.sendall(f"{method} {path} HTTP/1.1\r\n{headers}\r\n".encode())
        assert b"is not running" in connection.recv(4096)


def test_who_monitors_reads_metrics_and_watches_but_writes_nothing(client_of, secrets):
    who = client_of(secrets.kubeconfig(kubeconfigs.MONITORING))
    assert b"apiserver_open_connections" in who.request("GET", "/metrics")
    assert b"SliceList" in who.request("GET", "/apis/discovery.k8s.io/v1/endpointslices")
    assert refused(who, "GET", "/api/v1/secrets")[0] == 403
    assert refused(who, "DELETE", kinds.NODE.path("", "n1"))[0] == 403
    prober = client_of(secrets.kubeconfig(kubeconfigs.PROBER))
    assert refused(prober, "GET", "/metrics")[0] == 403
    assert prober.request("GET", kinds.SERVICE.path(""))

"""Logs and exec through the API server over TLS to a kubelet."""

import base64
import contextlib
import json
import os
import socket
import ssl
import threading

from secure_server import admin, client_of, pod, post, refused, secrets, server

from kproxy.api import catalog, kinds
from kproxy.client import kubeconfig, rest
from kproxy.controlplane.access import kubeconfigs

__all__ = ["admin", "client_of", "secrets", "server"]


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
        assert is_over.wait(60)


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
        socket.create_connection(server.server_address, timeout=60) as plain,
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

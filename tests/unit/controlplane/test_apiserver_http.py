"""The API server over real connections on loopback: keep-alive, watches, bad and slow clients."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from child_processes import DIES_WITH_US

from kproxy import errors, logs
from kproxy.api import core, kinds
from kproxy.client import kubeconfig, rest
from kproxy.controlplane import addresses, apiserver

MODULE = "kproxy.controlplane.apiserver"
FIRST = ["default", "kube-node-lease", "kube-public", "kube-system"]


@pytest.fixture
def server():
    log = logs.Log("apiserver", stream=io.StringIO())
    made = apiserver.start(("127.0.0.1", 0), addresses.parse_cidrs("10.96.0.0/16"), log)
    thread = threading.Thread(target=made.serve)
    thread.start()
    yield made
    made.stop()
    thread.join()


@pytest.fixture
def client(server):
    port = server.server_address[1]
    with rest.Rest(kubeconfig.Access(server=f"http://127.0.0.1:{port}")) as made:
        yield made


@pytest.fixture
def raw(server):
    with socket.create_connection(server.server_address[:2], timeout=60) as connection:
        yield connection


def body(name: str) -> bytes:
    return json.dumps({"metadata": {"name": name}}).encode()


def answer(connection: socket.socket) -> tuple[int, dict]:
    """Read one answer with a Content-Length."""
    stream = connection.makefile("rb")
    code = int(stream.readline().split()[1])
    length = 0
    while (line := stream.readline().strip()) != b"":
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return code, json.loads(stream.read(length))


def test_the_client_of_the_proxy_can_list_and_watch(client):
    page = client.list(core.Namespace)
    assert [item.metadata.name for item in page.items] == FIRST
    with client.watch(core.Namespace, resource_version=page.resource_version) as lines:
        client.request("POST", kinds.NAMESPACE.path(), body=body("demo"))
        line = json.loads(next(iter(lines)))
    assert (line["type"], line["object"]["metadata"]["name"]) == ("ADDED", "demo")


@pytest.mark.parametrize("path", ["/", "/version", "/api", "/apis", "/api/v1"])
def test_what_is_not_an_object_is_answered(client, path):
    json.loads(client.request("GET", path))


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/livez"])
def test_health_is_text(client, path):
    assert client.request("GET", path) == b"ok"


def test_discovery_names_every_kind(client):
    groups = json.loads(client.request("GET", "/apis"))["groups"]
    versions = [group["preferredVersion"]["groupVersion"] for group in groups]
    paths = ["/api/v1", *(f"/apis/{version}" for version in versions)]
    found = set()
    for path in paths:
        resources = json.loads(client.request("GET", path))["resources"]
        found |= {resource["kind"] for resource in resources}
    assert {kind.name for kind in kinds.known()} <= found


def test_errors_arrive_as_what_they_are(client):
    path = kinds.NAMESPACE.path()
    client.request("POST", path, body=body("demo"))
    with pytest.raises(errors.Conflict):
        client.request("POST", path, body=body("demo"))
    with pytest.raises(errors.ApiError) as caught:
        client.request("GET", kinds.NAMESPACE.path(name="nowhere"))
    assert (caught.value.code, caught.value.reason) == (404, "NotFound")
    with pytest.raises(errors.ApiError) as caught:
        client.request("PUT", path)
    assert caught.value.code == 405
    with pytest.raises(errors.ApiError) as caught:
        client.request("PATCH", kinds.NAMESPACE.path(name="demo"), body=b"{}")
    assert caught.value.code == 415


def test_two_requests_on_one_connection(raw):
    for _ in range(2):
        raw.sendall(b"GET /api/v1/namespaces/default HTTP/1.1\r\nHost: x\r\n\r\n")
        code, obj = answer(raw)
        assert (code, obj["metadata"]["name"]) == (200, "default")


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"BREW /api/v1/pods HTTP/1.1\r\n\r\n", 501),
        (b"POST /api/v1/namespaces HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"POST /api/v1/namespaces HTTP/1.1\r\nContent-Length: x\r\n\r\n", 411),
        (b"POST /api/v1/namespaces HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 411),
        (b"POST /api/v1/namespaces HTTP/1.1\r\nContent-Length: 1\r\n\r\n{", 400),
    ],
)
def test_bad_requests_get_a_status_and_hurt_nobody(raw, client, request_, code):
    raw.sendall(request_)
    got, obj = answer(raw)
    assert (got, obj["kind"], obj["code"]) == (code, "Status", code)
    assert len(client.list(core.Namespace).items) == 4


def test_half_a_request_holds_up_nobody(raw, client):
    raw.sendall(b"POST /api/v1/namespaces HTTP/1.1\r\nContent-Length: 50\r\n\r\n{")
    client.request("POST", kinds.NAMESPACE.path(), body=body("demo"))
    raw.close()
    names = [item.metadata.name for item in client.list(core.Namespace).items]
    assert names == sorted([*FIRST, "demo"])


def test_a_watcher_that_does_not_read_holds_up_nobody(raw, client):
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.sendall(b"GET /api/v1/namespaces?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    patch = {"metadata": {"annotations": {"long": "x" * 200_000}}}
    for number in range(50):
        patch["metadata"]["annotations"]["number"] = str(number)
        client.request(
            "PATCH",
            kinds.NAMESPACE.path(name="default"),
            body=json.dumps(patch).encode(),
            content_type=rest.MERGE_PATCH,
        )
    raw.close()
    obj = json.loads(client.request("GET", kinds.NAMESPACE.path(name="default")))
    assert obj["metadata"]["annotations"]["number"] == "49"


def test_two_clients_that_write_the_same_version_conflict(client):
    path = kinds.NAMESPACE.path(name="default")
    read = client.request("GET", path)
    first = json.loads(read)
    first["metadata"]["labels"]["writer"] = "1"
    client.request("PUT", path, body=json.dumps(first).encode())
    first["metadata"]["labels"]["writer"] = "2"
    with pytest.raises(errors.Conflict):
        client.request("PUT", path, body=json.dumps(first).encode())


def test_stopping_ends_watches(server, client):
    with client.watch(core.Namespace, resource_version="") as lines:
        told = iter(lines)
        for _ in FIRST:
            next(told)
        server.stop()
        assert list(told) == []


def test_sigterm_ends_the_process_cleanly():
    process = subprocess.Popen(
        [*DIES_WITH_US, sys.executable, "-m", MODULE, "--insecure", "--bind", "127.0.0.1:0"],
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    with process.stderr:
        assert json.loads(process.stderr.readline())["msg"] == "listening"
        os.kill(process.pid, signal.SIGTERM)
        assert json.loads(process.stderr.readline())["msg"] == "stopped"
    assert process.wait(60) == 0


def test_a_bad_address_is_one_line_and_exit_code_2():
    done = subprocess.run(
        [sys.executable, "-m", MODULE, "--insecure", "--bind", "nowhere"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert "address:port" in json.loads(done.stderr)["error"]

"""Half a request, slow clients, too many of them: the API server stays up and bounded."""

import contextlib
import io
import json
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import ports
import pytest
from child_processes import DIES_WITH_US
from exposition_parser import parse

from kproxy import errors, logs
from kproxy.api import core, kinds
from kproxy.client import kubeconfig, rest
from kproxy.controlplane import addresses, apiserver, watches
from kproxy.controlplane.serving import http1
from kproxy.controlplane.serving.limits import Limits
from kproxy.controlplane.serving.metrics import Metrics
from netns.wait import wait_until

NAMESPACE = b'{"metadata": {"name": "demo"}}'
MODULE = "kproxy.controlplane.apiserver"
WATCHES = 1000
MOST_KIB_PER_WATCH = 128


@contextlib.contextmanager
def serving(limits=None):
    log = logs.Log("apiserver", stream=io.StringIO())
    cidrs = addresses.parse_cidrs("10.96.0.0/16")
    made = apiserver.start(("127.0.0.1", 0), cidrs, log, limits=limits)
    thread = threading.Thread(target=made.serve)
    thread.start()
    try:
        yield made
    finally:
        made.stop()
        thread.join()


def client_of(server):
    port = server.server_address[1]
    return rest.Rest(kubeconfig.Access(server=f"http://127.0.0.1:{port}"))


@pytest.fixture
def server():
    with serving() as made:
        yield made


@pytest.fixture
def client(server):
    with client_of(server) as made:
        yield made


@pytest.fixture
def raw(server):
    with socket.create_connection(server.server_address, timeout=60) as connection:
        yield connection


def code_of(connection):
    stream = connection.makefile("rb")
    code = int(stream.readline().split()[1])
    stream.close()
    return code


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nX-Long: " + b"y" * 100_000, 431),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nno header\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbad : x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"GET /healthz\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (
            b"POST /api/v1/namespaces HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            400,
        ),
        (
            b"POST /api/v1/namespaces HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
            413,
        ),
        (
            b"POST /api/v1/namespaces HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Length: 3\r\n\r\n",
            411,
        ),
    ],
)
def test_what_is_no_request_is_answered_and_hurts_nobody(raw, client, request_, code):
    with contextlib.suppress(ConnectionError):
        raw.sendall(request_)
    assert code_of(raw) == code
    assert client.request("GET", "/healthz") == b"ok"


def test_a_body_in_chunks(raw, client):
    body = json.dumps({"metadata": {"name": "demo"}}).encode()
    head = b"POST /api/v1/namespaces HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw.sendall(head + b"5;x=y\r\n" + body[:5] + b"\r\n" + http1.chunk(body[5:]) + b"0\r\n\r\n")
    assert code_of(raw) == 201
    assert "demo" in [item.metadata.name for item in client.list(core.Namespace).items]


def test_who_expects_to_be_told_to_go_on_is_told(raw):
    body = json.dumps({"metadata": {"name": "demo"}}).encode()
    head = f"POST /api/v1/namespaces HTTP/1.1\r\nContent-Length: {len(body)}\r\n"
    raw.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
    assert raw.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    raw.sendall(body)
    assert code_of(raw) == 201


def test_two_requests_in_one_segment(raw):
    raw.sendall(
        b"GET /healthz HTTP/1.1\r\n\r\nHEAD /healthz HTTP/1.1\r\nConnection: close\r\n\r\n"
    )
    data = b""
    while more := raw.recv(1000):
        data += more
    assert data.count(b"HTTP/1.1 200 OK") == 2
    assert data.count(b"\r\n\r\nok") == 1


@pytest.mark.parametrize(
    "part",
    [
        b"GET /healthz HTT",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n",
        b"POST /api/v1/namespaces HTTP/1.1\r\nContent-Length: 50\r\n\r\n{",
        b"POST /api/v1/namespaces HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ],
)
def test_a_slow_client_is_given_up(monkeypatch, part):
    with serving() as made, client_of(made) as client:
        with (
            monkeypatch.context() as hurry,
            socket.create_connection(made.server_address, timeout=60) as slow,
        ):
            hurry.setattr(http1, "HEAD_SECONDS", 0.1)
            hurry.setattr(http1, "BODY_SECONDS", 0.1)
            with contextlib.suppress(ConnectionError):  # we were the slower one, too
                slow.sendall(part)
                assert slow.recv(1000) == b""
        assert len(client.list(core.Namespace).items) == 4


def test_too_many_requests_are_turned_away():
    metrics = Metrics()
    limits = Limits(metrics, requests=1)
    with serving(limits) as made, client_of(made) as client, limits.request():
        with pytest.raises(errors.ApiError) as caught:
            client.request("GET", "/healthz")
        assert (caught.value.code, caught.value.retry_after) == (429, 1.0)
    assert b'apiserver_rejected_total{reason="requests"} 1' in metrics.text()


def test_too_many_connections_are_turned_away():
    limits = Limits(Metrics(), connections=2)
    with serving(limits) as made, client_of(made) as client:
        client.request("GET", "/healthz")
        with (
            socket.create_connection(made.server_address, timeout=60) as second,
            socket.create_connection(made.server_address, timeout=60) as third,
        ):
            assert third.recv(1) == b""
            second.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert code_of(second) == 200


def test_metrics_tell_what_was_asked(client):
    client.request("GET", "/api/v1/pods")
    with pytest.raises(errors.ApiError):
        client.request("GET", "/api/v1/namespaces/default/pods/nowhere")
    text = client.request("GET", "/metrics").decode()
    labels = 'group="",version="v1",resource="pods",subresource=""'
    assert f'apiserver_request_total{{verb="LIST",{labels},code="200"}} 1' in text
    assert f'apiserver_request_total{{verb="GET",{labels},code="404"}} 1' in text
    assert 'apiserver_request_duration_seconds_count{verb="LIST",resource="pods"} 1' in text
    assert "apiserver_open_connections 1" in text


def test_metrics_tell_of_the_store(client):
    client.request("GET", "/api/v1/pods")
    made = json.loads(client.request("POST", "/api/v1/namespaces", body=NAMESPACE))
    client.request("GET", "/api/v1/namespaces")  # which waits until memory is as new
    families = parse(client.request("GET", "/metrics").decode())
    version = float(made["metadata"]["resourceVersion"])
    cached = families["apiserver_watch_cache_resource_version"].samples
    assert cached[of("apiserver_watch_cache_resource_version", resource="namespaces")] == version
    assert cached[of("apiserver_watch_cache_resource_version", resource="pods")] <= version
    stored = families["apiserver_storage_objects"].samples
    assert stored[of("apiserver_storage_objects", resource="namespaces")] == 5
    requests = families["etcd_requests_total"].samples
    assert requests[of("etcd_requests_total", operation="create", type="namespaces")] == 5
    assert families["kproxy_watch_cache_followed"].samples["kproxy_watch_cache_followed", ()] == 1
    heard = "kproxy_watch_cache_last_event_timestamp_seconds"
    assert time.time() - 60 < families[heard].samples[heard, ()] <= time.time()
    assert families["process_start_time_seconds"].samples


def of(name, **labels):
    return name, tuple(sorted(labels.items()))


def test_a_watch_is_counted_while_it_lasts(server, client):
    gauge = 'apiserver_longrunning_requests{verb="WATCH",resource="namespaces"}'
    watchers = 'apiserver_registered_watchers{group="",version="v1",kind="Namespace"}'
    with client.watch(core.Namespace, resource_version="") as lines:
        next(iter(lines))
        text = client.request("GET", "/metrics").decode()
        assert f"{gauge} 1" in text
        assert f"{watchers} 1" in text


def test_a_client_that_is_gone_ends_its_watch(server, client, monkeypatch):
    monkeypatch.setattr(watches, "TICK_SECONDS", 0.05)
    gauge = 'apiserver_longrunning_requests{verb="WATCH",resource="pods"}'
    with socket.create_connection(server.server_address, timeout=60) as raw:
        raw.sendall(b"GET /api/v1/pods?watch=1 HTTP/1.1\r\n\r\n")
        assert raw.recv(17) == b"HTTP/1.1 200 OK\r\n"
    wait_until(
        lambda: f"{gauge} 0" in client.request("GET", "/metrics").decode(),
        60,
        "the watch of a client that is gone goes on",
        interval=0.05,
    )


def resident_kib(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0])


@pytest.fixture
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WATCHES + 200
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"only {hard} descriptors are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_idle_watches_are_bounded_in_memory(many_descriptors):
    place = f"127.0.0.1:{ports.unused()}"
    process = subprocess.Popen(
        [*DIES_WITH_US, sys.executable, "-m", MODULE, "--insecure", "--bind", place],
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    with process, process.stderr, contextlib.ExitStack() as stack:
        assert json.loads(process.stderr.readline())["msg"] == "listening"
        client = stack.enter_context(rest.Rest(kubeconfig.Access(server=f"http://{place}")))
        before = resident_kib(process.pid)
        opened = [
            iter(stack.enter_context(client.watch(core.Namespace, resource_version="")))
            for _ in range(WATCHES)
        ]
        for lines in opened:
            next(lines)
        grown = resident_kib(process.pid) - before
        body = json.dumps({"metadata": {"name": "demo"}}).encode()
        client.request("POST", kinds.NAMESPACE.path(), body=body)
        for lines in opened:
            while json.loads(next(lines))["object"]["metadata"]["name"] != "demo":
                pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert grown < WATCHES * MOST_KIB_PER_WATCH, f"{grown} KiB"

"""What passes through a connection: bounded, and handed to nobody but its addressee."""

import contextlib
import io
import json
import socket
import threading
import types

import pytest

from kproxy import errors, logs
from kproxy.controlplane import addresses, apiserver
from kproxy.controlplane.access import authentication, identity
from kproxy.controlplane.serving import http1, kubelets

ADMIN = identity.authenticated("admin", (identity.ADMINS,))
CHUNKED = b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked"


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    theirs.settimeout(60)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def server():
    log = logs.Log("apiserver", stream=io.StringIO())
    made = apiserver.start(("127.0.0.1", 0), addresses.parse_cidrs("10.96.0.0/16"), log)
    thread = threading.Thread(target=made.serve)
    thread.start()
    yield made
    made.stop()
    thread.join()


def asked(server, head, body=b""):
    """Return the head of the answer to a request, and the answer's object."""
    with socket.create_connection(server.server_address, timeout=60) as connection:
        connection.sendall(head + b"\r\nConnection: close\r\n\r\n" + body)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    top, _, rest = answer.partition(b"\r\n\r\n")
    return top.decode(), json.loads(rest)


class SlowReader:
    """A connection that takes a little at a time, and a clock that it moves on."""

    def __init__(self, takes, seconds):
        self.takes, self.seconds, self.now, self.taken = takes, seconds, 0.0, 0

    def settimeout(self, seconds):
        assert seconds > 0

    def send(self, data):
        self.now += self.seconds
        self.taken += min(self.takes, len(data))
        return min(self.takes, len(data))


@pytest.mark.parametrize(("seconds", "arrives"), [(0.5, True), (0.7, False)])
def test_an_answer_has_one_deadline_however_it_is_taken(monkeypatch, seconds, arrives):
    reader = SlowReader(takes=16_384, seconds=seconds)
    clock = types.SimpleNamespace(monotonic=lambda: reader.now)
    monkeypatch.setattr(http1, "time", clock)
    data = b"x" * (100 * 16_384)
    expected = contextlib.nullcontext() if arrives else pytest.raises(http1.ClientGone)
    with expected:
        http1.Channel(reader).send(data)
    assert (reader.taken == len(data)) is arrives


@pytest.mark.parametrize("size", [b"0x1", b"+1", b"-1", b"1_0", b"", b" ", b"1" * 17, b"1\x0b"])
def test_the_size_of_a_chunk_is_digits_only(pair, size):
    ours, theirs = pair
    theirs.sendall(size + b"\r\nx\r\n0\r\n\r\n")
    request = http1.parse_head(CHUNKED)
    with pytest.raises(errors.ApiError) as caught:
        http1.Channel(ours).read_body(request)
    assert caught.value.code == 400


def test_chunks_with_extensions_spaces_and_trailers(pair):
    ours, theirs = pair
    theirs.sendall(b"A ;x=y\r\n0123456789\r\n1\r\na\r\n0\r\nTrailer: x\r\n\r\nrest")
    channel = http1.Channel(ours)
    assert channel.read_body(http1.parse_head(CHUNKED)) == b"0123456789a"
    assert channel.take() == b"rest"


@pytest.mark.parametrize(
    "head",
    [
        b"GET /x HTTP/1.1\r\nOrigin: a\nX-Injected: b",
        b"GET /x HTTP/1.1\r\nOrigin: a\rb",
        b"GET /x HTTP/1.1\r\nOrigin: a\0b",
        b"GET /x\ny HTTP/1.1",
    ],
)
def test_a_line_is_one_line_to_everybody(head):
    with pytest.raises(errors.ApiError) as caught:
        http1.parse_head(head)
    assert caught.value.code == 400


def test_who_vanishes_without_a_word_is_noticed_by_the_kernel(server):
    with socket.create_connection(server.server_address, timeout=60) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        (accepted,) = server._open
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        between = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
        count = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
        assert idle + between * count == http1.ABSENT_SECONDS


@contextlib.contextmanager
def tunnelled(listens):
    """Yield a client, which has said more already, and a kubelet: the ends of a tunnel."""
    client, accepted = socket.socketpair()
    kubelet, dialled = socket.socketpair()
    channel = http1.Channel(accepted)
    channel._buffer += b"early "
    thread = threading.Thread(
        target=kubelets.tunnel, args=(channel, dialled, b"head "), kwargs={"listens": listens}
    )
    with client, accepted, kubelet:
        client.settimeout(60)
        kubelet.settimeout(60)
        thread.start()
        yield client, kubelet
        client.close()
        thread.join()


def everything(connection):
    return b"".join(iter(lambda: connection.recv(1000), b""))


def test_of_who_listens_nothing_reaches_the_kubelet():
    with tunnelled(listens=True) as (client, kubelet):
        client.sendall(b"GET /exec/default/web/c?command=id HTTP/1.1\r\n\r\n")
        kubelet.sendall(b"log")
        got = b""
        while len(got) < len(b"head log"):
            got += client.recv(1000)
        assert got == b"head log"
        client.shutdown(socket.SHUT_WR)
        assert everything(kubelet) == b""


def test_of_who_speaks_everything_reaches_the_kubelet():
    with tunnelled(listens=False) as (client, kubelet):
        client.sendall(b"late")
        client.shutdown(socket.SHUT_WR)
        assert everything(kubelet) == b"early late"


@pytest.mark.parametrize("port", ["10250", 0, -1, 65536, True, [1], {"a": 1}, 1.5])
def test_a_node_with_a_nonsensical_port(port):
    status = {
        "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    node = {"metadata": {"name": "n1"}, "status": status}
    if port == 0:  # says nothing
        assert kubelets._place(node) == ("192.0.2.1", kubelets.PORT)
        return
    with pytest.raises(errors.ApiError) as caught:
        kubelets._place(node)
    assert caught.value.code == 503


def test_warnings_leave_the_head_small(server):
    unknown = {f"{number}{'x' * 1000}": 1 for number in range(300)}
    body = json.dumps({"metadata": {"name": "c"}, **unknown}).encode()
    head = (
        b"POST /api/v1/namespaces/default/configmaps?fieldValidation=Warn HTTP/1.1\r\n"
        b"Content-Length: %d" % len(body)
    )
    top, made = asked(server, head, body)
    assert made["metadata"]["name"] == "c"
    warnings = [line for line in top.split("\r\n") if line.startswith("Warning: ")]
    assert len(warnings) == 20
    assert all("unknown field" in line and len(line) < 300 for line in warnings)


class TestImpersonation:
    def acting(self, who=ADMIN, **headers):
        named = {f"impersonate-{name}": value for name, value in headers.items()}
        return authentication.acting(who, {"accept": "*/*", **named})

    def test_whoever_says_nothing_is_himself(self):
        assert self.acting() is ADMIN

    def test_an_administrator_acts_as_others(self):
        node = self.acting(user="system:node:n1", group="system:nodes, other")
        assert (node.node, node.groups) == (
            "n1",
            ("system:nodes", "other", identity.AUTHENTICATED),
        )
        account = self.acting(user="system:serviceaccount:demo:web")
        assert account == identity.account("demo", "web")
        assert self.acting(user="system:anonymous") is identity.ANONYMOUS
        assert self.acting(user="jane", uid="7").uid == "7"

    @pytest.mark.parametrize("user", [identity.ANONYMOUS, identity.authenticated("jane")])
    def test_nobody_else_does(self, user):
        for name in ("user", "group", "uid", "extra-x"):
            with pytest.raises(errors.ApiError) as caught:
                self.acting(user, **{name: identity.ADMINS})
            assert caught.value.code == 403

    def test_it_is_said_whom(self):
        with pytest.raises(errors.ApiError) as caught:
            self.acting(group="system:masters")
        assert caught.value.code == 400

    def test_over_http(self, server):
        head = b"GET /api/v1/%b HTTP/1.1\r\nImpersonate-User: system:kube-proxy"
        for resource, code in ((b"services", "200"), (b"secrets", "403")):
            assert asked(server, head % resource)[0].split()[1] == code


def test_the_head_of_a_watch_is_that_of_a_list(server):
    with socket.create_connection(server.server_address, timeout=60) as connection:
        connection.sendall(b"HEAD /api/v1/pods?watch=1 HTTP/1.1\r\nConnection: close\r\n\r\n")
        top, _, body = everything(connection).partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 200 OK")
    assert body == b""

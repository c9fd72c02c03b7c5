"""The kubelet's server over loopback: logs, exec over WebSocket, who may ask."""

import contextlib
import http.client
import io
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from local_cluster import LocalCluster, new_api
from wsproto import ConnectionType, WSConnection, events

from kproxy import logs
from kproxy.api import codec
from kproxy.api.pods import Pod
from kproxy.controlplane import kubeletserver
from kproxy.controlplane.access import identity, kubeconfigs
from kproxy.controlplane.access.kubeconfigs import Credentials
from kproxy.controlplane.fakeruntime import FakePerformer, FakeRuntime
from kproxy.controlplane.kubelet import Kubelet
from kproxy.controlplane.runtime import ContainerSpec, LogFiles, Sandbox, Streams
from kproxy.lab.podexec import Beside
from netns.wait import wait_until

PATIENCE = 10.0
SECRET = "s3cret"


class Here:
    """A host that is this one."""

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        yield


class Runtime(FakeRuntime):
    """Containers are records, but programs beside them are real."""

    def exec(
        self, sandbox: Sandbox, spec: ContainerSpec, command: Sequence[str], streams: Streams
    ) -> Beside:
        env = {"PATH": "/usr/bin:/bin", **dict(spec.env)}
        return Beside(Here(), command, streams, env=env, cwd="/")


def pod(name: str = "a", **container: object) -> Pod:
    body = {"name": "c", "image": "pause", "env": [{"name": "WHO", "value": "me"}], **container}
    return codec.from_dict(
        {
            "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"},
            "spec": {"nodeName": "n1", "containers": [body]},
        },
        Pod,
    )


class Serving:
    """A kubelet with its server, each in a thread."""

    def __init__(self, access: kubeletserver.Access | None = None, **options: int) -> None:
        self.runtime = Runtime()
        log = logs.Log("kubelet", stream=io.StringIO())
        self.kubelet = Kubelet(
            "n1",
            LocalCluster(new_api()),
            self.runtime,
            performer=FakePerformer(),
            log=log,
        )
        self.kubelet.replace([pod(), pod("waiting", image="unknown")])
        address = ("127.0.0.1", 0)
        access = access or kubeletserver.Access()
        self.server = kubeletserver.Server(address, self.kubelet, access, **options)
        self.port = self.server.server_address[1]
        self.threads = [
            threading.Thread(target=self.kubelet.run),
            threading.Thread(target=self.server.serve),
        ]
        for thread in self.threads:
            thread.start()
        self.kubelet.ask(lambda: None)

    def close(self) -> None:
        self.server.stop()
        self.kubelet.stop()
        for thread in self.threads:
            thread.join(PATIENCE)
        self.kubelet.close()
        self.runtime.close()

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()


@pytest.fixture
def serving() -> Iterator[Serving]:
    made = Serving()
    yield made
    made.close()


def message(answer: tuple[int, str]) -> tuple[int, str]:
    return answer[0], answer[1].removesuffix("\n")


# Logs.


def test_the_log_of_a_container(serving, tmp_path):
    path = tmp_path / "0.log"
    path.write_text("2026-11-26T10:00:01Z stdout F one\n2026-11-26T10:00:02Z stdout F two\n")
    serving.runtime.logs["uid-a", "c", 0] = LogFiles(paths=(path,))
    assert serving.get("/containerLogs/default/a/c") == (200, "one\ntwo\n")
    assert serving.get("/containerLogs/default/a/c?tailLines=1&timestamps=true") == (
        200,
        "2026-11-26T10:00:02Z two\n",
    )


def test_the_log_of_the_start_before(serving, tmp_path):
    path = tmp_path / "0.log"
    path.write_text("2026-11-26T10:00:01Z stdout F old\n")
    serving.runtime.logs["uid-a", "c", 0] = LogFiles(paths=(path,))
    refused = message(serving.get("/containerLogs/default/a/c?previous=true"))
    assert refused == (400, 'previous terminated container "c" in pod "a" not found')
    serving.kubelet.ask(lambda: serving.runtime.kill("uid-a", code=1))
    serving.kubelet.ask(lambda: None)
    serving.kubelet.ask(lambda: None)
    assert serving.get("/containerLogs/default/a/c?previous=true") == (200, "old\n")


def test_a_log_is_followed_until_the_container_ends(serving, tmp_path):
    path = tmp_path / "0.log"
    path.write_text("2026-11-26T10:00:01Z stdout F one\n")
    serving.runtime.logs["uid-a", "c", 0] = LogFiles(paths=(path,))
    connection = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", "/containerLogs/default/a/c?follow=true")
        answer = connection.getresponse()
        assert answer.readline() == b"one\n"
        with path.open("a") as file:
            file.write("2026-11-26T10:00:02Z stdout F two\n")
        assert answer.readline() == b"two\n"
        serving.kubelet.ask(lambda: serving.runtime.kill("uid-a", code=1))
        assert answer.read() == b""


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("default/none/c", 404, 'pod "none" not found'),
        ("default/a/none", 404, 'container "none" not found in pod "a"'),
        ("default/waiting/c", 400, 'container "c" in pod "waiting" is waiting to start: '),
        ("default/a/c?tailLines=x", 422, "tailLines"),
    ],
)
def test_logs_that_are_not_there(serving, path, code, words):
    status, told = message(serving.get(f"/containerLogs/{path}"))
    assert status == code
    assert words in told


def test_other_paths(serving):
    assert serving.get("/healthz") == (200, "ok")
    assert message(serving.get("/none")) == (404, "404 page not found")
    text = serving.get("/metrics")[1]
    assert "kubelet_running_pods 2" in text
    assert 'kubelet_running_containers{container_state="running"} 1' in text
    pods = json.loads(serving.get("/pods")[1])["items"]
    assert [(one["metadata"]["name"], one["status"]["phase"]) for one in pods] == [
        ("a", "Running"),
        ("waiting", "Pending"),
    ]


def test_more_connections_than_there_is_room_for_are_turned_away_at_once():
    made = Serving(connections=2)
    place = ("127.0.0.1", made.port)
    idle = [socket.create_connection(place, PATIENCE) for _ in range(2)]
    try:
        with socket.create_connection(place, PATIENCE) as late:
            assert late.recv(1) == b""
        idle.pop().close()
        # The server's thread hears of that in a moment.
        wait_until(lambda: refused(made) >= 1, PATIENCE, "room again")
    finally:
        for one in idle:
            one.close()
        made.close()


def refused(made: Serving) -> int:
    """Return how many were turned away; 0 while we are, too."""
    try:
        text = made.get("/metrics")[1]
    except ConnectionError:
        return 0
    return int(text.partition("\nkubelet_http_refused_connections_total ")[2].split()[0])


def test_what_is_asked_for_makes_no_metric_of_its_own(serving):
    for number in range(3):
        assert serving.get(f"/strange-{number}")[0] == 404
    (told,) = [line for line in serving.get("/metrics")[1].splitlines() if "other" in line]
    assert told.endswith(" 3")
    assert "strange" not in serving.get("/metrics")[1]


def test_a_token_is_demanded_without_certificates_too():
    made = Serving(kubeletserver.Access(token=SECRET))
    try:
        assert made.get("/pods")[0] == 401
        assert made.get("/pods", Authorization="Bearer wrong")[0] == 401
        assert made.get("/pods", Authorization=f"Bearer {SECRET}")[0] == 200
    finally:
        made.close()


# exec.


@dataclass
class Exec:
    """A client of exec, as kubectl is one."""

    port: int
    query: str
    protocol: str = "v5.channel.k8s.io"
    output: dict[int, bytes] = field(default_factory=dict)
    _answered: bool = False
    _message: bytes = b""

    def __enter__(self) -> "Exec":
        self._sock = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        self._socketed = WSConnection(ConnectionType.CLIENT)
        target = f"/exec/default/a/c?{self.query}"
        self._send(events.Request(host="x", target=target, subprotocols=[self.protocol]))
        self.until(lambda: self._answered)
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def write(self, channel: int, data: bytes) -> None:
        self._send(events.BytesMessage(data=bytes([channel]) + data))

    def until(self, accept: Callable[[], bool]) -> None:
        while not accept():
            assert self._read(), self.output

    def status(self) -> dict:
        """Read to the end; return the final Status."""
        while self._read():
            pass
        return json.loads(self.output[3])

    def refused(self) -> tuple[int, str]:
        while self._read():
            pass
        return self.output[-1][0] + 256, self.output[-2].decode()

    def _send(self, event: events.Event) -> None:
        self._sock.sendall(self._socketed.send(event))

    def _read(self) -> bool:
        received = self._sock.recv(65536)
        self._socketed.receive_data(received or None)
        for event in self._socketed.events():
            if isinstance(event, (events.AcceptConnection, events.RejectConnection)):
                self._answered = True
            if isinstance(event, events.AcceptConnection):
                assert event.subprotocol == self.protocol
            elif isinstance(event, events.RejectConnection):
                self.output[-1] = bytes([event.status_code - 256])
            elif isinstance(event, events.RejectData):
                self.output[-2] = self.output.get(-2, b"") + bytes(event.data)
            elif isinstance(event, events.Message):
                self._message += bytes(event.data)
                if event.message_finished:
                    channel, data = self._message[0], self._message[1:]
                    self.output[channel] = self.output.get(channel, b"") + data
                    self._message = b""
        return bool(received)


def query(*command: str, **flags: str) -> str:
    words = [f"command={word}" for word in command]
    return "&".join([*words, *(f"{name}={value}" for name, value in flags.items())])


def script(text: str, **flags: str) -> str:
    return query("sh", "-c", text.replace(" ", "%20").replace("&", "%26"), **flags)


def test_output_error_output_and_exit_code(serving):
    wanted = script("echo $WHO; echo oh >&2; exit 3", stdout="true", stderr="true")
    with Exec(serving.port, wanted) as client:
        told = client.status()
    assert (client.output[1], client.output[2]) == (b"me\n", b"oh\n")
    assert (told["status"], told["reason"]) == ("Failure", "NonZeroExitCode")
    assert told["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


def test_success_and_the_names_that_kubelets_use(serving):
    with Exec(serving.port, query("true", output="1"), "v4.channel.k8s.io") as client:
        assert client.status() == {"metadata": {}, "status": "Success"}


def test_input_goes_through_and_its_end_too(serving):
    with Exec(serving.port, query("cat", stdin="true", stdout="true")) as client:
        client.write(0, b"hello ")
        client.until(lambda: client.output.get(1) == b"hello ")
        client.write(0, b"world")
        client.write(255, bytes([0]))
        assert client.status()["status"] == "Success"
    assert client.output[1] == b"hello world"


def test_much_input_and_output_do_not_block_each_other(serving):
    size = 4_000_000
    with Exec(serving.port, query("cat", stdin="true", stdout="true")) as client:
        writer = threading.Thread(
            target=lambda: (
                [client.write(0, b"x" * 100_000) for _ in range(size // 100_000)],
                client.write(255, bytes([0])),
            )
        )
        writer.start()
        assert client.status()["status"] == "Success"
        writer.join()
    assert len(client.output[1]) == size


def test_a_terminal_of_the_clients_size(serving):
    wanted = script("test -t 0 && read x && stty size", stdin="true", stdout="true", tty="true")
    with Exec(serving.port, wanted) as client:
        client.write(4, b'{"Width": 101, "Height": 33}')
        client.write(0, b"go\n")
        assert client.status()["status"] == "Success"
    assert b"33 101" in client.output[1]


def test_a_program_that_is_not_there(serving):
    with Exec(serving.port, query("/no/such/program", stdout="true")) as client:
        told = client.status()
    assert told["reason"] == "InternalError"
    assert "cannot start /no/such/program" in told["message"]


def test_a_client_that_goes_away_takes_its_program_along(serving, tmp_path):
    wanted = script("echo $$; exec sleep 1000", stdout="true")
    with Exec(serving.port, wanted) as client:
        client.until(lambda: client.output.get(1, b"").endswith(b"\n"))
        pid = int(client.output[1])
        assert Path(f"/proc/{pid}").exists()
    gone = threading.Event()
    while Path(f"/proc/{pid}").exists():
        assert not gone.wait(0.02)


def test_what_a_program_leaves_behind_does_not_write_on(serving):
    left = "for i in 1 2 3 4 5 6 7 8 9 10; do echo more; sleep 0.1; done; echo last"
    with Exec(serving.port, script(f"({left}) & exit 3", stdout="true")) as client:
        assert client.status()["details"]["causes"][0]["message"] == "3"
    assert b"last" not in client.output.get(1, b"")


def test_what_a_program_leaves_behind_ends_with_it(serving):
    """And so it does not hold up the end, although it has the output open."""
    with Exec(serving.port, script("sleep 1000 & echo $!", stdout="true")) as client:
        assert client.status()["status"] == "Success"
    gone = threading.Event()
    while Path(f"/proc/{int(client.output[1])}").exists():
        assert not gone.wait(0.02)


@pytest.mark.parametrize(
    ("wanted", "code", "words"),
    [
        ("stdout=true", 400, "at least one command"),
        ("command=x", 400, "at least one of stdin, stdout, stderr"),
    ],
)
def test_requests_that_make_no_sense(serving, wanted, code, words):
    with Exec(serving.port, wanted) as client:
        status, text = client.refused()
    assert status == code
    assert words in text


def test_other_protocols_are_refused_in_words(serving):
    spdy = {"Upgrade": "SPDY/3.1", "Connection": "Upgrade"}
    code, words = message(serving.get("/exec/default/a/c?command=x&stdout=1", **spdy))
    assert code == 400
    assert "kproxy lab exec" in words
    with Exec(serving.port, query("true", stdout="true"), "other") as client:
        assert "v5.channel.k8s.io" in client.refused()[1]


def test_only_what_runs_can_be_entered(serving):
    answer = serving.get("/exec/default/waiting/c?command=x&stdout=1", Upgrade="websocket")
    assert message(answer) == (400, 'container "c" in pod "waiting" is not running')


# Who may ask.


class Secure(Serving):
    """A kubelet that speaks TLS."""

    def __init__(self, directory: Path) -> None:
        self.secrets = Credentials(directory, ["127.0.0.1"], "https://127.0.0.1:1")
        certificate, key = self.secrets.node_server("n1", ["127.0.0.1"])
        super().__init__(
            kubeletserver.Access(
                cert_file=certificate,
                key_file=key,
                client_ca_file=self.secrets.ca_file,
                token=SECRET,
            )
        )

    def ask(self, path: str, who: str = "", token: str = "") -> int:
        context = ssl.create_default_context(cafile=str(self.secrets.ca_file))
        if who == identity.API_SERVER:
            context.load_cert_chain(*self.secrets.kubelet_client())
        elif who in (kubeconfigs.MONITORING, kubeconfigs.PROBER):
            context.load_cert_chain(*self.secrets.client(who))
        elif who:
            pair = self.secrets.authority.client(who, (identity.NODES,))
            context.load_cert_chain(*pair.save(self.secrets.directory, "somebody"))
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=PATIENCE, context=context
        )
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status


@pytest.fixture
def secure(tmp_path) -> Iterator[Secure]:
    made = Secure(tmp_path)
    yield made
    made.close()


def test_the_api_server_and_a_token_may_ask_others_may_not(secure):
    assert secure.ask("/healthz") == 200
    assert secure.ask("/pods") == 401
    assert secure.ask("/pods", token="wrong") == 401
    assert secure.ask("/pods", who="system:node:n2") == 403
    assert secure.ask("/pods", who=identity.API_SERVER) == 200
    assert secure.ask("/pods", token=SECRET) == 200


def test_who_monitors_may_read_metrics_and_nothing_else(secure):
    assert secure.ask("/metrics", who=kubeconfigs.MONITORING) == 200
    assert secure.ask("/metrics") == 401
    assert secure.ask("/metrics", who="system:node:n2") == 403
    assert secure.ask("/metrics", who=kubeconfigs.PROBER) == 403
    assert secure.ask("/pods", who=kubeconfigs.MONITORING) == 403
    assert secure.ask("/containerLogs/default/a/c", who=kubeconfigs.MONITORING) == 403


def test_a_client_that_does_not_shake_hands_holds_up_nobody(secure):
    with socket.create_connection(("127.0.0.1", secure.port)):
        assert secure.ask("/healthz") == 200


def test_certificates_that_cannot_be_used_are_named(tmp_path):
    access = kubeletserver.Access(cert_file=tmp_path / "none", key_file=tmp_path / "none")
    with pytest.raises(Exception, match="give the node's certificate and key"):
        access.context()

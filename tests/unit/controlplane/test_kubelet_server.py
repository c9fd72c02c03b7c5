"""The kubelet's server over loopback: logs, who may ask."""

import contextlib
import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubelet_serving import PATIENCE, SECRET, Serving, message, serving

from kproxy.controlplane import kubeletserver
from kproxy.controlplane.access import identity, kubeconfigs
from kproxy.controlplane.access.kubeconfigs import Credentials
from kproxy.controlplane.runtime import LogFiles
from netns.wait import wait_until

__all__ = ["serving"]


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

"""What a client of the API server tells of its requests, for metrics."""

from collections.abc import Iterator
from typing import Any

import pytest
from scripted_server import CHUNKED, DROP, LAST_CHUNK, ScriptedServer, answer, status

from kproxy.api import core
from kproxy.client.http1 import Exchange
from kproxy.client.kubeconfig import Access
from kproxy.client.rest import Rest, Unreachable
from kproxy.errors import ApiError

BODY = b'{"a": 1}'


@pytest.fixture
def heard() -> list[Exchange]:
    return []


@pytest.fixture
def client(heard: list[Exchange]) -> Iterator[Rest]:
    def reply(request: Any) -> list[Any]:
        if "watch" in request.query:
            return [CHUNKED, LAST_CHUNK]
        if request.path == "/gone":
            return [status(410, "Expired")]
        return [DROP] if request.path == "/broken" else [answer({"items": []})]

    with ScriptedServer(reply) as server, Rest(Access(server=server.url)) as rest:
        rest.exchanges.listen(heard.append)
        yield rest


def test_answers_and_errors_are_told_with_their_sizes(client: Rest, heard: list[Exchange]) -> None:
    got = client.request("GET", "/x")
    with pytest.raises(ApiError):
        client.request("POST", "/gone", body=BODY)
    with pytest.raises(Unreachable):
        client.request("POST", "/broken", body=BODY)
    assert [(one.method, one.code, one.sent) for one in heard] == [
        ("GET", "200", 0),
        ("POST", "410", len(BODY)),
        ("POST", "<error>", len(BODY)),
    ]
    assert [one.received is None for one in heard] == [False, False, True]
    assert heard[0].received == len(got)
    assert all(one.seconds is not None and one.seconds >= 0 for one in heard)
    assert [one.resolved_s for one in heard] == [None] * 3


def test_a_watch_is_told_when_it_begins(client: Rest, heard: list[Exchange]) -> None:
    with client.derive() as twin, twin.watch(core.Service, resource_version="5") as watch:
        assert heard == [Exchange("GET", "200")]
        assert list(watch) == []
    assert len(heard) == 1


def test_a_server_that_is_not_there(heard: list[Exchange]) -> None:
    with ScriptedServer(lambda request: [DROP]) as server:
        url = server.url
    with Rest(Access(server=url)) as rest:
        rest.exchanges.listen(heard.append)
        with pytest.raises(Unreachable):
            rest.request("GET", "/x")
        with pytest.raises(Unreachable):
            rest.watch(core.Service, resource_version="5")
    assert [(one.method, one.code) for one in heard] == [("GET", "<error>")] * 2
    assert [one.seconds is None for one in heard] == [False, True]


def test_a_name_is_resolved_once_for_each_connection(heard: list[Exchange]) -> None:
    with ScriptedServer(lambda request: [answer({})]) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        with Rest(Access(server=url)) as rest:
            rest.exchanges.listen(heard.append)
            rest.request("GET", "/x")
            rest.request("GET", "/x")
    assert [one.resolved_s is None for one in heard] == [False, True]


def test_the_host_is_that_of_the_url() -> None:
    for url, host in (
        ("http://127.0.0.1:6443/base", "127.0.0.1:6443"),
        ("http://api.example", "api.example"),
        ("http://[fd00::1]:8080", "[fd00::1]:8080"),
    ):
        with Rest(Access(server=url)) as rest:
            assert rest.host == host

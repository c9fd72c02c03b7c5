"""Requests over HTTP: answers, errors, connections that are used again or break."""

import contextlib
import json
import socket
import threading

import pytest
from scripted_server import CHUNKED, DROP, LAST_CHUNK, ScriptedServer, answer, chunk, event, status

from kproxy.api import core, kinds
from kproxy.client import http1
from kproxy.client.kubeconfig import Access
from kproxy.client.objects import ObjectClient
from kproxy.client.rest import Rest, Unreachable
from kproxy.errors import ApiError, Conflict, Gone, KproxyError


def client(server, **more):
    return Rest(Access(server=server.url, **more))


def items(*names, token=""):
    listed = [{"metadata": {"name": name, "namespace": "demo"}} for name in names]
    return answer({"metadata": {"resourceVersion": "5", "continue": token}, "items": listed})


def test_a_list_over_one_connection_that_is_used_again():
    with ScriptedServer(lambda request: [items("a", "b")]) as server, client(server) as rest:
        page = rest.list(core.Service, "demo", label_selector="a=b,!c", field_selector="x=y")
        assert [item.metadata.name for item in page.items] == ["a", "b"]
        assert page.resource_version == "5"
        rest.list(core.Node)
        first, second = server.requests
        assert first.path == "/api/v1/namespaces/demo/services"
        assert first.query == {"labelSelector": "a=b,!c", "fieldSelector": "x=y"}
        assert first.headers["accept"] == "application/json"
        assert second.path == "/api/v1/nodes"
        assert first.connection == second.connection


def test_a_list_by_pages():
    pages = {"": items("a", token="1"), "1": items("b", token="2"), "2": items("c")}
    with (
        ScriptedServer(lambda request: [pages[request.query.get("continue", "")]]) as server,
        client(server) as rest,
    ):
        page = rest.list(core.Service, limit=1)
        assert [item.metadata.name for item in page.items] == ["a", "b", "c"]
        assert [request.query["limit"] for request in server.requests] == ["1"] * 3


def test_a_page_that_has_expired_makes_it_list_at_once():
    def reply(request):
        if "continue" in request.query:
            return [status(410, "Expired")]
        return [items("a", token="1") if "limit" in request.query else items("a", "b")]

    with ScriptedServer(reply) as server, client(server) as rest:
        page = rest.list(core.Service, limit=1)
        assert [item.metadata.name for item in page.items] == ["a", "b"]


@pytest.mark.parametrize(
    ("code", "kind"), [(404, ApiError), (409, Conflict), (410, Gone), (500, ApiError)]
)
def test_error_statuses(code, kind):
    with (
        ScriptedServer(lambda request: [status(code, "Reason", "told")]) as server,
        client(server) as rest,
    ):
        with pytest.raises(kind, match="told") as caught:
            rest.request("GET", "/api/v1/nodes/x")
        assert (caught.value.code, caught.value.reason) == (code, "Reason")
        # The body was read, so the connection is good for another request.
        with pytest.raises(kind):
            rest.request("GET", "/")
        assert {request.connection for request in server.requests} == {1}


def test_a_chunked_answer_and_one_that_ends_with_its_connection():
    def reply(request):
        if request.path == "/chunked":
            return [CHUNKED, chunk(b"ab"), b"3;x=y\r\ncde\r\n", b"0\r\nTrailer: x\r\n\r\n"]
        return [b"HTTP/1.1 200 OK\r\n\r\n", b"until", b" the end", DROP]

    with ScriptedServer(reply) as server, client(server) as rest:
        assert rest.request("GET", "/chunked") == b"abcde"
        assert rest.request("GET", "/rest") == b"until the end"


def test_an_idle_connection_that_was_closed_is_not_used():
    with (
        ScriptedServer(lambda request: [answer({}), DROP]) as server,
        client(server) as rest,
    ):
        for _ in range(3):
            assert rest.request("POST", "/") == b"{}"
            assert server.closed.acquire(timeout=60)
        assert len(server.requests) == 3


def test_a_connection_that_the_server_wants_to_close_is_not_used_again():
    closing = answer({}, extra="Connection: close\r\n")
    with ScriptedServer(lambda request: [closing]) as server, client(server) as rest:
        rest.request("GET", "/")
        rest.request("GET", "/")
        assert [request.connection for request in server.requests] == [1, 2]


def test_a_read_is_repeated_if_a_used_connection_breaks_but_a_write_is_not():
    def reply(request):
        used = [one for one in server.requests if one.connection == request.connection]
        return [answer({})] if len(used) == 1 else [DROP]

    with ScriptedServer(reply) as server, client(server) as rest:
        rest.request("GET", "/")
        assert rest.request("GET", "/") == b"{}"
        with pytest.raises(Unreachable):
            rest.request("POST", "/")
        assert [request.method for request in server.requests] == ["GET", "GET", "GET", "POST"]


@pytest.mark.parametrize(
    "parts",
    [
        [b"no HTTP\r\n\r\n", DROP],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", DROP],
        [CHUNKED, b"zz\r\n", DROP],
        [CHUNKED, b"5\r\nab", DROP],
        [b"HTTP/1.1 200 OK\r\nConte", DROP],
        [DROP],
    ],
)
def test_broken_answers_are_unreachable(parts):
    with (
        ScriptedServer(lambda request: parts) as server,
        client(server) as rest,
        pytest.raises(Unreachable, match="API server http"),
    ):
        rest.request("GET", "/")


def test_nobody_listens():
    with ScriptedServer(lambda request: []) as server:
        rest = client(server)
    with pytest.raises(Unreachable, match=r"Connection refused .*is it running"):
        rest.request("GET", "/")


def test_tokens_are_sent_and_read_again_from_their_file(tmp_path):
    path = tmp_path / "token"
    path.write_text("one\n")
    with ScriptedServer(lambda request: [answer({})]) as server:
        with client(server, token="fixed") as rest:
            rest.request("GET", "/")
        with client(server, token_file=path) as rest:
            rest.request("GET", "/")
            path.write_text("two\n")
            rest.request("GET", "/")
            path.unlink()
            with pytest.raises(KproxyError, match="cannot read"):
                rest.request("GET", "/")
        sent = [request.headers["authorization"] for request in server.requests]
        assert sent == ["Bearer fixed", "Bearer one", "Bearer two"]


def test_a_watch_gives_lines_however_they_are_cut():
    line = event("ADDED", {"metadata": {"name": "a"}})
    raw = line[line.index(b"\r\n") + 2 : -2]
    parts = [CHUNKED, chunk(raw + raw[:7]), chunk(raw[7:20]), chunk(raw[20:]), LAST_CHUNK]
    with ScriptedServer(lambda request: parts) as server, client(server) as rest:
        with rest.watch(core.Service, resource_version="7", seconds=60) as lines:
            assert list(lines) == [raw.strip()] * 2
        assert server.requests[0].query == {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": "7",
            "timeoutSeconds": "60",
        }


def collect(lines, got):
    for line in lines:
        got.append(line)


def test_a_watch_that_breaks_in_the_middle_of_a_line_gives_the_complete_ones():
    parts = [CHUNKED, chunk(b'{"a":1}\n{"b"'), b"10\r\n:2", DROP]
    got = []
    with (
        ScriptedServer(lambda request: parts) as server,
        client(server) as rest,
        rest.watch(core.Service, resource_version="7") as lines,
        pytest.raises(Unreachable),
    ):
        collect(lines, got)
    assert got == [b'{"a":1}']


def test_a_watch_from_too_old_a_version_is_gone():
    with (
        ScriptedServer(lambda request: [status(410, "Expired", "too old")]) as server,
        client(server) as rest,
        pytest.raises(Gone),
    ):
        rest.watch(core.Service, resource_version="1")


def test_closing_ends_a_blocked_read_and_forbids_more():
    reading = threading.Event()

    def reply(request):
        yield CHUNKED
        reading.set()
        threading.Event().wait()

    failures = []
    with ScriptedServer(reply) as server:
        rest = client(server)

        def read():
            try:
                with rest.watch(core.Service, resource_version="1") as lines:
                    list(lines)
            except Unreachable as error:
                failures.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        assert reading.wait(60)
        rest.close()
        thread.join(60)
        assert not thread.is_alive()
        assert len(failures) == 1
        with pytest.raises(Unreachable, match="closed"):
            rest.request("GET", "/")


def test_a_derived_client_is_closed_by_itself():
    with ScriptedServer(lambda request: [answer({})]) as server, client(server) as rest:
        twin = rest.derive()
        twin.request("GET", "/")
        twin.close()
        assert rest.request("GET", "/") == b"{}"


SERVICE = {"metadata": {"namespace": "demo", "name": "web"}, "spec": {"unknown": 1}}


def test_objects_are_written_and_read_as_dictionaries():
    with (
        ScriptedServer(lambda request: [answer(request.body or SERVICE)]) as server,
        client(server) as rest,
    ):
        objects = ObjectClient(rest)
        assert objects.create(kinds.SERVICE, SERVICE) == SERVICE
        assert objects.update(kinds.SERVICE, SERVICE) == SERVICE
        assert objects.update_status(kinds.SERVICE, SERVICE) == SERVICE
        assert objects.patch(kinds.SERVICE, "demo", "web", {"x": None}, "status") == {"x": None}
        assert objects.get(kinds.SERVICE, "demo", "web") == SERVICE
        objects.delete(kinds.SERVICE, "demo", "web", grace=0, uid="u")
        base = "/api/v1/namespaces/demo/services"
        assert [(one.method, one.path) for one in server.requests] == [
            ("POST", base),
            ("PUT", f"{base}/web"),
            ("PUT", f"{base}/web/status"),
            ("PATCH", f"{base}/web/status"),
            ("GET", f"{base}/web"),
            ("DELETE", f"{base}/web"),
        ]
        assert server.requests[3].headers["content-type"] == "application/merge-patch+json"
        options = json.loads(server.requests[5].body)
        assert options == {"preconditions": {"uid": "u"}, "gracePeriodSeconds": 0}


def test_objects_that_are_not_there():
    with ScriptedServer(lambda request: [status(404)]) as server, client(server) as rest:
        objects = ObjectClient(rest)
        assert objects.get(kinds.SERVICE, "demo", "web") is None
        objects.delete(kinds.SERVICE, "demo", "web")
        with pytest.raises(ApiError):
            objects.update(kinds.SERVICE, SERVICE)


def test_another_object_of_that_name_is_not_deleted():
    with ScriptedServer(lambda request: [status(409)]) as server, client(server) as rest:
        ObjectClient(rest).delete(kinds.SERVICE, "demo", "web", uid="old")
        with pytest.raises(Conflict):
            ObjectClient(rest).delete(kinds.SERVICE, "demo", "web")


def test_objects_are_listed_by_labels():
    with ScriptedServer(lambda request: [answer({"items": [SERVICE]})]) as server:
        with client(server) as rest:
            assert ObjectClient(rest).list_objects(kinds.SERVICE, "", {"a": "b"}) == [SERVICE]
        assert server.requests[0].query == {"labelSelector": "a=b"}


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n{",
    ],
)
def test_numbers_that_are_none_are_errors_like_others(reply):
    with (
        ScriptedServer(lambda request: [reply, DROP]) as server,
        client(server) as api,
        pytest.raises(KproxyError),
    ):
        api.list(core.Service)


def test_pages_that_expire_again_and_again_are_the_callers_to_begin_anew():
    def reply(request):
        if "continue" in request.query:
            return [status(410, "Expired")]
        return [items("a", token="1")]

    with (
        ScriptedServer(reply) as server,
        client(server) as api,
        pytest.raises(Gone),
    ):
        api.list(core.Service, limit=1)
    assert [request.query.get("limit") for request in server.requests] == ["1", "1", None, None]


def test_pages_that_nobody_asked_for_are_read_too():
    pages = {"": items("a", token="t1"), "t1": items("b")}
    with (
        ScriptedServer(lambda request: [pages[request.query.get("continue", "")]]) as server,
        client(server) as api,
    ):
        assert [one.metadata.name for one in api.list(core.Service).items] == ["a", "b"]


def test_a_machine_that_does_not_answer_at_all_is_given_up_soon(monkeypatch):
    monkeypatch.setattr(http1, "CONNECT_S", 0.05)
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as full,
        contextlib.ExitStack() as stack,
    ):
        # Who connects to a full queue hears nothing: as from a machine that has vanished.
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        with Rest(Access(server=url)) as api, pytest.raises(Unreachable, match="timed out"):
            api.list(core.Service)

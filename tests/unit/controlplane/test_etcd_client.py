"""The etcd client against members that answer by a script: what it repeats and believes."""

import base64
import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from kproxy import errors
from kproxy.controlplane.storage import base, etcd
from kproxy.controlplane.storage.base import ABSENT, Change, Write

HANG_UP = None
Answer = tuple[int, dict] | None


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def kv(key: str, value: str, revision: int, created: int | None = None) -> dict:
    return {
        "key": b64(key),
        "value": b64(value),
        "mod_revision": str(revision),
        "create_revision": str(created or revision),
    }


def done(revision: int) -> Answer:
    return 200, {"header": {"revision": str(revision)}, "succeeded": True}


def refused(revision: int, *found: dict) -> Answer:
    responses = [{"response_range": {"kvs": [one]} if one else {}} for one in found]
    return 200, {"header": {"revision": str(revision)}, "responses": responses}


def failed(words: str, status: int = 503) -> Answer:
    return status, {"error": words, "code": 14}


class Member:
    """Gives its answers in turn, the last one for ever; a watch gets ``lines`` and silence."""

    def __init__(self, answers: list[Answer], lines: Sequence[dict]) -> None:
        self.asked: list[dict] = []
        self._answers = answers
        self._lines = lines
        self._end = threading.Event()
        member = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                member.answer(self, json.loads(body))

            def log_message(self, *_args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, handler: http.server.BaseHTTPRequestHandler, question: dict) -> None:
        self.asked.append(question)
        if "create_request" in question:
            handler.send_response(200)
            handler.send_header("Connection", "close")
            handler.end_headers()
            for line in self._lines:
                handler.wfile.write(json.dumps(line).encode() + b"\n")
            handler.wfile.flush()
            self._end.wait()
            return
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        handler.close_connection = answer is HANG_UP
        if answer is HANG_UP:
            return
        status, message = answer
        body = json.dumps(message).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def close(self) -> None:
        self._end.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


Make = Callable[..., tuple[etcd.EtcdStorage, list[Member]]]


@pytest.fixture
def make() -> Iterator[Make]:
    with contextlib.ExitStack() as stack:

        def cluster(*scripts: list[Answer], lines: Sequence[dict] = (), patience: float = 60.0):
            members = [Member(script, lines) for script in scripts]
            for member in members:
                stack.callback(member.close)
            storage = etcd.EtcdStorage([member.url for member in members], patience=patience)
            stack.callback(storage.close)
            return storage, members

        yield cluster


WRITE = [Write("/a", b"new", 5)]


def test_a_commit_whose_answer_was_lost_is_recognised_as_done(make):
    storage, members = make([HANG_UP, refused(9, kv("/a", "new", 7))])
    assert storage.commit(WRITE) == 7
    assert len(members[0].asked) == 2


def test_a_commit_whose_answer_was_lost_may_have_been_overwritten(make):
    """Another's value came before it, or after it: to call it refused would have it repeated."""
    storage, _ = make([HANG_UP, refused(9, kv("/a", "another's", 7))])
    with pytest.raises(base.Unavailable) as caught:
        storage.commit(WRITE)
    assert caught.value.unknown


def test_two_keys_of_two_commits_are_not_one_that_was_done(make):
    found = [kv("/a", "new", 7), kv("/b", "new", 8)]
    storage, _ = make([HANG_UP, refused(9, *found)])
    with pytest.raises(base.Unavailable) as caught:
        storage.commit([*WRITE, Write("/b", b"new", ABSENT)])
    assert caught.value.unknown


def test_a_commit_that_was_surely_not_done_at_first_is_refused_at_last(make):
    answers = [failed("etcdserver: no leader"), refused(9, kv("/a", "another's", 7))]
    storage, _ = make(answers)
    with pytest.raises(base.Mismatch) as caught:
        storage.commit(WRITE)
    assert caught.value.current == base.Entry("/a", b"another's", 7)


def test_without_a_doubt_equal_values_are_a_mismatch(make):
    """Somebody else wrote the same; this commit expected something else all the same."""
    storage, _ = make([refused(9, kv("/a", "new", 7))])
    with pytest.raises(base.Mismatch):
        storage.commit(WRITE)


def test_a_deletion_whose_answer_was_lost_is_recognised_as_done(make):
    storage, _ = make([failed("etcdserver: request timed out"), refused(9, {})])
    assert storage.commit([Write("/a", None, 5)]) == 9


def test_a_member_without_a_leader_is_left_for_another(make):
    storage, members = make([failed("etcdserver: no leader")], [done(8)])
    assert storage.commit(WRITE) == 8
    assert storage.commit(WRITE) == 8
    assert [len(member.asked) for member in members] == [1, 2]


@pytest.mark.parametrize(
    ("answer", "unknown"),
    [
        (failed("etcdserver: no leader"), False),
        (failed("etcdserver: mvcc: database space exceeded"), False),
        (failed("etcdserver: request timed out"), True),
        (HANG_UP, True),
        ((200, {"unheard": "of"}), True),
    ],
)
def test_what_is_known_of_a_commit_that_nobody_answers(make, answer, unknown):
    # None at all: each member is asked once, however long that takes.
    storage, _ = make([answer], patience=0.0)
    with pytest.raises(base.Unavailable) as caught:
        storage.commit(WRITE)
    assert caught.value.unknown is unknown


def test_too_large_is_told_at_once(make):
    storage, members = make([failed("etcdserver: request is too large", 400)])
    with pytest.raises(errors.ApiError) as caught:
        storage.commit(WRITE)
    assert caught.value.code == 413
    assert len(members[0].asked) == 1


def test_a_list_whose_revision_is_compacted_meanwhile_begins_again(make):
    first = (200, {"header": {"revision": "5"}, "kvs": [kv("/a", "1", 5)], "more": True})
    gone = failed("etcdserver: mvcc: required revision has been compacted", 400)
    whole = (200, {"header": {"revision": "9"}, "kvs": [kv("/a", "2", 9)]})
    storage, members = make([first, gone, whole])
    assert storage.list("/") == ([base.Entry("/a", b"2", 9)], 9)
    assert [question.get("revision") for question in members[0].asked] == [None, 5, None]


def result(**fields: object) -> dict:
    return {"result": {"header": {"revision": "9"}, **fields}}


def put(key: str, value: str, revision: int, previous: str | None = None) -> dict:
    event = {"kv": kv(key, value, revision, created=1 if previous else None)}
    return {**event, "prev_kv": kv(key, previous, 1)} if previous else event


def test_a_watch_tells_whole_commits_below_its_prefix(make):
    gone = {"type": "DELETE", "kv": {"key": b64("/a/3"), "mod_revision": "8"}}
    lines = [
        result(created=True),
        result(events=[put("/b", "x", 6)]),
        result(events=[put("/a/1", "new", 7), put("/a/2", "new", 7, "old")]),
        result(events=[{**gone, "prev_kv": kv("/a/3", "last", 2)}]),
    ]
    storage, members = make([done(9)], lines=lines)
    watch = storage.watch("/a/", 5)
    assert watch.next(30) == (
        [Change("/a/1", b"new", None, 7), Change("/a/2", b"new", b"old", 7)],
        7,
    )
    assert watch.next(30) == ([Change("/a/3", None, b"last", 8)], 8)
    assert watch.next(0) == ([], 8)
    assert members[0].asked[0]["create_request"]["start_revision"] == 6
    watch.close()


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (result(canceled=True, compact_revision="8"), base.Compacted),
        (result(canceled=True, cancel_reason="no leader"), base.Unavailable),
        ({"error": {"message": "etcdserver: server stopped"}}, base.Unavailable),
        (result(events=[{"kv": {}}]), base.Unavailable),
        (result(events=[{"kv": kv("/a", "x", 7, created=3)}]), base.Compacted),
        ({"result": "nonsense"}, base.Unavailable),
    ],
)
def test_a_watch_that_cannot_go_on_says_so(make, line, error):
    storage, _ = make([done(9)], lines=[line])
    with contextlib.closing(storage.watch("/", 5)) as watch, pytest.raises(error):
        watch.next(30)


def test_a_watch_that_is_not_told_what_others_are_is_given_up(make, monkeypatch):
    monkeypatch.setattr(etcd, "SILENCE_SECONDS", 0.05)
    storage, _ = make([done(9)], lines=[result(created=True)])
    with contextlib.closing(storage.watch("/", 9)) as watch:
        storage.commit(WRITE)
        assert watch.next(0.2) == ([], 9)
    watch = storage.watch("/", 8)
    with contextlib.closing(watch), pytest.raises(base.Unavailable, match="not told"):
        watch.next(30)


@pytest.mark.parametrize("text", ["", "10.0.0.1:2379", "ftp://a", "http://", "http://a:99999"])
def test_an_endpoint_that_is_none_is_a_usage_error(text):
    with pytest.raises(errors.UsageError, match="endpoint"):
        etcd.EtcdStorage([text])

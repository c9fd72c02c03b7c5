"""Who may look at the live page's lab, and who may break it: whoever has the token."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from kproxy import errors
from kproxy.lab.dashboard import page, server
from kproxy.lab.dashboard.messages import Answer, Fault, Order, Question
from kproxy.lab.door.client import Lost

TOKEN = "the-token"
KILL = {"fault": "kill", "host": "node1", "role": "proxy"}


class Lab:
    """Notes what is asked, and answers."""

    def __init__(self) -> None:
        self.asked: list[Question] = []
        self.lost = False

    def ask(self, line: bytes, timeout: float) -> bytes:
        if self.lost:
            raise Lost("lab demo has ended meanwhile")
        self.asked.append(msgspec.json.decode(line, type=Question))
        return msgspec.json.encode(Answer(done=f"answer {len(self.asked)}"))


class Running:
    """A server with its lab behind it."""

    def __init__(self, *, allow: bool) -> None:
        self.lab = Lab()
        self.desk = server.Desk(self.lab, allow=allow)
        self.server = server.Server("127.0.0.1", 0, page.html("demo"), self.desk, TOKEN)
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, Any]:
        host, port = self.server.server_address[:2]
        connection = http.client.HTTPConnection(str(host), int(port), timeout=60)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, names)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        self.headers = response.headers
        kind = response.headers.get_content_type()
        return response.status, json.loads(data) if kind == "application/json" else data.decode()

    def order(self, body: Any = KILL, **headers: str) -> tuple[int, Any]:
        given = {"X_Kproxy_Token": TOKEN, "Content_Type": "application/json", **headers}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", "/order", data, **{k: v for k, v in given.items() if v})


@pytest.fixture
def quiet() -> Iterator[Running]:
    made = Running(allow=False)
    yield made
    made.close()


@pytest.fixture
def armed() -> Iterator[Running]:
    made = Running(allow=True)
    yield made
    made.close()


def test_the_page_is_for_who_has_the_url_that_was_printed(quiet: Running) -> None:
    assert quiet.server.url == f"http://{quiet.server.authority}/?token={TOKEN}"
    status, text = quiet.request("GET", f"/?token={TOKEN}")
    assert status == 200
    assert "<title>lab demo</title>" in text
    assert quiet.headers["Cache-Control"] == "no-store"
    assert quiet.headers["Referrer-Policy"] == "no-referrer"
    for path in ("/", "/?token=", "/?token=other", "/?Token=the-token"):
        assert quiet.request("GET", path)[0] == 403
    assert quiet.request("GET", "/favicon.ico", X_Kproxy_Token=TOKEN)[0] == 404


def test_the_page_allows_itself_nothing_but_to_ask_its_server() -> None:
    first, second = page.html("demo"), page.html("demo")
    policy = first.split('Content-Security-Policy" content="')[1].split('"')[0]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert rules["script-src"].startswith("'nonce-")
    assert "http:" not in policy
    assert rules["script-src"] not in second  # each has a nonce of its own


def test_a_name_is_text_in_the_page() -> None:
    assert "<b>" not in page.html("<b>")


def test_the_view_needs_the_header_which_no_other_sites_page_can_send(quiet: Running) -> None:
    assert quiet.request("GET", "/view", X_Kproxy_Token=TOKEN) == (
        200,
        {"view": None, "done": "answer 1", "error": ""},
    )
    assert quiet.request("GET", "/view")[0] == 403
    assert quiet.request("GET", f"/view?token={TOKEN}")[0] == 403
    assert quiet.request("GET", "/view", X_Kproxy_Token="other")[0] == 403
    assert len(quiet.lab.asked) == 1


def test_another_name_or_another_page_is_refused(armed: Running) -> None:
    elsewhere = "rebound.example:80"
    assert armed.request("GET", f"/?token={TOKEN}", Host=elsewhere)[0] == 421
    assert armed.request("GET", "/view", X_Kproxy_Token=TOKEN, Host=elsewhere)[0] == 421
    assert armed.order(Host=elsewhere)[0] == 421
    assert armed.order(Origin="http://evil.example")[0] == 403
    assert armed.order(Origin="null")[0] == 403
    assert armed.lab.asked == []
    port = armed.server.server_address[1]
    assert armed.order(Origin=f"http://127.0.0.1:{port}")[0] == 200
    assert armed.request("GET", f"/?token={TOKEN}", Host=f"localhost:{port}")[0] == 200


def test_an_order_is_passed_on(armed: Running) -> None:
    status, answer = armed.order()
    assert (status, answer["done"]) == (200, "answer 1")
    assert armed.lab.asked == [Question(order=Order(fault=Fault.KILL, host="node1", role="proxy"))]


def test_without_the_option_no_order_is(quiet: Running) -> None:
    status, answer = quiet.order()
    assert (status, answer["error"]) == (403, "started without --allow-faults")
    assert quiet.lab.asked == []


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (KILL, {"X_Kproxy_Token": ""}, 403),
        (KILL, {"X_Kproxy_Token": "other"}, 403),
        (KILL, {"Content_Type": "text/plain"}, 415),
        (KILL, {"Content_Type": "application/x-www-form-urlencoded"}, 415),
        (b"fault=kill", {}, 400),
        ({"fault": "explode"}, {}, 400),
        ({**KILL, "more": 1}, {}, 400),
        (b"x" * (server.LARGEST_ORDER + 1), {}, 413),
    ],
)
def test_what_is_no_order_is_refused(
    armed: Running, body: Any, headers: dict[str, str], status: int
) -> None:
    code, answer = armed.order(body, **headers)
    assert code == status
    assert answer["error"]
    assert armed.lab.asked == []


def test_orders_have_a_place_of_their_own(armed: Running) -> None:
    headers = {"X_Kproxy_Token": TOKEN, "Content_Type": "application/json"}
    assert armed.request("POST", "/view", json.dumps(KILL).encode(), **headers)[0] == 404
    assert armed.request("GET", "/order", X_Kproxy_Token=TOKEN)[0] == 404
    assert armed.request("PUT", "/order", b"{}", **headers)[0] == 501


def test_however_many_look_the_lab_is_looked_at_once(quiet: Running) -> None:
    found = {quiet.desk.look() for _ in range(50)}
    assert len(found) == len(quiet.lab.asked)
    assert len(quiet.lab.asked) < 50
    assert quiet.desk.pause_s >= 1.0


def test_after_an_order_the_next_look_is_a_fresh_one(armed: Running) -> None:
    before = armed.desk.look()
    armed.order()
    assert armed.desk.look() != before
    assert [one.order is None for one in armed.lab.asked] == [True, False, True]


def test_a_lab_that_has_ended_is_told(quiet: Running) -> None:
    quiet.lab.lost = True
    status, answer = quiet.request("GET", "/view", X_Kproxy_Token=TOKEN)
    assert (status, answer["error"]) == (200, "lab demo has ended meanwhile")


def test_a_place_that_is_taken_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        desk = server.Desk(Lab(), allow=False)
        with pytest.raises(errors.UsageError, match=f"cannot listen at 127.0.0.1:{port}"):
            server.Server("127.0.0.1", port, "", desk, TOKEN)


def test_on_all_addresses_every_name_is_its_own() -> None:
    with server.Server("0.0.0.0", 0, "", server.Desk(Lab(), allow=False), TOKEN) as open_to_all:
        assert not open_to_all.loopback

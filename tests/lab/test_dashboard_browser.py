"""The live page of a lab in a browser: whole at all sizes, silent, its buttons do what they say.

The lab behind it is a picture that changes with every look; a real one is in
tests/lab/test_uml_lab_command.py.
"""

import copy
import threading
from collections.abc import Iterator
from typing import Any

import headless_browser
import msgspec
import pytest

from kproxy import errors
from kproxy.lab.dashboard import page, server
from kproxy.lab.dashboard.messages import Answer, Fault, Order, Question, View

pytestmark = pytest.mark.skipif(
    headless_browser.program() is None, reason="needs the program chromium"
)
READY = "document.documentElement.dataset.ready === 'yes'"
EVIL = "<img src=x onerror=alert(1)>"
LOOKED = "Number(/look (\\d+)/.exec(document.getElementById('words').textContent)?.[1]) >= {}"


def host(name: str, kind: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "addresses": ["192.168.50.11"],
        "link": "",
        "plugged": True,
        "ready": True if kind == "node" else None,
        "parts": [],
        "pods": [],
        "received": 12.5,
        "sent": 11.0,
        **more,
    }


def chart(name: str, unit: str, *lines: str) -> dict[str, Any]:
    points: list[list[float | None]] = [[float(at), at / 7 % 3] for at in range(1, 300, 2)]
    points[40][1] = None
    series = [{"name": line, "points": points} for line in lines]
    return {"id": name, "title": f"Chart {name}", "unit": unit, "series": series}


def picture() -> dict[str, Any]:
    proxy = {"role": "proxy", "state": "up", "leads": False, "restarts": 0}
    pods = [
        {"name": "shop/front-with-a-very-long-name-6h792ns9zq", "phase": "Running", "well": True}
    ]
    nodes = [
        host("node1", "node", parts=[proxy, {**proxy, "role": "kubelet"}], pods=pods),
        host("node2", "node", parts=[{**proxy, "state": "hung"}], plugged=False, ready=False),
    ]
    control = host("control1", "control", parts=[{**proxy, "role": "manager", "leads": True}])
    alert = {
        "name": "A",
        "state": "firing",
        "severity": "critical",
        "where": "node=n2",
        "since": 1.0,
    }
    event = {"at": 280.0, "kind": "Warning", "reason": "Bad", "about": "Pod x", "text": EVIL}
    return {
        "name": "demo",
        "words": ["mode ipvs"],
        "now": 300.0,
        "faults": True,
        "trouble": ["monitor2: Prometheus does not answer"],
        "tiles": [
            {"label": f"Tile {number}", "value": "2/2", "note": "all", "tone": "good"}
            for number in range(6)
        ],
        "segments": [
            {"name": "lan", "hosts": [host("edge", "edge"), control, *nodes]},
            {"name": "outside", "hosts": [host("outside1", "outside", ready=None)]},
        ],
        "charts": [
            chart("packets", "/s", *"abcdefgh"),
            chart("loss", "%", "x y"),
            chart("none", "ms"),
        ],
        "leaders": [{"role": "manager", "host": "control1"}, {"role": "etcd", "host": ""}],
        "services": [
            {
                "name": "shop/front",
                "type": "ClusterIP",
                "addresses": ["10.96.0.7"],
                "ports": ["80/TCP"],
                "endpoints": 0,
                "loss": 0.25,
                "latency_ms": 3.21,
            }
        ],
        "alerts": [{**alert, "text": "It burns."}],
        "events": [event],
        "monitored": True,
    }


class Lab:
    """A picture that tells how often it was looked at, and notes orders."""

    def __init__(self) -> None:
        self.looks = 0
        self.orders: list[Order] = []
        self.view = picture()
        self.refuses = False
        self.ended = False

    def ask(self, line: bytes, timeout: float) -> bytes:
        if self.ended:
            raise errors.KproxyError("lab demo has ended")
        question = msgspec.json.decode(line, type=Question)
        if question.order is None:
            self.looks += 1
            shown = {**copy.deepcopy(self.view), "words": ["mode ipvs", f"look {self.looks}."]}
            return msgspec.json.encode(Answer(view=msgspec.convert(shown, View)))
        self.orders.append(question.order)
        if self.refuses:
            return msgspec.json.encode(Answer(error="it is not there"))
        return msgspec.json.encode(Answer(done=f"{question.order.fault} done"))


class Served:
    """The page of such a lab."""

    def __init__(self, lab: Lab, *, allow: bool = True) -> None:
        lab.view["faults"] = allow
        desk = server.Desk(lab, allow=allow)
        self.server = server.Server("127.0.0.1", 0, page.html("demo"), desk, "secret")
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def origin(self) -> str:
        return f"http://{self.server.authority}/"

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[headless_browser.Browser]:
    with headless_browser.opened("127.0.0.1") as found:
        yield found


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture
def served(lab: Lab, browser: headless_browser.Browser) -> Iterator[Served]:
    made = Served(lab)
    browser.requests.clear()
    browser.said.clear()
    yield made
    browser.go("about:blank")
    made.close()


def show(browser: headless_browser.Browser, served: Served) -> None:
    browser.go(served.server.url)
    browser.until(READY)


def text_of(browser: headless_browser.Browser, selector: str) -> str:
    return str(browser.value(f"document.querySelector('{selector}').textContent"))


def click(browser: headless_browser.Browser, label: str) -> None:
    button = f"document.querySelector('button[aria-label=\"{label}\"]')"
    browser.value(f"{button}.closest('details').open = true")
    browser.value(f"{button}.click()")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 800, 1400])
def test_whole_at_every_width_in_both_themes_and_silent(
    browser: headless_browser.Browser, served: Served, width: int, dark: bool
) -> None:
    browser.sized(width, 1000, dark=dark)
    show(browser, served)
    browser.until(LOOKED.format(2))
    assert browser.value("document.querySelectorAll('article.host').length") == 5
    assert browser.value("document.querySelectorAll('figure svg[role=img]').length") == 2
    assert "Nothing yet." in text_of(browser, "#charts")
    # Nothing but tables, which scroll by themselves, is wider than the window.
    assert browser.value("document.documentElement.scrollWidth") <= width
    light, dark_ground = "rgb(255, 255, 255)", "rgb(20, 23, 28)"
    ground = browser.value("getComputedStyle(document.body).backgroundColor")
    assert ground == (dark_ground if dark else light)
    assert browser.said == []
    assert {url.partition("?")[0] for url in browser.requests if not url.startswith("data:")} == {
        served.origin,
        f"{served.origin}view",
    }


def test_what_is_wrong_is_said_in_words(browser: headless_browser.Browser, served: Served) -> None:
    show(browser, served)
    node = text_of(browser, "article.sick")
    for word in ("node2", "unplugged", "not ready", "proxy hung"):
        assert word in node
    assert "manager ★" in text_of(browser, "article.control")
    assert "monitor2: Prometheus does not answer" in text_of(browser, "#trouble")
    assert "nobody" in text_of(browser, "#leaders")
    assert "25.00 %" in text_of(browser, "#services")
    assert "It burns." in text_of(browser, "#alerts")


def test_what_a_lab_says_is_text_and_never_markup(
    browser: headless_browser.Browser, served: Served
) -> None:
    show(browser, served)
    assert EVIL in text_of(browser, "#events")
    assert browser.value("document.images.length") == 0


def test_a_button_gives_its_order_and_what_came_of_it_is_shown(
    browser: headless_browser.Browser, served: Served, lab: Lab
) -> None:
    show(browser, served)
    click(browser, "Kill proxy on node1")
    browser.until("document.getElementById('done').textContent === 'kill done'")
    click(browser, "Resume proxy on node2")
    browser.until("document.getElementById('done').textContent === 'resume done'")
    assert browser.value("[...document.querySelectorAll('button')].map(b => b.ariaLabel)") == [
        *("Unplug control1", "Switch off control1", "Kill manager on control1"),
        *("Hang manager on control1", "Unplug node1", "Switch off node1", "Kill proxy on node1"),
        *("Hang proxy on node1", "Kill kubelet on node1", "Hang kubelet on node1"),
        "Delete shop/front-with-a-very-long-name-6h792ns9zq",
        *("Plug in node2", "Switch on node2", "Kill proxy on node2", "Resume proxy on node2"),
    ]
    click(browser, "Plug in node2")
    browser.until("document.getElementById('done').textContent === 'plug done'")
    lab.refuses = True
    click(browser, "Delete shop/front-with-a-very-long-name-6h792ns9zq")
    browser.until("document.getElementById('done').textContent === 'it is not there'")
    assert lab.orders == [
        Order(fault=Fault.KILL, host="node1", role="proxy"),
        Order(fault=Fault.RESUME, host="node2", role="proxy"),
        Order(fault=Fault.PLUG, host="node2"),
        Order(fault=Fault.DELETE, pod="shop/front-with-a-very-long-name-6h792ns9zq"),
    ]
    assert browser.said == []


def test_a_look_takes_no_button_away_and_closes_nothing(
    browser: headless_browser.Browser, served: Served, lab: Lab
) -> None:
    show(browser, served)
    button = "document.querySelector('button[aria-label=\"Kill proxy on node1\"]')"
    browser.value(f"{button}.closest('details').open = true")
    browser.value(f"{button}.focus()")
    browser.value(f"window.kept = {button}")
    seen = lab.looks
    browser.until(LOOKED.format(seen + 1))
    assert browser.value(f"window.kept === {button}")  # nothing of this host has changed
    lab.view["segments"][0]["hosts"][2]["pods"] = []
    browser.until("!document.body.textContent.includes('front-with-a-very-long-name')")
    assert browser.value(f"{button}.closest('details').open")
    assert browser.value(f"document.activeElement === {button}")


def test_without_the_option_there_are_no_buttons(
    browser: headless_browser.Browser, lab: Lab
) -> None:
    made = Served(lab, allow=False)
    try:
        show(browser, made)
        assert browser.value("document.querySelectorAll('button, details').length") == 0
    finally:
        browser.go("about:blank")
        made.close()


def test_the_switch_of_themes(browser: headless_browser.Browser, served: Served) -> None:
    browser.sized(800, 900, dark=False)
    show(browser, served)
    choose = (
        "(value => {{ const c = document.getElementById('theme'); c.value = value;"
        " c.dispatchEvent(new Event('change'));"
        " return getComputedStyle(document.body).backgroundColor; }})('{}')"
    )
    assert browser.value(choose.format("dark")) == "rgb(20, 23, 28)"
    assert browser.value(choose.format("light")) == "rgb(255, 255, 255)"
    assert browser.value(choose.format("")) == "rgb(255, 255, 255)"


def test_when_the_lab_has_ended_the_page_says_so_and_keeps_what_it_has(
    browser: headless_browser.Browser, served: Served, lab: Lab
) -> None:
    show(browser, served)
    lab.ended = True
    browser.until("document.getElementById('trouble').textContent === 'lab demo has ended'")
    assert "old: as it was at" in text_of(browser, "#live")
    assert browser.value("document.querySelectorAll('article.host').length") == 5
    assert browser.said == []

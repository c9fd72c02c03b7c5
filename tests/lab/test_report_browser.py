"""The report in a browser that has no network: it asks for nothing and complains about nothing."""

import re
from collections.abc import Iterator
from pathlib import Path

import headless_browser
import pytest
import report_samples as samples

from kproxy.reports import page, report

pytestmark = pytest.mark.skipif(
    headless_browser.program() is None, reason="needs the program chromium"
)

READY = "document.documentElement.dataset.ready === 'yes'"
FITTING = (
    "[...document.querySelectorAll('.plot')].every(p =>"
    " p.querySelector('.main-svg').clientWidth === p.clientWidth)"
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Every kind of block, but few of each: a browser draws slowly where CPUs are shared.
    document = report.document([samples.loaded(samples.spoiled(samples.comparison(trials=1)))])
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page.html(document))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[headless_browser.Browser]:
    with headless_browser.opened() as found:
        yield found


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 800, 1400])
def test_loads_without_network_and_without_complaints(
    browser: headless_browser.Browser, file: Path, width: int, dark: bool
) -> None:
    browser.requests.clear()
    browser.said.clear()
    browser.sized(width, 900, dark=dark)
    browser.show(file)
    browser.until(READY)
    browser.value("dispatchEvent(new Event('beforeprint'))")  # draws what is not in sight, too
    charts = file.read_text().count("data-chart=")
    browser.until(f"document.querySelectorAll('[data-drawn] .plot-container').length === {charts}")
    browser.value("dispatchEvent(new Event('afterprint'))")
    browser.until(FITTING)
    assert browser.said == []
    assert [url for url in browser.requests if not re.match("data:|blob:", url)] == [file.as_uri()]
    # Nothing but tables, which scroll by themselves, is wider than the window.
    assert browser.value("document.documentElement.scrollWidth") <= width
    light, dark_ground = "rgb(255, 255, 255)", "rgb(20, 23, 28)"
    ground = browser.value("getComputedStyle(document.body).backgroundColor")
    assert ground == (dark_ground if dark else light)


def test_the_switch_of_themes(browser: headless_browser.Browser, file: Path) -> None:
    browser.sized(800, 900, dark=False)
    browser.show(file)
    browser.until(READY)
    choose = (
        "(value => {{ const c = document.getElementById('theme'); c.value = value;"
        " c.dispatchEvent(new Event('change'));"
        " return getComputedStyle(document.body).backgroundColor; }})('{}')"
    )
    assert browser.value(choose.format("dark")) == "rgb(20, 23, 28)"
    assert browser.value(choose.format("light")) == "rgb(255, 255, 255)"
    assert browser.value(choose.format("")) == "rgb(255, 255, 255)"


def test_no_button_sends_a_chart_away_and_the_key_hides_lines(
    browser: headless_browser.Browser, file: Path
) -> None:
    browser.sized(1400, 2000, dark=False)
    browser.show(file)
    browser.until(READY)
    browser.until("document.querySelectorAll('[data-drawn] .modebar-btn').length > 0")
    titles = set(
        browser.value(
            "Array.from(document.querySelectorAll('.modebar-btn'), b => b.dataset.title)"
        )
    )
    assert len(titles) == 4
    assert not [title for title in titles if re.search("cloud|share|send|edit", title, re.I)]
    toggle = (
        "(() => { const f = [...document.querySelectorAll('figure.chart')]"
        ".find(f => f.querySelector('[data-drawn]'));"
        " f.querySelector('.key button').click();"
        " return f.querySelector('[data-chart]').data[0].visible; })()"
    )
    assert browser.value(toggle) is False
    assert browser.value(toggle) is True


def test_on_paper_no_chart_is_wider_than_its_place(
    browser: headless_browser.Browser, file: Path
) -> None:
    browser.sized(1400, 900, dark=True)
    browser.show(file)
    browser.until(READY)
    browser.value("dispatchEvent(new Event('beforeprint'))")
    browser.sized(718, 1000, dark=True)  # A4 without its margins
    browser.call("Emulation.setEmulatedMedia", media="print")
    too_wide = (
        "[...document.querySelectorAll('.plot')].filter(p =>"
        " p.querySelector('.main-svg').clientWidth > p.clientWidth).length"
    )
    try:
        assert browser.value(too_wide) == 0
        ground = browser.value("getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(255, 255, 255)"
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
    browser.sized(1400, 900, dark=True)
    browser.value("dispatchEvent(new Event('afterprint'))")
    browser.until(FITTING)


def test_without_scripts_the_tables_are_there(
    browser: headless_browser.Browser, file: Path
) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.show(file)
        tables = browser.value("document.querySelectorAll('table').length")
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert tables > 20

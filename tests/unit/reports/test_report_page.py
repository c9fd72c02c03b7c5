"""The HTML file is one whole file, and escapes what is not its own."""

import base64
import gzip
import json
import re

import report_samples as samples

from kproxy.reports import page, report

NASTY = "<script>alert(1)</script>"
TEXT = page.html(report.document([samples.loaded(samples.comparison(), NASTY)]))


def inflated(name: str) -> str:
    found = re.search(f'<script type="text/plain" id="{name}">([^<]*)</script>', TEXT)
    assert found is not None
    return gzip.decompress(base64.b64decode(found[1])).decode()


def test_the_library_and_the_charts_are_in_it() -> None:
    assert inflated("library") == page.plotly()
    figures = json.loads(inflated("figures"))
    places = [int(number) for number in re.findall(r'data-chart="(\d+)"', TEXT)]
    assert places == list(range(len(figures)))


def test_it_names_no_other_file_and_forbids_every_request() -> None:
    assert "default-src 'none'" in TEXT
    assert "connect-src" not in TEXT
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', TEXT) == []
    assert "@import" not in TEXT
    assert "url(" not in TEXT


def test_what_results_say_is_text() -> None:
    assert "&lt;script&gt;alert(1)" in TEXT
    assert "<script>alert" not in TEXT


def test_every_chart_has_a_label_and_a_table() -> None:
    charts = TEXT.count("data-chart=")
    assert len(re.findall(r'data-chart="\d+" role="img" aria-label="[^"]+"', TEXT)) == charts
    assert TEXT.count("The same as a table") == charts


def test_it_is_small_enough_to_be_sent() -> None:
    assert len(TEXT) < 3_000_000


def test_the_same_results_give_the_same_file() -> None:
    again = page.html(report.document([samples.loaded(samples.comparison(), NASTY)]))
    assert again == TEXT

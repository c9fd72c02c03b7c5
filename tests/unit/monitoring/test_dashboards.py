"""The dashboards' files: as they are written, whole, and about metrics that there are."""

import itertools
import json
import re
import warnings
from pathlib import Path
from typing import Any

import known_metrics
import pytest
import yaml

from kproxy.monitoring import profiles
from kproxy.monitoring.dashboards import __main__ as program
from kproxy.monitoring.dashboards import boards, reading
from kproxy.monitoring.dashboards.model import WIDTH
from kproxy.monitoring.profiles import Profile

FILES = sorted(boards.DIRECTORY.glob("*.json"))
PROVISIONING = boards.DIRECTORY.parent / "grafana" / "provisioning"
TITLES = {"The chain at a glance", "One proxy", "One service", "Loss and failover"}
_WORDS_OF_PROMQL = {
    *("abs", "absent", "and", "avg", "bool", "by", "changes", "clamp_min", "count", "floor"),
    *("group_left", "group_right", "histogram_quantile", "ignoring", "increase", "max", "min"),
    *("offset", "on", "or", "quantile", "rate", "sum", "time", "unless", "vector", "without"),
}

Document = dict[str, Any]


def documents() -> list[Any]:
    return [pytest.param(json.loads(path.read_text()), id=path.stem) for path in FILES]


def panels(document: Document) -> list[Document]:
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def metrics(expr: str) -> set[str]:
    """Return the names of metrics in an expression."""
    text = re.sub(r'"(?:\\.|[^"\\])*"', '""', expr)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", text)
    text = re.sub(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    return set(re.findall(r"[a-zA-Z_:][\w:]*", text)) - _WORDS_OF_PROMQL


def recorded() -> set[str]:
    return {
        rule["record"]
        for document in profiles.rules(Profile.PRODUCTION).values()
        for group in document["groups"]
        for rule in group["rules"]
        if "record" in rule
    }


def test_the_files_are_as_they_would_be_written() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert program.main(["write", "--check"]) == 0


def test_there_are_the_dashboards_that_the_documentation_names() -> None:
    found = {json.loads(path.read_text())["title"] for path in FILES}
    assert found == {f"kproxy / {title}" for title in TITLES}


@pytest.mark.parametrize("document", documents())
def test_ids_and_places_are_each_panels_own(document: Document) -> None:
    everything = document["panels"]
    ids = [panel["id"] for panel in everything]
    assert len(set(ids)) == len(ids)
    cells = list(
        itertools.chain.from_iterable(
            itertools.product(
                range(place["x"], place["x"] + place["w"]),
                range(place["y"], place["y"] + place["h"]),
            )
            for place in (panel["gridPos"] for panel in everything)
        )
    )
    assert len(set(cells)) == len(cells)
    assert {x for x, _ in cells} == set(range(WIDTH))


@pytest.mark.parametrize("document", documents())
def test_every_panel_says_what_it_shows_in_which_unit_from_the_chosen_source(
    document: Document,
) -> None:
    assert document["templating"]["list"][0]["name"] == "datasource"
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels(document):
        assert panel["title"]
        assert panel["description"].endswith(".") or panel["description"].endswith(").")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == chosen
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["datasource"] == chosen
            assert target["legendFormat"]
    titles = [panel["title"] for panel in panels(document)]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("document", documents())
def test_every_metric_exists(document: Document) -> None:
    known = known_metrics.ours() | known_metrics.FOREIGN | recorded()
    read = reading.read(document)
    used = set().union(
        *(metrics(asked.expr) for asked in read.queries),
        *(metrics(one.selector) for one in read.variables),
    )
    assert used - known == set()


def test_every_foreign_metric_is_used() -> None:
    read = [reading.read(json.loads(path.read_text())) for path in FILES]
    used = set().union(*(metrics(asked.expr) for one in read for asked in one.queries))
    assert known_metrics.FOREIGN - used == set()


@pytest.mark.parametrize("document", documents())
def test_every_variable_is_used_and_every_one_that_is_used_exists(document: Document) -> None:
    read = reading.read(document)
    texts = [asked.expr for asked in read.queries] + [one.selector for one in read.variables]
    used = set(re.findall(r"\$(\w+)", " ".join(texts))) - {"__rate_interval"}
    assert used == {one.name for one in read.variables}


def test_the_panels_of_kubernetes_mixin_are_there() -> None:
    document = json.loads((boards.DIRECTORY / "kproxy-proxy.json").read_text())
    assert {
        *("Up", "Rules sync rate", "Rules sync latency, p99", "Network programming rate"),
        *("Network programming latency, p99", "Kube API request rate", "API request latency, p99"),
        *("Memory", "CPU"),
    } <= {panel["title"] for panel in panels(document)}


def test_a_file_that_has_changed_or_is_nobodys_is_told_and_put_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "DIRECTORY", tmp_path)
    assert program.main(["write"]) == 0
    assert program.main(["write", "--check"]) == 0
    (tmp_path / "kproxy-loss.json").write_text("{}")
    (tmp_path / "old.json").write_text("{}")
    capsys.readouterr()
    assert program.main(["write", "--check"]) == 1
    assert "kproxy-loss.json old.json" in capsys.readouterr().err
    assert program.main(["write"]) == 0
    assert not (tmp_path / "old.json").exists()
    assert program.main(["write", "--check"]) == 0


def test_what_a_users_grafana_is_provisioned_with() -> None:
    provider = yaml.safe_load((PROVISIONING / "dashboards" / "kproxy.yaml").read_text())
    assert provider["apiVersion"] == 1
    assert [one["type"] for one in provider["providers"]] == ["file"]
    sources = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yaml").read_text())
    (source,) = sources["datasources"]
    assert source["type"] == "prometheus"
    production = profiles.intervals(Profile.PRODUCTION).scrape
    assert source["jsonData"]["timeInterval"] == production

"""The dashboards by Grafana's own schema, which its authors publish as types of TypeScript."""

import json

import pytest

from kproxy import errors
from kproxy.monitoring.dashboards import boards, schema

FILES = {path.name: path.read_text() for path in sorted(boards.DIRECTORY.glob("*.json"))}


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    try:
        schema.install()
    except errors.Unsupported as error:
        pytest.skip(str(error))


def test_grafana_takes_all_of_them() -> None:
    assert len(FILES) == len(boards.ALL)
    assert schema.problems(FILES) == []


def test_a_mistake_is_found() -> None:
    name, text = next(iter(FILES.items()))
    wrong = json.loads(text)
    wrong["panels"][1]["gridPos"]["h"] = "tall"
    wrong["title"] = 5
    assert [
        line.partition(":")[0].partition("(")[0]
        for line in schema.problems({name: json.dumps(wrong)})
    ] == ["kproxy-chain.ts"] * 2

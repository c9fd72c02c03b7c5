"""Whole results are read, and of damaged ones what can be."""

import dataclasses
import json
from pathlib import Path

import msgspec
import pytest
import report_samples as samples

from kproxy.errors import UsageError
from kproxy.lab import comparison
from kproxy.lab.chain import settings as chain
from kproxy.reports import reading, report
from kproxy.traffic import chainset, chainsummary, resultset
from kproxy.traffic.chainset import ChainSet, LinkTrial
from kproxy.traffic.resultset import ResultSet

WHOLE = samples.comparison(trials=2)


def test_a_whole_result_by_its_file_or_its_directory(tmp_path: Path) -> None:
    path = samples.written(WHOLE, tmp_path)
    for name in (path, tmp_path):
        found = reading.read(name)
        assert found.results == WHOLE
        assert found.troubles == ()
        assert found.label == tmp_path.name


def test_what_comes_before_a_cut_is_read(tmp_path: Path) -> None:
    path = samples.written(WHOLE, tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    found = reading.read(path)
    assert found.results.summary == WHOLE.summary
    assert 0 < len(found.results.trials) < len(WHOLE.trials)
    assert found.results.trials == WHOLE.trials[: len(found.results.trials)]
    assert any("cut short" in text for text in found.troubles)
    assert any(text.startswith("missing: ") for text in found.troubles)


def test_a_newer_format_is_said_and_what_is_known_is_read(tmp_path: Path) -> None:
    path = samples.written(WHOLE, tmp_path)
    top = json.loads(path.read_text())
    top["format"] = "kproxy.result/99"
    top["trials"][1]["number"] = {"of": "another kind"}
    top["trials"][0]["invented_later"] = 5
    path.write_text(json.dumps(top))
    found = reading.read(path)
    assert len(found.results.trials) == len(WHOLE.trials) - 1
    assert found.results.trials[0] == WHOLE.trials[0]
    assert any("'kproxy.result/99' is newer" in text for text in found.troubles)
    assert any(text.startswith("trials[1] cannot be read") for text in found.troubles)


def test_rows_are_summed_up_again_where_they_cannot_be_read(tmp_path: Path) -> None:
    path = samples.written(WHOLE, tmp_path)
    top = json.loads(path.read_text())
    top["summary"] = [{"mode": 5}]
    path.write_text(json.dumps(top))
    found = reading.read(path)
    assert isinstance(found.results, ResultSet)
    assert [row.mode for row in found.results.summary] == [row.mode for row in WHOLE.summary]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("host", 5, "host cannot be read"),
        ("kernel", ["6.1"], "kernel cannot be read"),
        ("summary", {}, "the summary cannot be read"),
        ("parameters", "none", "parameters cannot be read"),
    ],
)
def test_what_is_of_another_kind_is_named_and_the_rest_is_shown(
    tmp_path: Path, name: str, value: object, said: str
) -> None:
    path = samples.written(WHOLE, tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    found = reading.read(path)
    assert found.results.trials == WHOLE.trials
    assert len(found.results.summary) == len(WHOLE.summary)
    (trouble,) = found.troubles
    assert trouble.startswith(said)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trials", 10**12),
        ("first", "one"),
        ("modes", 5),
        ("scenarios", [[]]),
        ("pairs", "ipvs"),
        ("lossless", {"proxy-crash": 1}),
        ("unpromised", 7),
        ("notes", 7),
        ("left_out", 7),
        ("costs", {"model": {"entries": 5}}),
    ],
)
def test_a_parameter_of_another_kind_is_named_and_no_report_fails_of_it(
    tmp_path: Path, name: str, value: object
) -> None:
    path = samples.written(WHOLE, tmp_path)
    top = json.loads(path.read_text())
    top["parameters"][name] = value
    path.write_text(json.dumps(top))
    found = reading.read(path)
    assert any(text.startswith(f"parameters.{name} cannot") for text in found.troubles)
    assert report.document([found]).sections


LINK = LinkTrial(link="proxy", number=1)
CHAIN = ChainSet(
    kernel={},
    host={},
    parameters={
        **msgspec.to_builtins(chain.Parameters(links=("proxy",), left_out={"etcd": "none"})),
        "lossless": {"proxy": ["udp"]},
        "incomplete": [],
    },
    trials=(LINK,),
    summary=chainsummary.summarise([LINK], {"proxy": chainsummary.Words("Proxy", "supervisor")}),
)


def test_the_parameters_of_both_kinds_of_run_are_read_as_they_are(tmp_path: Path) -> None:
    told = dataclasses.asdict(comparison.Parameters(left_out=("ipvs: no module",), trials=2))
    told["lossless"] = ["proxy-crash"]
    whole = dataclasses.replace(WHOLE, parameters={**WHOLE.parameters, **told})
    resultset.write(whole, tmp_path / "r.json")
    chainset.write(CHAIN, tmp_path / "c.json")
    for name in ("r.json", "c.json"):
        found = reading.read(tmp_path / name)
        assert not [text for text in found.troubles if text.startswith("parameters")]
        assert found.results.parameters["left_out"]
        assert report.document([found]).sections


def test_packets_over_no_time_are_no_rate(tmp_path: Path) -> None:
    path = samples.written(WHOLE, tmp_path)
    top = json.loads(path.read_text())
    top["trials"][1]["measurements"][0]["series"][0]["step_ms"] = 0
    path.write_text(json.dumps(top))
    found = reading.read(path)
    assert any(text.startswith("trials[1] cannot be read") for text in found.troubles)
    assert report.document([found]).sections


def test_a_baseline_that_is_not_valid_spoils_also_rows_that_are_made_again(tmp_path: Path) -> None:
    path = samples.written(WHOLE, tmp_path)
    top = json.loads(path.read_text())
    del top["summary"]
    top["trials"][0]["problems"] = ["7 packets lost"]
    assert top["trials"][0]["scenario"] == "baseline"
    path.write_text(json.dumps(top))
    rows = reading.read(path).results.summary
    assert rows
    assert not any(row.valid for row in rows)


@pytest.mark.parametrize("data", [b'{"a": ' + b"[" * 100_000, b'{"a": ' + b"1" * 5000, b"\xff"])
def test_what_no_report_can_be_made_of_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"not JSON|format: is None"):
        reading.read(path)


def test_a_missing_trial_is_named(tmp_path: Path) -> None:
    path = samples.written(WHOLE, tmp_path)
    top = json.loads(path.read_text())
    gone = top["trials"].pop()
    path.write_text(json.dumps(top))
    (trouble,) = reading.read(path).troubles
    assert trouble == f"missing: {gone['mode']} {gone['scenario']}: trial {gone['number']} of 2"


def test_a_result_of_format_1_has_no_places_and_no_rates(tmp_path: Path) -> None:
    path = samples.written(samples.comparison(rates=False, trials=1), tmp_path)
    top = json.loads(path.read_text())
    top["format"] = "kproxy.result/1"
    for trial in top["trials"]:
        for one in trial["measurements"]:
            del one["losses"], one["series"]
            one["unexplained"] = 3  # meant something else then
    path.write_text(json.dumps(top))
    found = reading.read(path)
    assert found.troubles == ()
    assert {m.unexplained for t in found.results.trials for m in t.measurements} == {None}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("hello", "not JSON"),
        ("[1]", "no JSON object"),
        ("{}", "format: is None"),
        ('{"format": "kproxy.traffic/1"}', "format: is 'kproxy.traffic/1'"),
        ('{"format": "kproxy.result/1", "trials": []}', "nothing in it can be shown"),
    ],
)
def test_what_is_no_result_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        reading.read(path)
    assert str(caught.value).startswith(f"{path}: {said}")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        reading.read(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1, "b": [1, 2', {"a": 1, "b": [1]}),
        ('{"a": {"b": 1}, "c": [{"d": 1}, {"d":', {"a": {"b": 1}, "c": [{"d": 1}]}),
        ('{"a": 1, "b": "x', {"a": 1}),
        ('{"a": 1, "b', {"a": 1}),
        ("", {}),
    ],
)
def test_what_is_left_of_cut_json(text: str, found: dict[str, object]) -> None:
    assert reading.salvaged(text) == found

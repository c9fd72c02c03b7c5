"""The result file: comes back whole, sums up, and refuses what it is not."""

import dataclasses
import json
import re
import typing
from enum import StrEnum
from pathlib import Path
from typing import Any

import packet_streams as streams
import pytest

from kproxy.errors import UsageError
from kproxy.traffic import measurement, records, resultset, summary, tcp_accounting

ROW_FIELDS = [
    *("mode", "scenario", "node", "traffic", "trials", "offered_pps", "sent", "received", "lost"),
    *("duplicated", "reordered", "failover_packet_loss", "failover_time_ms"),
    *("restart_to_synced_ms", "tcp", "accuracy_ms", "valid", "modelled_share"),
    *("unexplained", "methods", "delay_ms", "differences"),
]
NEW_IN_2 = [
    *("outside_fault", "series", "failover", "reset", "convergence", "services"),
    *("loss_pattern", "delay", "recovery", "losses"),
]
REPORT = {"late": 0, "late_threshold_ms": 1.0, "lateness_ms": {"p50": 0, "p99": 0, "max": 0}}


def trial(number: int, outage_ms: int, *, problems: tuple[str, ...] = ()) -> resultset.Trial:
    packets = streams.sent(3)
    begin = streams.START + 1000 * streams.MS
    received = streams.arriving(packets, outage=(begin, begin + outage_ms * streams.MS))
    account = streams.account(packets, received, streams.plan(packets, fault=begin))
    connects = [
        records.TcpRecord("connect", "ok" if ms % 300 else "reset", 0, 0, 0, ms, ms + 10, ms, "p")
        for ms in range(1, 1000, 100)
    ]
    tcp = tcp_accounting.account(connects, "connect", fault_ns=0)
    return resultset.Trial(
        mode="ipvs",
        scenario="proxy-crash",
        number=number,
        timeline=(resultset.TimelineEvent(name="fault", ms=0.0),),
        restart_to_synced_ms=100.0 * number,
        measurements=(
            measurement.udp(account, node="hit", report=REPORT),
            measurement.tcp(tcp, node="hit", kind="connect", fault_ns=1),
        ),
        problems=problems,
    )


def results(*trials: resultset.Trial) -> resultset.ResultSet:
    return resultset.ResultSet(
        kernel={"release": "6.1"},
        host={"cpus": 2},
        parameters={"rate": 1000},
        trials=trials,
        summary=summary.summarise(trials),
    )


def test_it_comes_back_and_sums_up_to_the_same(tmp_path: Path) -> None:
    wrote = results(trial(1, 0), trial(2, 160), trial(3, 320))
    resultset.write(wrote, tmp_path / "new" / "result.json")
    read = resultset.read(tmp_path / "new" / "result.json")
    assert read == wrote
    assert summary.summarise(read.trials) == read.summary
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["result.json"]


def test_the_rows_have_the_documented_fields(tmp_path: Path) -> None:
    resultset.write(results(trial(1, 0), trial(2, 160), trial(3, 320)), tmp_path / "r.json")
    value = json.loads((tmp_path / "r.json").read_text())
    assert {"format", "kernel", "host", "parameters", "trials", "summary"} == set(value)
    assert value["format"] == "kproxy.result/2"
    udp, tcp = value["summary"]
    assert list(udp) == list(tcp) == ROW_FIELDS
    assert udp["trials"] == 3
    assert udp["sent"] == 9000
    assert udp["lost"] == udp["sent"] - udp["received"] == 480
    assert udp["failover_packet_loss"] == {
        "median": 160.0,
        "min": 0.0,
        "max": 320.0,
        "confidence": None,
    }
    assert udp["failover_time_ms"] == {
        "median": 176.0,
        "min": 0.0,
        "max": 336.0,
        "confidence": None,
    }
    assert udp["restart_to_synced_ms"] == {
        "median": 200.0,
        "min": 100.0,
        "max": 300.0,
        "confidence": None,
    }
    assert udp["tcp"] is None
    assert udp["valid"] is True
    assert tcp["sent"] is None
    assert tcp["tcp"]["attempted"] == 30
    assert set(tcp["tcp"]["connect_ms"]) == {"p50", "p99"}


def test_a_row_is_valid_only_if_all_its_trials_are() -> None:
    rows = results(trial(1, 0), trial(2, 0, problems=("the clock stood still",))).summary
    assert [row.valid for row in rows] == [False, False]
    failed = dataclasses.replace(trial(2, 0, problems=("no client",)), measurements=())
    assert [row.valid for row in results(trial(1, 0), failed).summary] == [False, False]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0, 1.0, 2.0], (2.0, 1.0, 3.0)),
        ([1.0, 2.0], (1.5, 1.0, 2.0)),
        ([1.0, None, 2.0], (2.0, 1.0, None)),
        ([None, None, 2.0], (None, 2.0, None)),
        ([None], (None, None, None)),
    ],
)
def test_never_recovered_is_longer_than_any_time(
    values: list[float | None], expected: tuple[float | None, ...]
) -> None:
    found = summary.spread(values)
    assert found is not None
    assert (found.median, found.min, found.max) == expected


def test_no_values_no_spread() -> None:
    assert summary.spread([]) is None
    assert summary.percentile([], 50) is None
    assert summary.percentile([1.0, 2.0, 3.0, 4.0], 50) == 2.0
    assert summary.percentile([1.0, 2.0, 3.0, 4.0], 99) == 4.0


def test_format_1_is_read_in_todays_words(tmp_path: Path) -> None:
    """What it called unexplained were losses outside the time of the fault."""
    path = tmp_path / "r.json"
    resultset.write(results(trial(1, 160)), path)
    value = json.loads(path.read_text())
    for one in value["trials"]:
        for measured in one["measurements"]:
            measured["unexplained"] = 7
            for name in NEW_IN_2:
                del measured[name]
    value["format"] = "kproxy.result/1"
    path.write_text(json.dumps(value))
    read = resultset.read(path)
    assert read.format == "kproxy.result/2"
    for found in read.trials[0].measurements:
        assert (found.outside_fault, found.unexplained) == (7, None)
        assert (found.failover, found.series) == (None, ())


def test_numbers_stand_on_one_line_and_texts_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    odd = ["[\n 1,\n 2\n]", "[ 3 ]"]
    wrote = dataclasses.replace(results(trial(1, 160)), parameters={"notes": odd, "none": []})
    resultset.write(wrote, path)
    assert resultset.read(path) == wrote
    lines = [line for line in path.read_text().splitlines() if '"sent": [' in line]
    assert len(lines) == 1
    assert lines[0].count(",") > 100


def test_unexplained_losses_spoil_a_trial() -> None:
    found = trial(1, 160).measurements[0]
    assert (found.unexplained, measurement.problems(found)) == (None, ())
    lost = found.lost or 0
    losses = [
        resultset.Loss(place="node1", cause=resultset.Cause.NO_ROUTE, packets=lost - 3),
        resultset.Loss(place="", cause=resultset.Cause.UNEXPLAINED, packets=3),
    ]
    told = measurement.attributed(found, losses)
    assert told.unexplained == 3
    assert measurement.problems(told) == ("udp from hit: 3 losses without place and cause",)
    assert measurement.attributed(found, losses[:1]) == dataclasses.replace(
        told, losses=(losses[0], losses[1])
    )
    more = dataclasses.replace(told, losses=(*told.losses, losses[0]))
    (said,) = [text for text in measurement.problems(more) if "by place" in text]
    assert said == f"udp from hit: {lost} losses, but {2 * lost - 3} by place and cause"
    known = resultset.Loss(place="node1", cause=resultset.Cause.RULE, packets=lost)
    assert measurement.problems(measurement.attributed(found, [known])) == ()


def test_failures_of_tcp_that_nothing_explains_spoil_a_trial() -> None:
    result = resultset.TcpResult(
        attempted=9, failed=3, reset=0, reestablished=0, outcomes={}, connect_samples_ms=()
    )
    found = resultset.Measurement(node="hit", traffic="tcp-connect", tcp=result)
    known = resultset.Loss(place="node1", cause=resultset.Cause.NO_ROUTE, packets=1)
    told = measurement.attributed(found, [known])
    assert [(one.cause, one.packets) for one in told.losses] == [
        (resultset.Cause.NO_ROUTE, 1),
        (resultset.Cause.UNEXPLAINED, 2),
    ]
    assert measurement.problems(told) == (
        "tcp-connect from hit: 2 losses without place and cause",
    )
    (said,) = measurement.problems(measurement.attributed(found, [known] * 4))
    assert said == "tcp-connect from hit: 3 losses, but 4 by place and cause"
    assert measurement.problems(measurement.attributed(found, [known] * 3)) == ()


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_other_and_newer_formats_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    resultset.write(results(trial(1, 0)), path)
    change(path, format="kproxy.result/3")
    with pytest.raises(UsageError, match=r"'kproxy.result/3' is not what this kproxy reads"):
        resultset.read(path)
    change(path, format="flent")
    with pytest.raises(UsageError, match="format: is 'flent', not"):
        resultset.read(path)
    path.write_text("[]")
    with pytest.raises(UsageError, match="format: is None"):
        resultset.read(path)


def test_cut_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    with pytest.raises(UsageError, match="No such file"):
        resultset.read(path)
    resultset.write(results(trial(1, 0)), path)
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(UsageError, match="cut, or not JSON"):
        resultset.read(path)
    path.write_text(text.replace('"trials": 1', '"trials": "one"'))
    with pytest.raises(UsageError, match=r"summary\[0\].trials"):
        resultset.read(path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"format": "\xff\xfe"}', "cut, or not JSON"),
        (b'{"format": ' + b"[" * 100_000, "cut, or not JSON"),
        (b'{"format": "kproxy.result/' + b"9" * 5000 + b'"}', "is not what this kproxy reads"),
        ('{"format": "kproxy.result/²"}'.encode(), "is not what this kproxy reads"),
    ],
)
def test_what_no_kproxy_has_written_is_refused_in_words(
    tmp_path: Path, data: bytes, said: str
) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=said):
        resultset.read(path)


def modelled(number: int, restart_ms: float | None, failover_ms: float | None) -> resultset.Trial:
    """Return a trial with a restart of 100 ms·number and a failover time of 160 ms + 16 ms."""
    one = trial(number, 160)
    udp = dataclasses.replace(one.measurements[0], modelled_ms=failover_ms)
    return dataclasses.replace(one, modelled_ms=restart_ms, measurements=(udp,))


def test_the_share_of_the_cost_model_is_the_median_of_the_trials_shares() -> None:
    rows = summary.summarise(
        [modelled(1, 50.0, 176.0), modelled(2, 180.0, 44.0), modelled(3, 0.0, 88.0)]
    )
    assert rows[0].modelled_share == resultset.ModelledShare(
        failover_time=0.5, restart_to_synced=0.5
    )


def test_other_nodes_have_no_share_of_a_restart_that_they_did_not_have() -> None:
    one = modelled(1, 50.0, 176.0)
    there = dataclasses.replace(one.measurements[0], node="other")
    rows = summary.summarise([dataclasses.replace(one, measurements=(*one.measurements, there))])
    shares = {row.node: row.modelled_share for row in rows}
    assert shares["hit"] is not None
    assert shares["other"] is not None
    assert shares["hit"].restart_to_synced is not None
    assert shares["other"].restart_to_synced is None


def test_a_time_cannot_be_more_than_modelled() -> None:
    share = summary.summarise([modelled(1, 130.0, None)])[0].modelled_share
    assert share == resultset.ModelledShare(failover_time=None, restart_to_synced=1.0)


def test_without_a_cost_model_there_is_no_share() -> None:
    assert summary.summarise([trial(1, 160)])[0].modelled_share is None


def test_files_from_before_the_cost_model_are_read(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    resultset.write(results(trial(1, 160)), path)
    value = json.loads(path.read_text())
    for row in value["summary"]:
        del row["modelled_share"]
    for one in value["trials"]:
        del one["modelled_ms"]
        for measured in one["measurements"]:
            del measured["modelled_ms"]
    path.write_text(json.dumps(value))
    assert resultset.read(path) == results(trial(1, 160))


def test_connect_times_are_left_out_where_the_clock_stands_still() -> None:
    connects = [records.TcpRecord("connect", "ok", 0, 0, 0, 1, 11, 1, "p")]
    account = tcp_accounting.account(connects, "connect", fault_ns=None)
    for timed, samples in ((True, 1), (False, 0)):
        found = measurement.tcp(account, node="hit", kind="connect", fault_ns=None, timed=timed)
        assert found.tcp is not None
        assert len(found.tcp.connect_samples_ms) == samples
        assert found.tcp.attempted == 1


DOCUMENTED = (Path(__file__).parents[3] / "docs" / "measuring.md").read_text()


def types_of_a_result() -> set[type]:
    """Return every dataclass that a result file consists of."""
    found: set[type] = set()
    waiting: list[Any] = [resultset.ResultSet]
    while waiting:
        kind = waiting.pop()
        waiting += typing.get_args(kind)
        if dataclasses.is_dataclass(kind) and isinstance(kind, type) and kind not in found:
            found.add(kind)
            waiting += typing.get_type_hints(kind).values()
    return found


@pytest.mark.parametrize("kind", sorted(types_of_a_result(), key=lambda kind: kind.__name__))
def test_every_field_of_a_result_is_documented(kind: type) -> None:
    named = set(re.findall(r"`([a-z_0-9.]+)`", DOCUMENTED))
    words = {word for name in named for word in name.split(".")}
    for listed in re.findall(r"`\{([^}`]*)\}`", DOCUMENTED):
        words |= {word.partition(":")[0].strip(" {") for word in listed.split(",")}
    fields = {field.name for field in dataclasses.fields(kind)}
    assert sorted(fields - words) == []


@pytest.mark.parametrize("values", [resultset.Cause, resultset.Verdict])
def test_every_word_of_a_result_is_documented(values: type[StrEnum]) -> None:
    assert [str(value) for value in values if f"`{value}`" not in DOCUMENTED] == []

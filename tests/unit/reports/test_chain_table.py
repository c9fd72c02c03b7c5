"""The chain's table says what the rows say; the whole of it is compared with a kept one."""

import dataclasses
import io
from pathlib import Path

from rich.console import Console

from kproxy.reports import chaintable, soaktable
from kproxy.traffic.chainset import ChainSet, LinkPause, LinkRow, LinkTraffic, LinkTrial
from kproxy.traffic.resultset import Measurement, Spread
from kproxy.traffic.soakset import Killed, SoakSet, Writes

GOLDEN = Path(__file__).parent / "chain_table.txt"


def spread(value: float | None) -> Spread:
    return Spread(median=value, min=value, max=value)


def traffic(vantage: str, lost: int = 0, failover: float = 0.0) -> tuple[LinkTraffic, ...]:
    return (
        LinkTraffic(
            vantage=vantage,
            traffic="udp",
            sent=1000,
            lost=lost,
            failover_time_ms=spread(failover),
            accuracy_ms=160.0,
        ),
        LinkTraffic(
            vantage=vantage,
            traffic="tcp-connect",
            sent=50,
            lost=lost // 10,
            failover_time_ms=spread(failover),
            accuracy_ms=None,
        ),
    )


ROW = LinkRow(
    link="proxy-pod",
    title="proxy, its pod",
    guarantor="DaemonSet controller",
    trials=1,
    noticed_by="DaemonSet controller on control3",
    repaired_by="DaemonSet controller on control3",
    detect_ms=spread(1.6),
    repair_ms=spread(169.0),
    traffic=(*traffic("hit"), *traffic("other"), *traffic("outside")),
    frozen=(
        LinkPause(node="hit", over_ms=spread(130.0)),
        LinkPause(node="other", over_ms=spread(0.0)),
    ),
    no_writes_ms=spread(0.0),
    no_pods=(),
    notes=(),
    valid=True,
)
BASELINE = dataclasses.replace(
    ROW,
    link="baseline",
    title="nothing",
    guarantor="",
    noticed_by="",
    repaired_by="",
    detect_ms=None,
    repair_ms=None,
    frozen=(),
)
MAJORITY = dataclasses.replace(
    ROW,
    link="etcd-majority",
    title="etcd's majority",
    guarantor="nobody: by hand",
    repaired_by="by hand",
    detect_ms=None,
    repair_ms=spread(61_000.0),
    no_writes_ms=spread(60_100.0),
    frozen=(),
    no_pods=tuple(LinkPause(node=node, over_ms=spread(60_000.0)) for node in ("hit", "other")),
)
NODE = dataclasses.replace(
    ROW,
    link="node",
    title="a whole node",
    guarantor="node controller",
    repaired_by="taint eviction",
    detect_ms=spread(50_000.0),
    repair_ms=Spread(median=352_000.0, min=351_000.0, max=360_000.0),
    traffic=(*traffic("hit", 900, 1.0), *traffic("other", 400, 50_000.0), *traffic("outside")),
    frozen=(LinkPause(node="other", over_ms=spread(None)),),
    notes=("hit: gone with its node",),
)


def results(*rows: LinkRow, **parameters: object) -> ChainSet:
    return ChainSet(
        kernel={"clock": "virtual", "release": "6.12"},
        host={},
        parameters={
            "seed": 1,
            "mode": "ipvs",
            "profile": "production",
            "costs": None,
            "lossless": {
                name: ["udp", "tcp-connect"] for name in ("baseline", "proxy-pod", "etcd-majority")
            },
            **parameters,
        },
        trials=(),
        summary=rows,
    )


def shown(found: ChainSet, width: int = 100) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width)
    console.print(chaintable.table(found))
    for note in chaintable.notes(found):
        console.print(note)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def test_the_whole_table_is_as_it_was_kept() -> None:
    text = shown(results(BASELINE, ROW, MAJORITY, NODE))
    assert text == GOLDEN.read_text()


def test_it_fits_into_eighty_columns() -> None:
    text = shown(results(BASELINE, ROW, MAJORITY, NODE), width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


def test_times_are_said_as_people_say_them() -> None:
    said = [chaintable.seconds(ms) for ms in (0.4, 7.2, 165.3, 12_345.0, 352_000.0)]
    assert said == ["0 ms", "7 ms", "0.17 s", "12.3 s", "352 s"]


def test_a_range_is_told_where_trials_differ() -> None:
    assert "352 s (351 s–360 s)" in chaintable.spread_text(NODE.repair_ms)
    assert chaintable.spread_text(None) == "–"
    assert chaintable.spread_text(spread(None)) == "not over"


def test_a_short_pause_is_no_news() -> None:
    row = dataclasses.replace(ROW, frozen=(LinkPause(node="hit", over_ms=spread(49.0)),))
    assert "everything worked" in shown(results(row))


def test_a_broken_promise_is_named() -> None:
    row = dataclasses.replace(ROW, traffic=traffic("other", 30, 100.0))
    text = shown(results(row))
    assert "LOST: proxy-pod, other: 30 packets" in text
    assert "LOST: proxy-pod, other: 3 connections" in text
    assert "LOST" not in shown(results(NODE))
    text = shown(results(row, lossless={"proxy-pod": ["tcp-connect"]}))
    assert "3 connections, where" in text
    assert "30 packets, where" not in text


def test_traffic_of_a_kind_that_a_later_version_has_is_called_as_there() -> None:
    sctp = dataclasses.replace(ROW.traffic[0], traffic="sctp", lost=4)
    assert "4 of 1000 sctp" in shown(results(dataclasses.replace(ROW, traffic=(sctp,))))


def test_why_something_is_not_valid_or_left_out_is_said() -> None:
    trial = LinkTrial(link="proxy-pod", number=2, problems=("the moon",))
    found = dataclasses.replace(
        results(dataclasses.replace(ROW, valid=False)),
        trials=(trial,),
        left_out={"etcd-leader": "no etcd"},
    )
    text = shown(found)
    assert "NOT VALID: proxy-pod trial 2: the moon" in text
    assert "not valid" in text
    assert "Left out: etcd-leader: no etcd." in text
    assert "No baseline was run" in text


SOAK = SoakSet(
    kernel={"clock": "virtual"},
    host={},
    parameters={"killed_for_s": 7200.0, "seed": 7},
    violations=(),
    kills=(Killed(ms=1, host="control1", role="manager"),) * 2,
    writes=Writes(acknowledged=5, refused=1, unknown=2),
    changes=30,
    settled_ms=12_000.0,
    measurements=(Measurement(node="hit", traffic="udp", sent=100, lost=0),),
)


def test_random_kills_are_told_in_a_few_lines() -> None:
    text = "\n".join(soaktable.lines(SOAK))
    assert text.startswith("2.00 h (virtual clock, seed 7): 2 processes killed: 2 manager.")
    assert "5 acknowledged, 1 refused, 2 without an answer" in text
    assert "hit: 0 of 100 packets lost." in text
    assert "12.0 s after the end" in text
    assert text.endswith("Every promise was kept.")


def test_a_promise_that_random_kills_broke_is_told() -> None:
    broken = dataclasses.replace(SOAK, violations=("lost write: x",), settled_ms=None)
    text = "\n".join(soaktable.lines(broken))
    assert "BROKEN: lost write: x" in text
    assert "kept" not in text
    assert "never" in text

"""The result file of a chain, and its summary."""

from pathlib import Path

import pytest

from kproxy import errors
from kproxy.traffic import chainset, chainsummary, resultset, soakset
from kproxy.traffic.chainset import ChainSet, LinkTrial, NodePause, Pause
from kproxy.traffic.chainsummary import Words
from kproxy.traffic.resultset import Measurement, TcpResult, TimelineEvent

WORDS = {"a": Words("link a", "somebody"), "b": Words("link b", "nobody")}


def pause(over: float | None) -> Pause:
    return Pause(usual_ms=1, longest_ms=over, over_ms=over, total_ms=over, count=3)


def trial(number: int, *, link: str = "a", over: float | None = 5.0, lost: int = 2) -> LinkTrial:
    tcp = TcpResult(
        attempted=10, failed=1, reset=0, reestablished=0, outcomes={}, connect_samples_ms=()
    )
    return LinkTrial(
        link=link,
        number=number,
        timeline=(
            TimelineEvent(name="fault", ms=0),
            TimelineEvent(name="noticed", ms=10.0 * number, detail="kubelet"),
            TimelineEvent(name="repaired", ms=20.0 * number, detail="init"),
        ),
        detect_ms=10.0 * number,
        repair_ms=20.0 * number,
        measurements=(
            Measurement(
                node="hit", traffic="udp", sent=100, lost=lost, failover_time_ms=7.0, accuracy_ms=3
            ),
            Measurement(node="hit", traffic="tcp-connect", tcp=tcp),
        ),
        changes=(NodePause(node="hit", pause=pause(over)),),
        writes=pause(0.0),
        pods=(NodePause(node="hit", pause=pause(over)),),
        notes=("hit: gone with its node",),
    )


def test_a_row_sums_up_the_trials_of_a_link() -> None:
    (row,) = chainsummary.summarise([trial(1), trial(2, over=9.0)], WORDS)
    assert (row.link, row.title, row.guarantor, row.trials) == ("a", "link a", "somebody", 2)
    assert (row.noticed_by, row.repaired_by) == ("kubelet", "init")
    assert row.repair_ms is not None
    assert (row.repair_ms.median, row.repair_ms.min, row.repair_ms.max) == (30, 20, 40)
    packets, connections = row.traffic
    assert (packets.sent, packets.lost, packets.accuracy_ms) == (200, 4, 3)
    assert (connections.sent, connections.lost) == (20, 2)
    assert row.frozen[0].over_ms.max == 9
    assert row.notes == ("hit: gone with its node",)
    assert row.valid


def test_rows_are_in_the_order_of_the_chain_whatever_that_of_the_trials() -> None:
    rows = chainsummary.summarise([trial(1, link="b"), trial(1)], WORDS)
    assert [row.link for row in rows] == ["a", "b"]


def test_what_is_not_over_is_greater_than_every_number() -> None:
    (row,) = chainsummary.summarise([trial(1), trial(2, over=None)], WORDS)
    assert row.frozen[0].over_ms.min == 5
    assert row.frozen[0].over_ms.max is None


def test_a_row_is_as_valid_as_its_trials() -> None:
    bad = LinkTrial(link="a", number=2, problems=("something",))
    (row,) = chainsummary.summarise([trial(1), bad], WORDS)
    assert not row.valid


def whole() -> ChainSet:
    trials = (trial(1), trial(2))
    return ChainSet(
        kernel={"clock": "virtual"},
        host={},
        parameters={"seed": 1},
        trials=trials,
        summary=chainsummary.summarise(trials, WORDS),
        left_out={"b": "no etcd"},
    )


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "result.json"
    chainset.write(whole(), path)
    assert chainset.read(path) == whole()
    assert path.read_text().startswith('{\n  "format": "kproxy.chain/2"')


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    chainset.write(whole(), path)
    with pytest.raises(errors.UsageError, match=r"not 'kproxy\.result/2'"):
        resultset.read(path)
    with pytest.raises(errors.UsageError, match=r"not 'kproxy\.soak/2'"):
        soakset.read(path)
    path.write_text(path.read_text().replace("kproxy.chain/2", "kproxy.chain/3"))
    with pytest.raises(errors.UsageError, match="the kproxy that wrote it"):
        chainset.read(path)


def test_what_random_kills_came_to_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = soakset.SoakSet(
        kernel={},
        host={},
        parameters={"hours": 1.0},
        violations=("one",),
        kills=(soakset.Killed(ms=3.5, host="edge", role="balancer"),),
        writes=soakset.Writes(acknowledged=1, refused=2, unknown=3),
        changes=4,
        settled_ms=None,
        measurements=(),
    )
    path = tmp_path / "result.json"
    soakset.write(found, path)
    assert soakset.read(path) == found

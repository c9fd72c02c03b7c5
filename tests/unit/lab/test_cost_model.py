"""Which model a lab uses, and how much of a time comes from it."""

import os
from pathlib import Path
from typing import Any

import pytest

from kproxy import costfile, costs
from kproxy.errors import UsageError
from kproxy.lab import costmodel
from kproxy.lab.eventlog import Event

MS = 1_000_000


def paid(end_ms: int, ms: int, node: str = "node1", **changes: Any) -> Event:
    fields = {"place": "start", "mode": "", "seconds": ms / 1e3, "node": node}
    values: dict[str, Any] = {
        "mono_ns": end_ms * MS, "source": "x", "who": "proxy", "msg": costs.PAID, "level": "info",
    }  # fmt: skip
    return Event(**{**values, "fields": fields, **changes})


def test_the_default_model_is_part_of_the_package_and_only_for_virtual_time() -> None:
    assert costmodel.resolve(None, "virtual") == costmodel.default_path()
    assert costmodel.resolve("default", "virtual") == costmodel.default_path()
    assert costmodel.resolve(None, "real") is None
    assert costmodel.resolve(None, "travel") is None
    for clock in ("real", "travel", "virtual"):
        assert costmodel.resolve("none", clock) is None


def test_a_model_under_another_clock_is_refused() -> None:
    with pytest.raises(UsageError, match="--costs default: with the real clock everything costs"):
        costmodel.resolve("default", "real")


def test_a_file_is_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    with pytest.raises(UsageError, match=r"mine\.json: No such file"):
        costmodel.resolve(str(path), "virtual")
    path.write_bytes(costfile.encode(costfile.Model(name="mine", entries=())))
    assert costmodel.resolve(str(path), "virtual") == path


def test_the_default_model_has_every_place_that_is_paid_for() -> None:
    model = costfile.read(costmodel.default_path())
    wanted = {("proxy", "start", ""), ("proxy", "list", ""), ("responder", "start", "")}
    for mode in ("ipvs", "iptables"):
        for place in (costs.SYNC_FULL, costs.SYNC_ADOPT, costs.SYNC_PARTIAL):
            wanted.add(("proxy", place, mode))
    found = {(entry.process, entry.place, entry.mode): entry for entry in model.entries}
    assert wanted <= found.keys()
    for entry in found.values():
        assert entry.kernel
        assert entry.machine
        assert all(point.n >= 5 for point in entry.points)
        assert entry.seconds.at(10, 100) > 0


def test_the_environment_carries_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(costs.VARIABLE, "from before")
    costmodel.apply(None)
    assert costs.VARIABLE not in os.environ
    assert costmodel.applied() is None
    costmodel.apply(Path("/a/model.json"))
    assert costmodel.applied() == Path("/a/model.json")
    costmodel.apply(None)


def test_what_a_nodes_proxy_and_the_controllers_paid() -> None:
    events = [
        paid(300, 100),
        paid(250, 100),
        paid(900, 50),
        paid(500, 50, node="node2"),
        paid(600, 50, who="responder"),
        paid(700, 50, msg="synced"),
        paid(400, 50, node="", who="manager"),
    ]
    assert costmodel.paid(events, "node1") == [
        (150 * MS, 300 * MS),
        (350 * MS, 400 * MS),
        (850 * MS, 900 * MS),
    ]


@pytest.mark.parametrize(
    ("begin", "end", "ms"), [(0, 1000, 200.0), (200, 300, 100.0), (299, 851, 2.0), (400, 500, 0.0)]
)
def test_what_of_it_lies_between_two_points(begin: int, end: int, ms: float) -> None:
    intervals = [(150 * MS, 300 * MS), (850 * MS, 900 * MS)]
    assert costmodel.overlap_ms(intervals, begin * MS, end * MS) == ms


def test_how_much_of_an_outage_is_modelled() -> None:
    intervals = [(1100 * MS, 1200 * MS)]

    def modelled(first_good: float | None, failover: float | None) -> float | None:
        return costmodel.outage_modelled_ms(
            intervals, fault_ns=1000 * MS, first_good_ms=first_good, failover_time_ms=failover
        )

    assert modelled(250.0, 200.0) == 100.0
    assert modelled(150.0, 100.0) == 50.0
    assert modelled(500.0, 100.0) == 0.0
    assert modelled(None, 0.0) == 0.0
    assert modelled(None, None) is None

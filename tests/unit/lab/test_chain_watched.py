"""What only monitoring catches: how a fault is seen through, and what its records say of it."""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kproxy import errors
from kproxy.lab import pager
from kproxy.lab.chain import faults, mixin, settings, table, watched
from kproxy.lab.chain.alarms import Act, Alarms, Notice
from kproxy.lab.chain.stage import FAULT
from kproxy.lab.chain.watched import Fault, Play, Variant
from kproxy.lab.clusterfile import Profile
from kproxy.lab.eventlog import EventLog
from kproxy.monitoring import profiles
from kproxy.monitoring.remediation.journal import Line
from kproxy.monitoring.remediation.records import AnyRecord, Began, Ended, Notified, Result, Seen

SECOND = 10**9


class Clock:
    """Time goes on only while somebody sleeps; what is due then happens at its time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        end = self.now + seconds
        for at, act in [one for one in self.due if one[0] <= end]:
            self.due.remove((at, act))
            self.now = at
            act()
        self.now = end


class Stage:
    """A stage on which a fault is over when somebody says so."""

    hand_s = 60.0
    cluster = None

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.marks: list[Any] = []
        self.watched: Any = None
        self.acts: list[str] = []
        self.over_ns: int | None = None

    @property
    def fault_ns(self) -> int | None:
        return next((mark.ns for mark in self.marks if mark.name == FAULT), None)

    def mark(self, name: str, ns: int | None = None, detail: str = "") -> int:
        when = round(self.clock.now * SECOND) if ns is None else ns
        self.marks.append(SimpleNamespace(name=name, ns=when, detail=detail))
        return when

    def sleep(self, seconds: float) -> None:
        self.clock.sleep(seconds)

    def heal(self) -> None:
        self.over_ns = round(self.clock.now * SECOND)

    def told(self) -> list[tuple[str, float, str]]:
        zero = self.fault_ns or 0
        found = sorted(self.marks, key=lambda mark: mark.ns)
        return [(one.name, round((one.ns - zero) / SECOND, 1), one.detail) for one in found]


class Records:
    """What monitoring's records say."""

    def __init__(self) -> None:
        self.page: Notice | None = None
        self.taken: Notice | None = None
        self.done: Act | None = None

    def paged(self, names: object) -> Notice | None:
        return self.page

    def told(self) -> Notice | None:
        return self.taken

    def cure(self, repaired: int | None) -> Act | None:
        return self.done

    def seen(self, notice: Notice) -> int | None:
        return notice.ns - SECOND


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(watched, "time", made)
    return made


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Records:
    made = Records()
    monkeypatch.setattr(watched, "Alarms", lambda cluster, since: made)
    return made


def cause(stage: Any) -> None:
    stage.mark(FAULT)


def hand(stage: Any) -> None:
    stage.acts.append("by hand")
    stage.heal()


def over(stage: Any) -> Callable[[], int | None]:
    return lambda: stage.over_ns


def undo(stage: Any) -> None:
    stage.acts.append("undone")


FAULT_OF = Fault(
    name="f",
    title="a fault",
    cause=cause,
    over=over,
    by_hand=hand,
    itself="itself",
    undo=undo,
)


def run(play: Play, stage: Any) -> None:
    """Run it on what has as much of a stage as it needs."""
    play(stage)


def play(clock: Clock, variant: Variant, *due: tuple[float, Callable[[Stage], None]]) -> Stage:
    stage = Stage(clock)
    for seconds, act in due:
        clock.due.append((clock.now + seconds, partial(act, stage)))
    run(Play(FAULT_OF, variant), stage)
    return stage


def test_what_repairs_itself_is_waited_for(clock: Clock, records: Records) -> None:
    stage = play(clock, Variant.ALONE, (20.0, Stage.heal))
    assert stage.told() == [("fault", 0, ""), ("repaired", 20.0, "itself")]
    assert stage.acts == ["undone"]
    assert stage.watched.waited_ms is None


def test_what_nobody_repairs_is_given_up_and_repaired_by_hand(
    clock: Clock, records: Records
) -> None:
    stage = play(clock, Variant.ALONE)
    assert stage.told() == [("fault", 0, "")]
    assert stage.watched.waited_ms == watched.ALONE_S * 1000
    assert stage.acts == ["by hand", "undone"]


def test_alert_action_and_verification_are_those_of_the_records(
    clock: Clock, records: Records
) -> None:
    def act(stage: Stage) -> None:
        now = round(clock.now * SECOND)
        notice = Notice(ns=now, alert="A", labels={})
        records.done = Act(ns=now, action="restart", told=notice)

    def verify(stage: Stage) -> None:
        assert records.done is not None
        ended = round(clock.now * SECOND)
        records.done = dataclasses.replace(records.done, ended_ns=ended, helped=True)

    stage = play(clock, Variant.REMEDIATED, (3.0, act), (4.0, Stage.heal), (6.0, verify))
    assert stage.told() == [
        ("fault", 0, ""),
        ("noticed", 2.0, "Prometheus, A"),
        ("alert", 3.0, "A"),
        ("action", 3.0, "restart"),
        ("repaired", 4.0, "remediation, restart"),
        ("verified", 6.0, "restart"),
    ]
    found = stage.watched
    assert (found.alert, found.action) == ("A", "restart")
    assert [round(ms) for ms in (found.seen_ms, found.alert_ms, found.verified_ms)] == [
        2000,
        3000,
        6000,
    ]


def test_an_action_after_the_repair_has_not_repaired_it(clock: Clock, records: Records) -> None:
    def act(stage: Stage) -> None:
        records.done = Act(ns=round(clock.now * SECOND), action="late", told=None, ended_ns=1)

    stage = play(clock, Variant.REMEDIATED, (3.0, Stage.heal), (4.0, act))
    assert ("repaired", 3.0, "itself") in stage.told()
    assert stage.watched.verified_ms is None


def test_a_person_comes_after_the_alert_and_repairs_it(clock: Clock, records: Records) -> None:
    def page(stage: Stage) -> None:
        records.page = Notice(ns=round(clock.now * SECOND), alert="KubeProxyDown", labels={})

    stage = play(clock, Variant.MIXIN, (930.0, page))
    assert stage.acts == ["by hand", "undone"]
    assert stage.watched.hand_ms == 60_000
    assert stage.told()[-1] == ("repaired", 990.0, watched.BY_HAND)


def test_who_repairs_itself_before_the_mixins_alert_needs_no_person(
    clock: Clock, records: Records
) -> None:
    stage = play(clock, Variant.MIXIN, (25.0, Stage.heal))
    assert stage.acts == ["undone"]
    assert stage.watched.alert == ""
    assert stage.told()[-1] == ("repaired", 25.0, "itself")


def test_what_does_not_end_after_a_repair_by_hand_is_no_result(
    clock: Clock, records: Records
) -> None:
    stuck = dataclasses.replace(FAULT_OF, by_hand=lambda stage: None)
    with pytest.raises(errors.MeasurementError, match="not over"):
        run(Play(stuck, Variant.ALONE), Stage(clock))


# The records.


def cluster_of(tmp_path: Path) -> Any:
    (tmp_path / "logs").mkdir()
    return SimpleNamespace(
        events=EventLog(tmp_path / "logs"),
        places=SimpleNamespace(monitoring=SimpleNamespace(root=tmp_path)),
    )


def journal_of(tmp_path: Path, since: float) -> None:
    labels = {"alertname": "A", "node": "node1"}
    seen = Seen(fingerprint="f1", firing=True, starts=since + 1, labels=labels)
    dog = Seen(fingerprint="w", firing=True, starts=0, labels={"alertname": "Watchdog"})
    why: dict[str, Any] = {"action": "restart", "target": "Node/n", "why": ""}
    why["instance"] = f"f1@{since + 1:.6f}"
    records: list[AnyRecord] = [
        Notified(at=since - 5, peer="", group_key="", receiver="", alerts=[seen]),
        Notified(at=since + 2, peer="", group_key="", receiver="", alerts=[dog, seen]),
        Began(at=since + 3, **why),
        Notified(at=since + 4, peer="", group_key="", receiver="", alerts=[seen]),
        Ended(at=since + 5, result=Result.HELPED, **why),
    ]
    lines = [Line.write(one) for one in records]
    place = tmp_path / "remediation"
    place.mkdir()
    (place / "journal-000001.jsonl").write_bytes(b"".join(lines) + b'{"half')


def test_the_journal_tells_on_the_labs_clock(tmp_path: Path) -> None:
    now = time.monotonic_ns()
    cluster = cluster_of(tmp_path)
    journal_of(tmp_path, time.time())
    found = Alarms(cluster, now)
    told = found.told()
    assert told is not None
    assert (told.alert, told.labels["node"]) == ("A", "node1")
    assert round((told.ns - now) / SECOND) == 2
    (act,) = found.acts()
    assert (act.action, act.helped, act.told) == ("restart", True, told)
    assert round((act.ns - now) / SECOND) == 3
    assert act.ended_ns is not None
    assert round((act.ended_ns - now) / SECOND) == 5
    cluster.events.close()


def test_an_action_before_the_repair_is_its_cause_and_the_last_one_of_several(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster = cluster_of(tmp_path)
    found = Alarms(cluster, 0)
    acts = [Act(ns=ns, action=str(ns), told=None) for ns in (1, 2, 3)]
    monkeypatch.setattr(found, "acts", lambda: acts)
    assert found.cure(2) == acts[1]
    assert found.cure(None) == acts[0]
    assert found.cure(0) == acts[0]
    cluster.events.close()


def test_people_are_told_by_the_pagers_log(tmp_path: Path) -> None:
    cluster = cluster_of(tmp_path)
    line = '{{"mono_ns": {}, "msg": "{}", "status": "{}", "alert": "{}", "labels": {{}}}}\n'
    (tmp_path / "logs" / "admin-pager.log").write_text(
        line.format(5, pager.TOLD, "firing", "KubeProxyDown")
        + line.format(20, pager.TOLD, "firing", "Other")
        + line.format(30, pager.TOLD, "resolved", "KubeProxyDown")
        + line.format(40, pager.TOLD, "firing", "KubeProxyDown")
    )
    told = Alarms(cluster, 10).paged(mixin.ALERTS)
    assert told is not None
    assert told.ns == 40
    assert Alarms(cluster, 10).paged(("moon",)) is None
    cluster.events.close()


def test_the_mixins_rules_stand_alone() -> None:
    kept: list[str] = []
    for document in profiles.rules("production").values():
        for group in mixin.without_others(document)["groups"]:
            assert group["name"]
            kept += [rule["alert"] for rule in group["rules"]]
    assert sorted(kept) == sorted([*mixin.ALERTS, "Watchdog"])


# The links.


def test_every_fault_is_played_in_all_variants_on_a_cluster_of_each() -> None:
    for fault in faults.FAULTS:
        names = table.named((fault.name,))
        variants = {table.LINKS[name].variant for name in names}
        assert variants == ({Variant.ALONE} if fault.name == faults.PROBED else set(Variant))
        assert fault.summary.endswith(".")
    groups = table.groups(tuple(table.LINKS))
    for group in groups:
        assert len({table.LINKS[name].variant for name in group}) == 1
    assert table.named(("node", "proxy-hung", "node")) == (
        "node",
        "proxy-hung-alone",
        "proxy-hung-remediated",
        "proxy-hung-mixin",
    )


def test_a_variant_says_who_watches_and_how_fast() -> None:
    parameters = settings.Parameters()
    files = {variant: parameters.file(variant) for variant in ("", *Variant)}
    watching = {variant: file.watched_by for variant, file in files.items()}
    acting = {variant: one.remediation for variant, one in watching.items() if one is not None}
    assert acting == {Variant.REMEDIATED: True, Variant.MIXIN: False}
    assert files[Variant.REMEDIATED].profile is Profile.LAB
    assert files[Variant.MIXIN].profile is Profile.PRODUCTION


def test_without_prometheus_what_needs_it_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "has_monitoring", lambda: False)
    monkeypatch.setattr(settings, "has_etcd", lambda: True)
    wanted = settings.Parameters(links=tuple(table.LINKS), mode="nftables")
    able = settings.able(wanted, named=False)
    assert able.members == 3
    assert able.left_out["proxy-hung-mixin"] == settings.MONITORING_MISSING
    assert "nftables" in able.left_out["weight-zero-alone"]
    assert "proxy-hung-alone" in able.links
    with pytest.raises(errors.UsageError, match="--monitoring"):
        settings.able(settings.Parameters(links=("proxy-hung-mixin",)), named=True)

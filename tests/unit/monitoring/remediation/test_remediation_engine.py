import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from remediation_alerts import Mend
from remediation_receiver import Receiver, receiver

from kproxy.api.durations import Duration
from kproxy.errors import KproxyError
from kproxy.monitoring.remediation import repair
from kproxy.monitoring.remediation.journal import JournalFailed
from kproxy.monitoring.remediation.records import Began, Ended, Held, Ran, Result
from kproxy.monitoring.remediation.seams import Outcome, Target, Verdict
from kproxy.monitoring.remediation.settings import ActionSettings, Guards, Settings
from netns.wait import wait_until

SOON = 0.05
QUICK = {"verify_within": SOON, "verify_every": SOON / 5, "run_within": 60.0}


def ends(one: Receiver) -> list[tuple[str, bool]]:
    return [(r.result, r.escalated) for r in one.records() if isinstance(r, Ended)]


def holds(one: Receiver) -> list[str]:
    return [record.reason for record in one.records() if isinstance(record, Held)]


def test_an_alert_is_checked_repaired_verified_and_told_of(tmp_path: Path) -> None:
    mend = Mend(**QUICK)
    with receiver(tmp_path, mend) as one:
        one.hear()
        one.engine.run_until_idle()
        assert one.words() == ["Notified", "Began", "Ran", "helped"]
        assert [target.node for target in mend.ran] == ["n1"]
        began = next(record for record in one.records() if isinstance(record, Began))
        assert mend.verified[0].begun == began.at
        assert mend.ran[0].begun == began.at
        assert one.counts("actions_total") == {'action="mend",result="helped"': 1.0}
        assert one.counts("escalations_total") == {}
        assert one.events.told == [
            ("Node/n1", "RemediationBegan", False),
            ("Node/n1", "RemediationHelped", False),
        ]


def test_it_is_written_down_before_it_is_done(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    class Looking(Mend):
        def run(self, target: Target) -> Outcome:
            seen.append(one.words())
            return super().run(target)

    with receiver(tmp_path, Looking(**QUICK)) as one:
        one.hear()
        one.engine.run_until_idle()
    assert seen == [["Notified", "Began"]]


def test_what_did_not_help_is_left_to_a_human(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(repair, "time", SimpleNamespace(monotonic=lambda: now[0]))

    class Looked(Mend):
        def verify(self, target: Target) -> Verdict:
            now[0] += SOON / 2
            return super().verify(target)

    mend = Looked(**QUICK)
    mend.well = Verdict(False, "still broken")
    with receiver(tmp_path, mend) as one:
        one.hear()
        one.engine.run_until_idle()
        assert ends(one) == [("ineffective", True)]
        assert len(mend.verified) == 2
        assert one.counts("escalations_total") == {'action="mend",reason="ineffective"': 1.0}
        assert one.events.told[-1] == ("Node/n1", "RemediationFailed", True)


def test_an_action_that_fails_is_verified_once_for_it_may_be_well_anyway(tmp_path: Path) -> None:
    mend = Mend(**QUICK)
    mend.outcome = Outcome(False, "no such pod")
    with receiver(tmp_path, mend) as one:
        one.hear()
        one.engine.run_until_idle()
        mend.well = Verdict(False, "still broken")
        one.hear(one.alert("n2"))
        one.engine.run_until_idle()
        assert ends(one) == [("helped", False), ("failed", True)]
        assert len(mend.verified) == 2


@pytest.mark.parametrize(
    "error", [KproxyError("cannot reach it"), ZeroDivisionError("division by zero")]
)
def test_an_action_that_raises_has_failed(tmp_path: Path, error: Exception) -> None:
    class Raising(Mend):
        def run(self, target: Target) -> Outcome:
            raise error

    mend = Raising(**QUICK)
    mend.well = Verdict(False, "still broken")
    with receiver(tmp_path, mend) as one:
        one.hear()
        one.engine.run_until_idle()
        assert ends(one) == [("failed", True)]
        ran = next(record for record in one.records() if isinstance(record, Ran))
        assert str(error) in ran.detail


def test_an_action_that_hangs_is_given_up_and_nothing_else_runs_until_it_ends(
    tmp_path: Path,
) -> None:
    let_go = threading.Event()

    class Hanging(Mend):
        def run(self, target: Target) -> Outcome:
            super().run(target)
            let_go.wait(60)
            return self.outcome

    mend = Hanging(**{**QUICK, "run_within": SOON})
    mend.well = Verdict(False, "still broken")
    with receiver(tmp_path, mend) as one:
        one.hear()
        one.engine.run_until_idle()
        assert ends(one) == [("timed-out", True)]
        one.hear(one.alert("n2"))
        one.engine.run_until_idle()
        assert holds(one) == ["one-at-a-time"]
        let_go.set()
        assert len(mend.ran) == 1


def test_what_would_not_help_is_not_run_and_at_last_left_to_a_human(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mend = Mend(**QUICK)
    mend.helps = Verdict(False, "the API server is down: it could not sync")
    guards = Guards(patience=Duration(SOON), recheck=Duration(SOON))
    settings = Settings(guards=guards, actions={"mend": ActionSettings()})
    with receiver(tmp_path, mend, settings=settings) as one:
        with monkeypatch.context() as still:  # its patience is short, and we may be slow
            at = one.ledger.clock.now()
            still.setattr(one.ledger.clock, "now", lambda: at)
            one.hear()
            one.engine.run_until_idle()
        assert holds(one) == ["would-not-help"]
        worker = threading.Thread(target=one.engine.run)
        worker.start()
        with one.ledger.changed:
            assert one.ledger.changed.wait_for(lambda: not one.ledger.state.waiting(), 60)
        one.engine.end()
        worker.join(60)
        assert ends(one) == [("expired", True)]
        last = one.records()[-1]
        assert isinstance(last, Ended)
        assert "could not sync" in last.why
    assert mend.ran == []


def test_a_check_that_cannot_tell_holds(tmp_path: Path) -> None:
    class Blind(Mend):
        def check(self, target: Target) -> Verdict:
            raise KproxyError("no answer")

    with receiver(tmp_path, Blind(**QUICK)) as one:
        one.hear()
        one.engine.run_until_idle()
        assert holds(one) == ["check-failed"]


def test_checks_that_hang_are_not_piled_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = threading.Event()
    monkeypatch.setattr("kproxy.monitoring.remediation.repair.HANGING_MOST", 2)

    class Hanging(Mend):
        asked = 0

        def check(self, target: Target) -> Verdict:
            self.asked += 1
            let_go.wait(60)
            return self.helps

    mend = Hanging(**QUICK, check_within=SOON)
    with receiver(tmp_path, mend) as one:
        one.hear(*(one.alert(f"n{number}") for number in range(3)))
        one.engine.run_until_idle()
        assert holds(one) == ["check-failed"] * 3
        wait_until(lambda: mend.asked >= 2, 60, "the second one to begin")
        let_go.set()
    assert mend.asked == 2


def test_resolved_while_it_was_checked_is_not_repaired(tmp_path: Path) -> None:
    class Slow(Mend):
        def check(self, target: Target) -> Verdict:
            one.hear({**fires, "status": "resolved", "endsAt": fires["startsAt"]})
            return self.helps

    mend = Slow(**QUICK)
    with receiver(tmp_path, mend) as one:
        fires = one.alert()
        one.hear(fires)
        one.engine.run_until_idle()
        assert one.words() == ["Notified", "Notified"]
    assert mend.ran == []


def test_a_second_node_waits_for_its_turn_in_a_sick_cluster(tmp_path: Path) -> None:
    mend = Mend(**QUICK)
    with receiver(tmp_path, mend) as one:
        one.nodes.are = {f"n{i}": i < 5 for i in range(10)}
        one.hear()
        one.engine.run_until_idle()
        assert holds(one) == ["too-many-unwell"]
        assert one.counts("refusals_total") == {'action="mend",reason="too-many-unwell"': 1.0}
    assert mend.ran == []


def test_what_waits_until_its_patience_ends_is_ended_at_that_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a sum of times is rounded, too: no step may then be taken again at once."""
    patience = Duration(900.0 / 7)
    settings = Settings(
        actions={"mend": ActionSettings()}, guards=Guards(patience=patience, max_age=Duration(1e6))
    )
    with receiver(tmp_path, Mend(**QUICK), settings=settings) as one:
        now = [1.8e9]
        while now[0] + patience - now[0] >= patience:
            now[0] += 1.0 / 3
        monkeypatch.setattr(one.ledger.clock, "now", lambda: now[0])
        one.nodes.are = {f"n{i}": True for i in range(10)}
        one.hear()
        while one.words()[-1] != Result.EXPIRED:
            name, episode = one.ledger.state.waiting()[0]
            assert episode.due >= now[0]
            before, now[0] = now[0], episode.due
            one.engine.step(name)
            assert now[0] > before or len(one.records()) == 2


def test_what_is_held_is_looked_at_less_and_less_often(tmp_path: Path) -> None:
    mend = Mend(**QUICK)
    with receiver(tmp_path, mend) as one:
        one.nodes.are = {f"n{i}": True for i in range(10)}
        one.hear()
        for _ in range(3):
            name, _ = one.ledger.state.waiting()[0]
            one.engine.step(name)
        mend.helps = Verdict(False, "it is whole")
        one.nodes.are = {}
        one.engine.step(name)
        held = [record for record in one.records() if isinstance(record, Held)]
        assert [record.reason for record in held] == ["too-many-unwell"] * 3 + ["would-not-help"]
        waits = [round(record.until - record.at, 6) for record in held]
        assert waits == [10.0, 20.0, 40.0, 80.0]


@pytest.mark.parametrize("where", ["all", "action"])
def test_a_dry_run_looks_and_does_nothing(tmp_path: Path, where: str) -> None:
    mend = Mend(**QUICK)
    action = ActionSettings(dry_run=where == "action")
    settings = Settings(dry_run=where == "all", actions={"mend": action})
    with receiver(tmp_path, mend, settings=settings) as one:
        one.hear()
        one.engine.run_until_idle()
        assert ends(one) == [("dry-run", False)]
    assert mend.ran == []


def test_a_dry_run_asks_who_can_rehearse(tmp_path: Path) -> None:
    class Rehearsed(Mend):
        def rehearse(self, target: Target) -> Outcome:
            return Outcome(True, f"would mend {target.node} with glue")

    settings = Settings(dry_run=True, actions={"mend": ActionSettings()})
    with receiver(tmp_path, Rehearsed(**QUICK), settings=settings) as one:
        one.hear()
        one.engine.run_until_idle()
        last = one.records()[-1]
        assert isinstance(last, Ended)
        assert last.why == "would mend n1 with glue"


class Died(BaseException):
    """Stands for SIGKILL: nothing after it is done."""


@pytest.mark.parametrize(("is_well", "end"), [(True, "helped"), (False, "interrupted")])
@pytest.mark.parametrize("when", ["before it ran", "after it ran"])
def test_what_was_interrupted_is_verified_and_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_well: bool, end: str, when: str
) -> None:
    mend = Mend(**QUICK)
    with receiver(tmp_path, mend) as one, monkeypatch.context() as dying:
        fires = one.alert()
        one.hear(fires)

        def die(*_: object, **__: object) -> None:
            raise Died

        where = "_run" if when == "before it ran" else "verify"
        dying.setattr(f"kproxy.monitoring.remediation.repair.Repairs.{where}", die)
        with pytest.raises(Died):
            one.engine.run_until_idle()
    mend.well = Verdict(is_well, "so it is")
    ran = len(mend.ran)
    with receiver(tmp_path, mend) as one:
        one.hear(fires)
        one.engine.run_until_idle()
        assert ends(one) == [(end, not is_well)]
        assert len(mend.ran) == ran
        assert one.ledger.state.guards.lease == ""


def test_what_waited_is_done_after_a_restart(tmp_path: Path) -> None:
    mend = Mend(**QUICK)
    with receiver(tmp_path, mend) as one:
        one.hear()
    with receiver(tmp_path, mend) as one:
        one.engine.run_until_idle()
        assert ends(one) == [("helped", False)]


def test_limits_hold_over_a_restart(tmp_path: Path) -> None:
    mend = Mend(**QUICK, runs=1)
    with receiver(tmp_path, mend) as one:
        one.hear()
        one.engine.run_until_idle()
    with receiver(tmp_path, mend) as one:
        one.hear(one.alert("n2"))
        one.engine.run_until_idle()
        assert holds(one) == ["rate-limit"]


def test_an_action_that_is_gone_after_a_restart_leaves_its_work_to_a_human(
    tmp_path: Path,
) -> None:
    with receiver(tmp_path, Mend(**QUICK)) as one:
        one.hear()
    with receiver(tmp_path) as one:
        # A counter that appears with a 1 has not increased, for Prometheus.
        assert 'escalations_total{action="unknown",reason="expired"} 0' in one.text()
        one.engine.run_until_idle()
        assert ends(one) == [("expired", True)]
        assert one.counts("escalations_total") == {'action="unknown",reason="expired"': 1.0}
        when = one.records()[-1].at
        assert one.counts("last_escalation_timestamp_seconds") == {'action="unknown"': when}


@pytest.mark.parametrize("rotated", [False, True])
def test_when_something_was_left_to_a_human_is_told_after_a_restart(
    tmp_path: Path, rotated: bool
) -> None:
    mend, other = Mend(**QUICK), Mend(**QUICK)
    other.name = "other"
    mend.well = Verdict(False, "still broken")
    with receiver(tmp_path, mend, other) as one:
        assert one.counts("last_escalation_timestamp_seconds") == {}
        one.hear()
        one.engine.run_until_idle()
        ended = one.records()[-1]
        if rotated:
            one.ledger.write(one.ledger.state.snapshot(ended.at))
    with receiver(tmp_path, mend, other) as one:
        assert one.counts("escalations_total") == {}
        told = {'action="mend"': ended.at}
        assert one.counts("last_escalation_timestamp_seconds") == told
        # Nor is what was no action at all forgotten.
        strange = one.hear(one.alert("n2", remediation="strange"))
        told['action="unknown"'] = strange.at
        assert one.counts("last_escalation_timestamp_seconds") == told


def test_nothing_is_begun_that_cannot_be_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mend = Mend(**QUICK)
    with receiver(tmp_path, mend) as one:
        one.hear()

        def fail(*_: object) -> None:
            one.engine.end()
            raise JournalFailed("no room")

        monkeypatch.setattr("kproxy.monitoring.remediation.journal.Journal.append", fail)
        one.engine.run_until_idle()
        assert len(one.ledger.state.waiting()) == 1
    assert mend.ran == []

"""Which alert is news, one case each; test_remediation_orders.py tries all orders."""

import pytest
from remediation_alerts import START, alert, notification

from kproxy.monitoring.remediation import webhook
from kproxy.monitoring.remediation.book import Policy
from kproxy.monitoring.remediation.records import Ended, Phase, Result, Said, instance
from kproxy.monitoring.remediation.seams import Limits
from kproxy.monitoring.remediation.settings import Guards
from kproxy.monitoring.remediation.state import State

POLICY = Policy({"mend": frozenset({"node"})}, 3600.0, 3, 900.0)
NOW = START + 30
FIRST = instance("of-n1", START)


def made() -> State:
    return State(Guards(), lambda _: Limits())


def hear(state: State, *alerts: dict[str, object], at: float = NOW) -> list[Said]:
    """Take a notification; return what became of its alerts."""
    record = state.decide(webhook.decode(notification(*alerts)), at, "", POLICY)
    state.apply(record)
    return [seen.said for seen in record.alerts]


def end(state: State, result: Result = Result.HELPED, name: str = FIRST) -> None:
    state.apply(
        Ended(at=NOW, instance=name, action="mend", target="Node/n1", result=result, why="")
    )


def waiting(state: State) -> list[str]:
    return [name for name, _ in state.waiting()]


def test_news_is_taken_once() -> None:
    state = made()
    assert hear(state, alert()) == [Said.TAKEN]
    assert hear(state, alert(), at=NOW + 1) == [Said.REPEATED]
    assert waiting(state) == [FIRST]


def test_the_same_twice_in_one_notification_is_taken_once() -> None:
    state = made()
    assert hear(state, alert(), alert()) == [Said.TAKEN, Said.REPEATED]


@pytest.mark.parametrize("result", list(Result))
def test_what_was_dealt_with_is_not_taken_again(result: Result) -> None:
    state = made()
    hear(state, alert())
    end(state, result)
    assert hear(state, alert(), at=NOW + 600) == [Said.REPEATED]
    assert waiting(state) == []


def test_what_fires_long_after_its_repair_is_left_to_a_human_once() -> None:
    state = made()
    hear(state, alert())
    end(state)
    assert hear(state, alert(), at=NOW + 899) == [Said.REPEATED]
    assert hear(state, alert(), at=NOW + 901) == [Said.RELAPSED]
    assert hear(state, alert(), at=NOW + 902) == [Said.REPEATED]
    assert waiting(state) == []
    assert state.sick_nodes(NOW + 902) == {"n1"}


def test_another_group_does_not_make_another_instance() -> None:
    state = made()
    hear(state, alert())
    body = notification(alert(), groupKey="{}/{other}")
    record = state.decide(webhook.decode(body), NOW, "", POLICY)
    assert [seen.said for seen in record.alerts] == [Said.REPEATED]


def test_resolved_ends_what_waits() -> None:
    state = made()
    hear(state, alert())
    assert hear(state, alert(firing=False, ends=NOW)) == [Said.RESOLVED]
    assert waiting(state) == []


def test_late_firing_of_what_is_resolved_does_nothing() -> None:
    state = made()
    hear(state, alert())
    hear(state, alert(firing=False, ends=NOW))
    assert hear(state, alert()) == [Said.LATE]
    assert waiting(state) == []


def test_resolved_before_firing() -> None:
    state = made()
    assert hear(state, alert(firing=False, ends=NOW)) == [Said.RESOLVED_UNSEEN]
    assert hear(state, alert()) == [Said.LATE]


def test_firing_and_resolved_in_one_notification_does_nothing() -> None:
    state = made()
    said = hear(state, alert(), alert(firing=False, ends=NOW))
    assert said == [Said.TAKEN, Said.RESOLVED]
    assert waiting(state) == []


def test_firing_again_after_resolved_is_news() -> None:
    state = made()
    hear(state, alert())
    end(state)
    hear(state, alert(firing=False, ends=NOW))
    assert hear(state, alert(starts=NOW + 10), at=NOW + 20) == [Said.TAKEN]
    assert waiting(state) == [instance("of-n1", NOW + 10)]


def test_firing_again_is_news_also_if_resolved_was_lost() -> None:
    state = made()
    hear(state, alert())
    end(state)
    assert hear(state, alert(starts=NOW + 10), at=NOW + 20) == [Said.TAKEN]


def test_two_alertmanagers_that_disagree_on_the_start_make_one_instance() -> None:
    state = made()
    hear(state, alert())
    assert hear(state, alert(starts=START + 5)) == [Said.REPEATED]
    assert hear(state, alert(starts=START - 5)) == [Said.STALE]
    assert waiting(state) == [FIRST]


def test_replay_of_an_older_instance_does_nothing() -> None:
    state = made()
    hear(state, alert())
    hear(state, alert(firing=False, ends=NOW))
    hear(state, alert(starts=NOW + 10), at=NOW + 20)
    assert hear(state, alert(), at=NOW + 30) == [Said.LATE]
    assert hear(state, alert(firing=False, ends=NOW), at=NOW + 30) == [Said.STALE]
    assert waiting(state) == [instance("of-n1", NOW + 10)]


def test_firing_that_says_that_it_ended_does_nothing() -> None:
    assert hear(made(), alert(ends=NOW - 1)) == [Said.STALE]


def test_an_end_to_come_does_not_resolve_what_begins_before_it() -> None:
    state = made()
    hear(state, alert(firing=False, ends=NOW + 10_000))
    assert hear(state, alert(starts=NOW + 10), at=NOW + 20) == [Said.TAKEN]


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (alert(action=""), Said.UNCURED),
        (alert(action="unheard-of"), Said.UNKNOWN_ACTION),
        (alert(node=""), Said.UNFIT),
        (alert(node="../../etc"), Said.UNFIT),
        (alert(node="-rf"), Said.UNFIT),
        (alert(namespace="a b"), Said.UNFIT),
        (alert(starts=NOW - 3601), Said.TOO_OLD),
    ],
)
def test_what_cannot_be_acted_on_is_refused_once(one: dict[str, object], said: Said) -> None:
    state = made()
    assert hear(state, one) == [said]
    assert waiting(state) == []
    assert hear(state, one) == [Said.UNCURED if said is Said.UNCURED else Said.REPEATED]


@pytest.mark.parametrize("firing", [True, False])
def test_a_wrong_clock_does_not_shadow_what_begins_by_the_right_one(firing: bool) -> None:
    state = made()
    wrong = alert(starts=NOW + 3601, firing=firing, ends=0 if firing else NOW + 3700)
    assert hear(state, wrong) == [Said.FUTURE]
    assert waiting(state) == []
    assert hear(state, alert()) == [Said.TAKEN]


def test_a_full_queue_takes_it_when_it_comes_again() -> None:
    state = made()
    assert hear(state, *(alert(f"n{i}") for i in range(1, 5))) == [Said.TAKEN] * 3 + [
        Said.QUEUE_FULL
    ]
    end(state)
    assert hear(state, alert("n4"), alert("n5")) == [Said.TAKEN, Said.QUEUE_FULL]
    hear(state, alert("n2", firing=False, ends=NOW))
    assert hear(state, alert("n5")) == [Said.TAKEN]


def test_the_snapshot_is_everything() -> None:
    state, again = made(), made()
    hear(state, alert("n1"), alert("n2"), alert("n3", firing=False, ends=NOW))
    end(state)
    again.apply(state.snapshot(NOW))
    assert waiting(again) == waiting(state)
    assert hear(again, alert("n1"), alert("n2"), alert("n3")) == [
        Said.REPEATED,
        Said.REPEATED,
        Said.LATE,
    ]


def test_what_is_over_and_too_old_is_forgotten() -> None:
    state = made()
    hear(state, alert("n1"), alert("n2"))
    hear(state, alert("n1", firing=False, ends=NOW))
    end(state, name=instance("of-n2", START))
    assert set(state.snapshot(NOW + 100).known) == {"of-n1", "of-n2"}
    assert set(state.snapshot(NOW + 3700).known) == set()


def test_sick_are_nodes_whose_alerts_fire_and_were_not_cured() -> None:
    state = made()
    hear(state, alert("n1"), alert("n2"), alert("n3"))
    end(state)
    hear(state, alert("n2", firing=False, ends=NOW))
    assert state.sick_nodes(NOW) == {"n3"}
    episode = state.episode(instance("of-n3", START))
    assert episode is not None
    assert episode.phase is Phase.WAITING

"""In whatever order notifications come, how often, and with restarts between: never twice."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from remediation_alerts import START, alert, notification

from kproxy.monitoring.remediation import webhook
from kproxy.monitoring.remediation.book import Policy
from kproxy.monitoring.remediation.guards import Health
from kproxy.monitoring.remediation.journal import Line
from kproxy.monitoring.remediation.records import (
    AnyRecord,
    Began,
    Ended,
    Notified,
    Result,
    Said,
    fingerprint_of,
)
from kproxy.monitoring.remediation.seams import Limits
from kproxy.monitoring.remediation.settings import Guards
from kproxy.monitoring.remediation.state import State

POLICY = Policy({"mend": frozenset({"node"})}, 1e6, 100, 1e6)
WELL = Health(100, frozenset())
LIMITS = Limits(runs=1000, cool_down=1.0)
NODES = ("n1", "n2", "n3")
EPISODES = (START, START + 100.0, START + 200.0)
"""Each node is broken at these times, and whole again 50 s later."""


@dataclass
class Simulated:
    """A receiver without threads: what the engine does, one step at a time."""

    state: State = field(default_factory=lambda: State(Guards(), lambda _: LIMITS))
    records: list[bytes] = field(default_factory=list)
    began: list[str] = field(default_factory=list)
    resolved: dict[str, float] = field(default_factory=dict)
    now: float = START + 1000.0

    def write(self, record: AnyRecord) -> None:
        self.records.append(Line.write(record))
        self.state.apply(record)

    def hear(self, body: bytes) -> Notified:
        record = self.state.decide(webhook.decode(body), self.now, "", POLICY)
        self.write(record)
        return record

    def work(self) -> None:
        """Begin what may begin; what has begun is ended by the next step."""
        if lease := self.state.guards.lease:
            self.end(lease)
            return
        for name, episode in self.state.waiting():
            if self.state.guards.hold("mend", episode.target, self.now, WELL) is None:
                node = episode.labels["node"]
                assert episode.starts > self.resolved.get(node, 0.0), "it was resolved already"
                self.began.append(name)
                target = episode.target
                self.write(Began(at=self.now, instance=name, action="mend", target=target, why=""))
                assert self.state.guards.lease == name
                return

    def end(self, name: str) -> None:
        target = f"Node/{fingerprint_of(name).removeprefix('of-')}"
        result = Result.INEFFECTIVE if self.now % 2 else Result.HELPED
        self.write(
            Ended(at=self.now, instance=name, action="mend", target=target, result=result, why="")
        )

    def restart(self, *, from_snapshot: bool) -> None:
        """Die, and read the journal again; what was in the middle is not run, but ended."""
        if from_snapshot:
            self.records = [Line.write(self.state.snapshot(self.now))]
        again = State(Guards(), lambda _: LIMITS)
        for line in self.records:
            record = Line.read(line)
            assert record is not None
            again.apply(record)
        assert again.snapshot(self.now) == self.state.snapshot(self.now)
        self.state = again
        if lease := self.state.guards.lease:
            self.end(lease)


MESSAGES = st.tuples(
    st.sampled_from(NODES), st.sampled_from(EPISODES), st.sampled_from(["firing", "resolved"])
)
STEPS = st.one_of(
    st.lists(MESSAGES, min_size=1, max_size=4),  # a notification
    st.sampled_from(["work", "work", "pass", "restart", "rotate"]),
)


@given(st.lists(STEPS, max_size=60))
@examples(400)
def test_no_order_runs_an_action_twice_or_two_at_once(
    steps: Sequence[list[tuple[str, float, str]] | str],
) -> None:
    one = Simulated()
    for step in steps:
        one.now += 1.0
        if step == "work":
            one.work()
        elif step == "pass":
            one.now += 30.0
        elif isinstance(step, str):
            one.restart(from_snapshot=step == "rotate")
        else:
            sent = [
                alert(node, starts=starts, firing=how == "firing", ends=_end(starts, how))
                for node, starts, how in step
            ]
            heard = one.hear(notification(*sent))
            assert len(heard.alerts) == len(sent)
            for node, starts, how in step:
                if how == "resolved":
                    one.resolved[node] = max(one.resolved.get(node, 0.0), starts)
    assert len(one.began) == len(set(one.began))


@given(st.permutations([(start, how) for start in EPISODES for how in ("firing", "resolved")]))
def test_once_all_is_told_nothing_is_left_to_do(order: Sequence[tuple[float, str]]) -> None:
    one = Simulated()
    for starts, how in order:
        one.hear(
            notification(alert(starts=starts, firing=how == "firing", ends=_end(starts, how)))
        )
    assert one.state.waiting() == []
    assert one.state.sick_nodes(one.now) == frozenset()


@given(st.lists(st.booleans(), max_size=8))
def test_a_lasting_alert_is_acted_on_exactly_once(work_between: Sequence[bool]) -> None:
    one = Simulated()
    for works in [*work_between, True, True]:
        one.hear(notification(alert()))
        if works:
            one.work()
            one.work()
    assert len(one.began) == 1
    assert [seen.said for seen in one.hear(notification(alert())).alerts] == [Said.REPEATED]


def _end(starts: float, how: str) -> float:
    return starts + 50.0 if how == "resolved" else 0.0

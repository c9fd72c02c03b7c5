"""Leader election: one leader at a time whatever becomes of requests; a dead one is replaced."""

import heapq
import itertools
import random

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from kproxy import errors
from kproxy.client.leaderelection import JITTER, Elector, Role, Terms

TERMS = Terms()


def lease(holder: str, version: str = "1", **spec: object) -> dict:
    return {
        "metadata": {"name": "l", "uid": "u", "resourceVersion": version},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": "t0", **spec},
    }


def elector(lot: float = 0.5) -> Elector:
    return Elector("me", TERMS, lambda: lot)


def led(at: float = 0.0) -> Elector:
    one = elector()
    wanted = one.read(None, at, "t")
    one.written({**wanted, "metadata": {"resourceVersion": "1"}}, sent=at, now=at)
    return one


class TestOneCandidate:
    def test_a_lease_that_is_not_there_is_created(self):
        one = elector()
        assert one.begin(0.0, "t") is None
        wanted = one.read(None, 0.0, "t")
        assert wanted["spec"] == {
            "holderIdentity": "me",
            "leaseDurationSeconds": 15,
            "acquireTime": "t",
            "renewTime": "t",
            "leaseTransitions": 0,
        }
        assert not one.leads(0.0), "not before it is written"
        one.written(wanted, sent=0.0, now=0.1)
        assert one.leads(0.1)

    def test_a_leader_renews_without_reading_and_keeps_its_acquire_time(self):
        one = led()
        assert one.due == TERMS.retry
        wanted = one.begin(2.0, "t2")
        assert wanted["metadata"]["resourceVersion"] == "1"
        spec = wanted["spec"]
        assert (spec["acquireTime"], spec["renewTime"], spec["leaseTransitions"]) == ("t", "t2", 0)

    def test_a_foreign_lease_is_left_alone_for_its_duration_since_it_was_seen(self):
        one = elector(lot=1.0)
        assert one.read(lease("other"), 100.0, "t") is None
        assert one.due == 100.0 + TERMS.retry * (1 + JITTER)
        assert one.read(lease("other", renewTime="t1"), 110.0, "t") is None
        assert one.read(lease("other", renewTime="t1"), 124.9, "t") is None
        wanted = one.read(lease("other", renewTime="t1"), 125.0, "t")
        assert wanted["spec"]["holderIdentity"] == "me"
        assert wanted["spec"]["leaseTransitions"] == 1

    def test_the_end_of_a_term_is_not_slept_through(self):
        one = elector(lot=1.0)
        one.read(lease("other"), 100.0, "t")
        one.read(lease("other"), 114.0, "t")
        assert one.due == 115.0

    def test_a_released_lease_is_taken_at_once(self):
        one = elector()
        assert one.read(lease("", leaseDurationSeconds=1), 0.0, "t") is not None

    def test_an_own_lease_of_which_it_did_not_know_is_taken_over(self):
        one = elector()
        one.failed(0.0)
        wanted = one.read(lease("me", acquireTime="a", leaseTransitions=3), 1.0, "t")
        assert wanted["spec"]["acquireTime"] == "a"
        assert wanted["spec"]["leaseTransitions"] == 3

    def test_leading_ends_after_the_deadline_since_the_request_was_sent(self):
        one = elector()
        wanted = one.read(None, 0.0, "t")
        one.written({**wanted, "metadata": {}}, sent=1.0, now=4.0)
        assert one.leads(10.9)
        assert not one.leads(11.0)
        assert one.role(11.0) is Role.ENDED
        assert one.begin(11.0, "t") is None
        assert one.read(lease("me"), 12.0, "t") is None, "it must not come back"

    def test_after_a_failure_the_lease_is_read_before_it_is_written(self):
        one = led()
        one.failed(2.0)
        assert one.begin(4.0, "t") is None
        assert one.leads(4.0)

    def test_a_leader_that_sees_another_ends_at_once(self):
        one = led()
        one.failed(2.0)
        assert one.read(lease("other"), 4.0, "t") is None
        assert one.role(4.0) is Role.ENDED

    def test_release_lets_others_in(self):
        spec = led().release(1.0, "t")["spec"]
        assert (spec["holderIdentity"], spec["leaseDurationSeconds"]) == ("", 1)
        assert led().release(10.0, "t") is None, "its term is over"
        one = led()
        one.failed(1.0)
        assert one.release(2.0, "t") is None, "what it knows may be old"

    def test_a_removed_lease_is_respected_until_its_end(self):
        one = elector()
        one.read(lease("other"), 0.0, "t")
        assert one.read(None, 14.0, "t") is None
        assert one.read(None, 15.0, "t") is not None

    @pytest.mark.parametrize(
        "terms", [{"retry": 0.0}, {"renew": 2.4}, {"lease": 10.0}, {"retry": 9.0}]
    )
    def test_times_that_do_not_fit_are_refused(self, terms):
        with pytest.raises(errors.UsageError, match="leader election"):
            Terms(**terms).check()


class Server:
    """A Lease with optimistic locking."""

    def __init__(self) -> None:
        self.lease: dict | None = None
        self.versions = itertools.count(1)

    def put(self, wanted: dict) -> dict | None:
        """Return the Lease as written; None: Conflict."""
        have = self.lease["metadata"]["resourceVersion"] if self.lease else None
        if wanted.get("metadata", {}).get("resourceVersion") != have:
            return None
        meta = {"uid": "u", "resourceVersion": str(next(self.versions))}
        self.lease = {**wanted, "metadata": meta}
        return self.lease


class Simulation:
    """Candidates, each with a clock of its own, over a server and a network that delay at will."""

    def __init__(self, seed: int, count: int, horizon: float) -> None:
        self.lots = random.Random(seed)
        self.horizon = horizon
        self.server = Server()
        self.order = itertools.count()
        self.events: list = []
        self.offsets = [self.lots.uniform(-1e4, 1e4) for _ in range(count)]
        self.electors = [self.candidate(number, 0.0) for number in range(count)]
        self.dead: set[Elector] = set()

    def candidate(self, number: int, at: float) -> Elector:
        one = Elector(
            f"c{number}@{at}",
            TERMS,
            self.lots.random,
            now=at + self.offsets[number],
        )
        self.at(at, self.run_try, number, one)
        return one

    def at(self, when: float, what, *arguments: object) -> None:
        heapq.heappush(self.events, (when, next(self.order), what, arguments))

    def delay(self) -> float:
        return self.lots.uniform(0.0, self.lots.choice((0.01, 0.5, 5.0, 30.0)))

    def run(self, kills: list[tuple[float, int]]) -> None:
        for when, number in kills:
            self.at(when, self.kill, number % len(self.electors))
        while self.events and self.events[0][0] <= self.horizon:
            now, _, what, arguments = heapq.heappop(self.events)
            self.check(now)
            what(now, *arguments)
            self.check(now)

    def check(self, now: float) -> None:
        leading = [
            one.identity
            for number, one in enumerate(self.electors)
            if one not in self.dead and one.leads(now + self.offsets[number])
        ]
        assert len(leading) <= 1, leading

    def kill(self, now: float, number: int) -> None:
        """SIGKILL; started again at once as another process. What it sent is still under way."""
        self.dead.add(self.electors[number])
        self.electors[number] = self.candidate(number, now)

    def run_try(self, now: float, number: int, one: Elector) -> None:
        local = now + self.offsets[number]
        if one in self.dead or one.role(local) is Role.ENDED:
            return
        wanted = one.begin(local, f"{now}")
        if wanted is None:
            self.at(now + self.delay(), self.get, number, one, now)
        else:
            self.at(now + self.delay(), self.write, number, one, wanted, now)

    def again(self, now: float, number: int, one: Elector) -> None:
        local = now + self.offsets[number]
        self.at(now + max(one.due - local, 0.0), self.run_try, number, one)

    def get(self, now: float, number: int, one: Elector, sent: float) -> None:
        self.at(now + self.delay(), self.got, number, one, self.server.lease, sent)

    def got(self, now: float, number: int, one: Elector, found: dict | None, sent: float) -> None:
        local = now + self.offsets[number]
        if one in self.dead:
            return
        wanted = one.read(found, local, f"{now}")
        if wanted is None:
            self.again(now, number, one)
        else:
            self.at(now + self.delay(), self.write, number, one, wanted, now)

    def write(self, now: float, number: int, one: Elector, wanted: dict, sent: float) -> None:
        answer = self.server.put(wanted)
        lost = self.lots.random() < 0.1
        self.at(now + self.delay(), self.wrote, number, one, None if lost else answer, sent)

    def wrote(self, now: float, number: int, one: Elector, answer, sent: float) -> None:
        local = now + self.offsets[number]
        if one in self.dead:
            return
        if answer is None:
            one.failed(local)
        else:
            one.written(answer, sent=sent + self.offsets[number], now=local)
        self.again(now, number, one)


@examples(500)
@given(
    st.integers(0, 2**32),
    st.integers(1, 4),
    st.lists(st.tuples(st.floats(0, 200), st.integers(0, 3)), max_size=4),
)
def test_there_are_never_two_leaders(seed, count, kills):
    simulation = Simulation(seed, count, 300.0)
    simulation.run(kills)
    assert simulation.server.lease is not None


@examples(100)
@given(st.floats(0, 4.4), st.lists(st.floats(0, 1), min_size=30, max_size=30), st.floats(0, 1.9))
def test_a_dead_leader_is_replaced_in_time(start, lots, dies):
    """Also if it dies right after a renewal that the successor has just missed."""
    server, drawn = Server(), iter(lots)
    leader, follower = Elector("a", TERMS, lambda: 0.5), Elector("b", TERMS, drawn.__next__)
    leader.written(server.put(leader.read(None, 0.0, "0")), sent=0.0, now=0.0)
    follower.due = start
    died = 20.0 + dies
    while not follower.leads(follower.due):
        for moment in iter(lambda: leader.due, None):
            if moment > min(follower.due, died):
                break
            wanted = leader.begin(moment, str(moment))
            leader.written(server.put(wanted), sent=moment, now=moment)
        now = follower.due
        wanted = follower.read(server.lease, now, str(now))
        if wanted is not None:
            follower.written(server.put(wanted), sent=now, now=now)
            break
    assert follower.holder == "b"
    assert died < now <= died + TERMS.lease + (1 + JITTER) * TERMS.retry

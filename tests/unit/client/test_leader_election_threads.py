"""The threads around an elector: who is told what, and when nothing more is written."""

import io
import itertools
import threading

import pytest

from kproxy import errors, logs
from kproxy.client.leaderelection import Elector, LeaderElection, Terms
from kproxy.client.rest import Unreachable

QUICK = Terms(lease=0.6, renew=0.4, retry=0.05)
LONG = Terms(lease=120.0, renew=60.0, retry=0.05)
"""Who must not lose it because this machine is slow."""
PATIENCE = 60.0


class Leases:
    """One Lease in memory; ``away``: nobody gets an answer."""

    def __init__(self):
        self.lease = None
        self.away = False
        self._versions = itertools.count(1)
        self._lock = threading.Lock()

    def get(self, kind, namespace, name):
        self._answer()
        return self.lease

    def create(self, kind, obj):
        return self._write(None, obj)

    def update(self, kind, obj):
        return self._write(obj["metadata"]["resourceVersion"], obj)

    def _write(self, expected, obj):
        self._answer()
        with self._lock:
            have = self.lease["metadata"]["resourceVersion"] if self.lease else None
            if expected != have:
                raise errors.Conflict(409, "Conflict", "it has changed")
            version = {"resourceVersion": str(next(self._versions))}
            self.lease = {**obj, "metadata": {**obj["metadata"], **version}}
            return self.lease

    def _answer(self):
        if self.away:
            raise Unreachable("away")

    @property
    def holder(self):
        return self.lease["spec"]["holderIdentity"] if self.lease else None


class Candidate:
    """An election, and what it told."""

    def __init__(self, leases, name, terms):
        self.started, self.lost = threading.Event(), threading.Event()
        self.told = []
        self.election = LeaderElection(
            leases,
            Elector(name, terms, lambda: 0.5),
            namespace="kube-system",
            name="l",
            log=logs.Log("t", stream=io.StringIO()),
            on_started=lambda: self._tell("started", self.started),
            on_lost=lambda: self._tell("lost", self.lost),
        )
        self.election.start()

    def _tell(self, what, event):
        self.told.append(what)
        event.set()


@pytest.fixture
def leases():
    return Leases()


@pytest.fixture
def candidate(leases):
    made = []

    def make(name, terms=LONG):
        made.append(Candidate(leases, name, terms))
        return made[-1]

    yield make
    for one in made:
        one.election.stop()


def test_one_leads_and_another_follows_when_it_ends(leases, candidate):
    first = candidate("a")
    assert first.started.wait(PATIENCE)
    assert first.election.leads()
    second = candidate("b")
    first.election.stop()
    assert not first.election.leads()
    assert second.started.wait(PATIENCE)
    assert leases.holder == "b"
    assert first.told == ["started"], "to stop is not to lose"


def test_the_last_one_leaves_the_lease_to_nobody(leases, candidate):
    only = candidate("a")
    assert only.started.wait(PATIENCE)
    only.election.stop()
    assert leases.holder == ""


def test_without_an_answer_leadership_is_lost_and_not_taken_again(leases, candidate):
    only = candidate("a", QUICK)
    assert only.started.wait(PATIENCE)
    leases.away = True
    assert only.lost.wait(PATIENCE)
    assert not only.election.leads()
    leases.away = False
    other = candidate("b", QUICK)
    assert other.started.wait(PATIENCE)
    assert only.told == ["started", "lost"]


def test_a_server_that_answers_nonsense_is_survived(leases, candidate):
    leases.get = lambda *_: {"spec": {"holderIdentity": "x", "leaseDurationSeconds": "long"}}
    one = candidate("a", QUICK)
    assert not one.started.wait(0.2)
    del leases.get
    assert one.started.wait(PATIENCE)


def test_one_that_never_led_ends_without_a_word(leases, candidate):
    leases.away = True
    one = candidate("a")
    one.election.stop()
    assert one.told == []
    assert leases.lease is None

"""What random kills are judged by: a ledger of writes, a history of pods; who may be killed."""

import random
from dataclasses import replace

import pytest

from kproxy.lab.chain import duplicates, history, ledger, victims
from kproxy.lab.chain.duplicates import Sight
from kproxy.lab.chain.ledger import Attempt, Outcome
from kproxy.lab.eventlog import Event
from kproxy.lab.whole.roles import Role, Running

S = 10**9
SERVICE = "Service/soak-1"


def attempt(
    value: str, at_s: int, outcome: Outcome = Outcome.ACKNOWLEDGED, label: str = SERVICE
) -> Attempt:
    return Attempt(
        label=label, value=value, begun_ns=at_s * S, ended_ns=at_s * S + 1, outcome=outcome
    )


def test_the_last_acknowledged_write_must_be_there() -> None:
    done = [attempt("1", 10), attempt("2", 20)]
    assert ledger.lost(done, {SERVICE: "2"}) == []
    (problem,) = ledger.lost(done, {SERVICE: "1"})
    assert SERVICE in problem
    assert "'2'" in problem
    assert ledger.lost(done, {}) != []


def test_an_acknowledged_deletion_stays_one() -> None:
    done = [attempt("1", 10), attempt(ledger.ABSENT, 20)]
    assert ledger.lost(done, {}) == []
    (problem,) = ledger.lost(done, {SERVICE: "1"})
    assert "deletion" in problem


@pytest.mark.parametrize(("end", "kept"), [("2", True), ("1", True), ("3", False), ("", False)])
def test_a_write_without_an_answer_may_have_been_done(end: str, kept: bool) -> None:
    done = [attempt("1", 10), attempt("2", 20, Outcome.UNKNOWN)]
    assert (ledger.lost(done, {SERVICE: end} if end else {}) == []) is kept


def test_a_write_without_an_answer_may_be_done_late_but_not_for_ever() -> None:
    soon = [attempt("1", 100, Outcome.UNKNOWN), attempt("2", 110)]
    assert ledger.lost(soon, {SERVICE: "1"}) == []
    much_later = [attempt("1", 100, Outcome.UNKNOWN), attempt("2", 400)]
    assert ledger.lost(much_later, {SERVICE: "1"}) != []


def test_a_refused_write_changes_nothing() -> None:
    done = [attempt("1", 10), attempt("2", 20, Outcome.REFUSED)]
    assert ledger.lost(done, {SERVICE: "1"}) == []
    assert ledger.lost(done, {SERVICE: "2"}) != []


def test_what_was_never_acknowledged_need_not_be_there() -> None:
    assert ledger.lost([attempt("1", 10, Outcome.UNKNOWN)], {}) == []


def test_attempts_are_read_from_events() -> None:
    fields = {"object": SERVICE, "value": "7", "begun_ns": 5, "outcome": "unknown"}
    event = Event(
        mono_ns=9, source="writer", who="writer", msg=ledger.ATTEMPT, level="info", fields=fields
    )
    assert ledger.attempts([event]) == [
        Attempt(label=SERVICE, value="7", begun_ns=5, ended_ns=9, outcome=Outcome.UNKNOWN)
    ]


def owner(limit: int, at_s: int, *, version: int = 0) -> Sight:
    """Return a sight of the owner; whatever is seen is of the version of its second."""
    of = version or at_s
    return Sight(
        ns=at_s * S, uid="rs", name="rs", owner="rs", active=True, version=of, limit=limit
    )


def pod(uid: str, at_s: int, *, active: bool = True, sole: bool = False) -> Sight:
    return Sight(
        ns=at_s * S, uid=uid, name=uid, owner="rs", active=active, version=at_s, sole=sole
    )


def test_an_owner_that_is_seen_after_the_pods_that_it_was_to_have_had_been_told_before() -> None:
    seen = [owner(1, 1), pod("a", 2), pod("b", 8), owner(2, 9, version=7)]
    assert duplicates.found(seen) == []
    seen = [owner(1, 1), pod("a", 2), pod("b", 6), owner(2, 9, version=7)]
    assert len(duplicates.found(seen)) == 1


def test_a_pod_that_is_gone_is_so_since_the_pods_before_it() -> None:
    gone = replace(pod("a", 9, active=False), version=2)
    assert duplicates.found([owner(1, 1), pod("a", 2), gone, pod("b", 10)]) == []
    assert len(duplicates.found([owner(1, 1), pod("a", 2), pod("b", 8), gone])) == 1


def test_as_many_pods_as_replicas_are_in_order() -> None:
    seen = [owner(2, 0), pod("a", 1), pod("b", 1), pod("a", 5)]
    assert duplicates.found(seen) == []


def test_a_pod_too_many_is_told_once() -> None:
    seen = [owner(2, 0), pod("a", 1), pod("b", 1), pod("c", 2), pod("c", 3)]
    (problem,) = duplicates.found(seen)
    assert "3 pods where 2 should be: a, b, c" in problem


def test_a_pod_that_goes_makes_room() -> None:
    seen = [owner(1, 0), pod("a", 1), pod("a", 2, active=False), pod("b", 2)]
    assert duplicates.found(seen) == []


def test_pods_of_a_number_that_was_lowered_just_now_are_in_order() -> None:
    assert duplicates.found([owner(2, 100), owner(1, 110), pod("a", 111), pod("b", 111)]) == []
    late = [owner(2, 100), owner(1, 110), pod("a", 111), pod("b", 300)]
    assert len(duplicates.found(late)) == 1


def test_a_daemonset_has_one_on_each_node() -> None:
    seen = [pod("a", 1, sole=True), pod("b", 2, sole=True)]
    assert len(duplicates.found(seen)) == 1


def test_the_history_tells_of_pods_by_their_owner_and_node() -> None:
    meta = {"namespace": "d", "name": "p", "uid": "u", "resourceVersion": "7"}
    owned = {**meta, "ownerReferences": [{"kind": "DaemonSet", "uid": "ds"}]}
    bound = {"metadata": owned, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}
    told = history.of_pod(bound, gone=False)
    assert told is not None
    assert (told["owner"], told["active"], told["sole"]) == ("dsn1", True, True)
    assert told["version"] == 7
    gone = history.of_pod(bound, gone=True)
    assert gone is not None
    assert gone["active"] is False
    assert history.of_pod({"metadata": meta, "spec": {}}, gone=False) is None
    assert history.of_pod({**bound, "spec": {}}, gone=False) is None


def test_what_the_history_tells_is_what_is_judged() -> None:
    meta = {"namespace": "d", "name": "w", "uid": "rs", "resourceVersion": "7"}
    told = history.of_replica_set({"metadata": meta, "spec": {"replicas": 3}}, gone=False)
    assert told is not None
    event = Event(
        source="history", who="history", level="info", msg="seen", mono_ns=5, fields=told
    )
    assert duplicates.sights([event]) == [
        Sight(ns=5, uid="rs", name="d/w", owner="rs", active=True, version=7, limit=3)
    ]


def running(host: str, role: Role) -> Running:
    return Running(host=host, role=role, pid=1, start_time=1)


def test_anybody_may_be_killed_but_inits() -> None:
    everybody = [running(f"h{n}", role) for n in (1, 2) for role in Role]
    lots = random.Random(1)
    chosen = [victims.choose(everybody, lots, members_well=True) for _ in range(400)]
    roles = {one.role for one in chosen if one is not None}
    assert roles == set(Role) - set(victims.SPARED)
    assert {one.host for one in chosen if one is not None} == {"h1", "h2"}


def test_of_etcd_one_at_a_time() -> None:
    members = [running("etcd1", Role.ETCD), running("etcd2", Role.ETCD)]
    assert victims.choose(members, random.Random(1), members_well=False) is None
    assert victims.choose(members, random.Random(1), members_well=True) is not None

"""What the daemon does after each sync, without threads: its rounds, its events, its patience."""

import errno
import gc
import time

import pytest
from watched_agent import Watched

from kproxy.agent.rounds import FULL_LATE_S, RETRY_MAX_S
from kproxy.backends.base import SyncResult
from kproxy.errors import InvalidObject, KernelError, Unsupported

FAILURE = KernelError("add", errno.EIO, "refused")


def test_the_first_sync_is_marked_and_only_the_first() -> None:
    watched = Watched(SyncResult(writes=3), SyncResult(writes=0))
    watched.rounds.once()
    watched.rounds.once()
    first, second = watched.events("synced")
    assert (first["first"], second["first"]) == (True, False)
    assert first["writes"] == 3
    assert {
        "backend",
        "family",
        "services",
        "endpoints",
        "duration_ms",
        "versions",
    } <= first.keys()


def test_a_failed_sync_is_not_told_as_synced_and_does_not_count_as_first() -> None:
    watched = Watched(SyncResult(writes=1, failures=(FAILURE,)), SyncResult(writes=1))
    watched.rounds.once()
    assert watched.events("synced") == []
    (failed,) = watched.events("sync failed")
    assert failed["failures"] == [str(FAILURE)]
    watched.rounds.once()
    assert watched.events("synced")[0]["first"] is True


def test_a_first_sync_that_fails_does_not_hold_up_health_checks_and_switches() -> None:
    watched = Watched(SyncResult(writes=0, failures=(FAILURE,)), SyncResult(writes=0))
    tuned = []
    watched.agent._tune = lambda: tuned.append(watched.agent._tried_once.is_set())
    gc.disable()
    try:
        watched.rounds.once()
        assert gc.isenabled()
    finally:
        gc.enable()
    watched.rounds.once()
    assert tuned == [True]


def test_what_an_earlier_run_left_in_another_family_asks_for_a_sync() -> None:
    watched = Watched(SyncResult(writes=0), SyncResult(writes=0))
    watched.stub.left_over = True
    watched.rounds.once()
    assert watched.rounds.pending_since is not None
    watched.rounds.once()
    assert watched.rounds.pending_since is None, "looked for once"


def test_what_keeps_failing_is_tried_less_and_less_often() -> None:
    failing = SyncResult(writes=0, failures=(FAILURE,))
    watched = Watched(*[failing] * 8, SyncResult(writes=0), failing)
    for _ in range(10):
        watched.rounds.once()
    waits = [event["again_in_s"] for event in watched.events("sync failed")]
    assert waits == [1, 2, 4, 8, 16, RETRY_MAX_S, RETRY_MAX_S, RETRY_MAX_S, 1]


def test_what_the_kernel_refuses_is_told_once_and_nothing_waits_for_it() -> None:
    refusing = SyncResult(writes=1, refused=(KernelError("add", errno.EINVAL, "invalid"),))
    watched = Watched(refusing, refusing, SyncResult(writes=0), refusing)
    watched.rounds.request()
    for _ in range(4):
        watched.rounds.once()
    assert len(watched.events("synced")) == 4
    assert watched.events("sync failed") == []
    told = watched.events("refused by the kernel")
    assert [event["failures"] for event in told] == [["add: invalid"]] * 2, "again when it is back"
    assert watched.rounds.pending_since is None
    assert watched.agent._health.livez(1e9, 1e9).code == 200


def test_a_service_that_contradicts_another_is_told_once() -> None:
    clash = InvalidObject("Service demo/b", "spec.clusterIP", "belongs to Service demo/a already")
    watched = Watched(*[SyncResult(writes=0, invalid=(clash,))] * 2, SyncResult(writes=0))
    for _ in range(3):
        watched.rounds.once()
    assert [event["error"] for event in watched.events("invalid object")] == [str(clash)]


def test_where_the_mode_is_impossible_trying_again_is_of_no_use() -> None:
    watched = Watched(SyncResult(writes=0, failures=(FAILURE,)))
    watched.stub.unsupported = "no IPVS here"
    with pytest.raises(Unsupported, match="no IPVS here"):
        watched.rounds.once()


def test_the_kernel_is_read_again_at_full_syncs_only() -> None:
    watched = Watched(*[SyncResult(writes=0)] * 3)
    watched.rounds.once()
    watched.rounds.once()
    assert watched.stub.read == 1
    watched.rounds._read_at -= 31
    watched.rounds.once()
    assert watched.stub.read == 2


def test_who_asks_for_a_full_sync_has_the_kernel_read_at_once_and_once() -> None:
    watched = Watched(*[SyncResult(writes=0)] * 3)
    watched.rounds.once()
    watched.rounds.request_full()
    assert watched.rounds.pending_since is not None
    watched.rounds.once()
    assert watched.stub.read == 2
    watched.rounds.request()
    watched.rounds.once()
    assert watched.stub.read == 2, "the next one is as usual"


def test_a_change_does_not_wait_for_the_kernel_to_be_read() -> None:
    watched = Watched(*[SyncResult(writes=0)] * 3)
    watched.rounds.once()
    assert watched.stub.read == 1
    assert watched.rounds.next_due > watched.rounds._read_at, "a full sync is due by itself"
    watched.rounds._read_at -= 30.5
    watched.rounds.request()
    watched.rounds.once()
    assert watched.stub.read == 1
    assert watched.rounds.next_due < time.monotonic(), "the full sync follows at once"
    watched.rounds.once()
    assert watched.stub.read == 2


def test_what_keeps_failing_is_not_tried_on_and_on_when_the_kernel_is_to_be_read() -> None:
    failing = SyncResult(writes=0, failures=(FAILURE,))
    watched = Watched(*[failing] * 2)
    before = time.monotonic()
    watched.rounds.once()
    watched.rounds._read_at -= 30.5
    assert watched.rounds.next_due > before, "it would never wait again"
    watched.rounds._read_at -= FULL_LATE_S
    before = time.monotonic()
    watched.rounds.once()
    assert watched.stub.read == 2, "though something is still to be done"
    assert watched.rounds.next_due > before


def test_changes_without_end_put_a_full_sync_off_for_a_moment_only() -> None:
    watched = Watched(*[SyncResult(writes=0)] * 3)
    watched.rounds.once()
    watched.rounds._read_at -= 30.5
    watched.rounds.request()
    watched.rounds.once()
    assert watched.stub.read == 1
    watched.rounds.request()
    watched.rounds._read_at -= FULL_LATE_S
    watched.rounds.once()
    assert watched.stub.read == 2


def test_a_kernel_that_cannot_be_read_is_not_read_on_and_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched(*[SyncResult(writes=0)] * 2)

    def broken() -> None:
        raise FAILURE

    monkeypatch.setattr(watched.stub, "reread", broken)
    before = time.monotonic()
    watched.rounds.once()
    assert watched.rounds.next_due > before
    assert len(watched.events("reading the kernel failed")) == 1


def test_endpoints_that_drain_are_looked_at_again() -> None:
    watched = Watched(SyncResult(writes=1, again_in=60), SyncResult(writes=0))
    watched.rounds.once()
    assert watched.rounds._again_at < float("inf")
    watched.rounds.once()
    assert watched.rounds._again_at == float("inf")


def test_what_is_wanted_first_comes_first() -> None:
    both = SyncResult(writes=1, again_in=60, flows_again_in=1)
    watched = Watched(both, SyncResult(writes=0, flows_again_in=0.0), SyncResult(writes=0))
    before = time.monotonic()
    watched.rounds.once()
    assert before + 1 <= watched.rounds.next_due < before + 30
    watched.rounds.once()
    assert watched.rounds.next_due <= time.monotonic(), "it is due already"
    watched.rounds.once()
    assert watched.rounds._again_at == float("inf")

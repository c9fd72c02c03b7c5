"""What is said of a full sync that was asked for: no more than the proxy's metrics show."""

import time
from collections.abc import Callable

import pytest
from care_subjects import NOWHERE, USR1, A, Kernel, a_process, asks, no_pauses, wanted

from kproxy.monitoring.nodecare import asking, resync
from kproxy.monitoring.nodecare.process import Process
from kproxy.monitoring.nodecare.seen import Care

__all__ = ["no_pauses"]

SLOW = asking.Metrics(), "metrics: no answer within 2 s"
AWAY = asking.Metrics(), f"metrics: {asking.NOT_SERVED}"

Answer = tuple[asking.Metrics, str]


def metrics(full_syncs: int, last: float) -> Answer:
    text = f"{asking.FULL} {full_syncs}\n{asking.LAST} {last}\n"
    return asking.parse(text), ""


def asked(
    monkeypatch: pytest.MonkeyPatch,
    answers: list[Callable[[], Answer]],
    kernel: Kernel,
    within_s: float = 0.0,
    lives: Callable[[], bool] = lambda: True,
    found: Callable[[], Process | None] = a_process,
) -> Care:
    """Ask for a sync; metrics are answered one after the other, the last one again and again."""
    left = iter(answers)

    def answer(place: tuple[str, int]) -> Answer:
        return next(left, answers[-1])()

    monkeypatch.setattr(asking, "metrics", answer)
    return resync.resync(
        NOWHERE,
        asks(wanted(A)),
        kernel,
        number=USR1,
        within_s=within_s,
        find=lambda lock: found(),
        send=lambda one, number: True,
        lives=lambda one: lives(),
    )


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([lambda: metrics(3, 5.0), lambda: metrics(4, time.time())], "synced"),
        ([lambda: metrics(3, 5.0)], "no full sync within 0 s"),
        # It was too slow to answer before: what it says later may be old.
        ([lambda: SLOW, lambda: metrics(3, 5.0)], "no full sync within 0 s"),
        ([lambda: SLOW], "no full sync within 0 s (metrics: no answer within 2 s)"),
        (
            [lambda: AWAY],
            "whether it has synced is not known, because it serves no metrics",
        ),
    ],
)
def test_a_sync_is_told_that_was_seen(
    monkeypatch: pytest.MonkeyPatch, answers: list[Callable[[], Answer]], told: str
) -> None:
    done = asked(monkeypatch, answers, Kernel(["a"], ["a"], []))
    assert done.done == (f"asked process 20 for a full sync: {told}",)
    assert done.good


def test_a_slow_proxy_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [lambda: SLOW, lambda: metrics(3, 5.0), lambda: metrics(3, time.time())]
    done = asked(monkeypatch, answers, Kernel(["a"], ["a"], []), within_s=60.0)
    assert done.done == ("asked process 20 for a full sync: synced",)


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        # It had made as many before the one that was asked had ended, and is not yet there.
        (
            [lambda: metrics(1, 5.0), lambda: SLOW, lambda: metrics(1, time.time())],
            "it has ended meanwhile, process 31 is in its place: synced",
        ),
        # It is there, and has not synced yet.
        (
            [lambda: metrics(1, 5.0), lambda: metrics(0, 0.0), lambda: metrics(1, time.time())],
            "it has ended meanwhile, process 31 is in its place: synced",
        ),
    ],
)
def test_who_takes_the_place_of_the_one_that_was_asked_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, answers: list[Callable[[], Answer]], told: str
) -> None:
    finds = iter([a_process(), a_process(pid=31, start_time=2)])
    lives = iter([True])
    done = asked(
        monkeypatch,
        answers,
        Kernel(["a"], ["a"], []),
        within_s=1.0,
        lives=lambda: next(lives, False),
        found=lambda: next(finds),
    )
    assert done.done == (f"asked process 20 for a full sync: {told}",)
    assert done.good


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (a_process(pid=31, start_time=2), "process 31 is in its place: no full sync within 0 s"),
        (None, "no proxy is in its place: no full sync within 0 s"),
    ],
)
def test_what_became_of_the_one_that_was_asked_is_told(
    monkeypatch: pytest.MonkeyPatch, other: Process | None, told: str
) -> None:
    finds = iter([a_process(), other])
    # What the one that has ended said last is no sync of another.
    answers = [lambda: metrics(3, 5.0)]
    done = asked(
        monkeypatch, answers, Kernel(["a"]), lives=lambda: False, found=lambda: next(finds)
    )
    assert done.refused == f"it has ended meanwhile, {told}: {resync.INSTEAD}"


def test_who_took_its_place_and_left_the_kernel_wrong_is_told_of_like_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [lambda: metrics(3, 5.0), lambda: metrics(1, time.time())]
    done = asked(monkeypatch, answers, Kernel(["a"]), lives=lambda: False)
    assert "its watch is stale" in done.refused


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([lambda: metrics(3, 5.0), lambda: metrics(4, time.time())], "its watch is stale"),
        ([lambda: SLOW, lambda: metrics(3, 5.0)], "no full sync within 0 s: restart it"),
        ([lambda: AWAY], "is not known, because it serves no metrics: restart it"),
    ],
)
def test_what_is_still_wrong_is_explained_by_what_was_seen(
    monkeypatch: pytest.MonkeyPatch, answers: list[Callable[[], Answer]], why: str
) -> None:
    done = asked(monkeypatch, answers, Kernel(["a"]))
    assert done.left == ("missing rule a",)
    assert why in done.refused

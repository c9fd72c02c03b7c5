"""When an embedded kernel is asked to end, and when it is killed."""

from netns.kernels import base, watch
from netns.kernels.watch import Action, Watch


def booted(time_limit: float = 100.0) -> Watch:
    watched = Watch(0.0, time_limit)
    watched.hello()
    return watched


def test_a_kernel_that_does_not_come_up_is_killed() -> None:
    watched = Watch(10.0, 3600.0)
    assert watched.deadline == 10.0 + watch.BOOT_LIMIT
    assert watched.tick(watched.deadline - 1) is Action.NOTHING
    assert watched.tick(watched.deadline) is Action.KILL
    assert "did not come up within 60 s" in watched.failure
    assert watched.exit_code == base.EXIT_GUEST_FAILED


def test_the_time_limit_holds_while_booting_too() -> None:
    watched = Watch(0.0, 5.0)
    assert watched.tick(5.0) is Action.KILL
    assert "5 s" in watched.failure


def test_at_the_time_limit_the_command_is_asked_and_then_the_kernel_killed() -> None:
    watched = booted(100.0)
    assert watched.deadline == 100.0
    assert watched.tick(99.9) is Action.NOTHING
    assert watched.tick(100.0) is Action.ASK
    assert watched.out_of_time
    assert watched.deadline == 100.0 + watch.GRACE
    assert watched.tick(100.0 + watch.GRACE - 0.1) is Action.NOTHING
    assert watched.tick(100.0 + watch.GRACE) is Action.KILL
    assert watched.exit_code == base.EXIT_TIME_LIMIT
    assert "time limit of 100 s" in watched.failure


def test_what_it_did_when_its_time_was_over_is_told() -> None:
    watched = booted(100.0)
    watched.tick(100.0)
    watched.saw("all its processes sleep")
    told = "the time limit of 100 s is over; at that moment all its processes sleep"
    assert watched.failure == told
    watched.tick(100.0 + watch.GRACE)
    assert watched.failure == told


def test_a_kernel_that_takes_nothing_is_killed() -> None:
    watched = booted(3600.0)
    watched.sent(5.0)
    watched.sent(20.0)  # the first unanswered one counts
    assert watched.deadline == 5.0 + watch.ANSWER_LIMIT
    assert watched.tick(watched.deadline) is Action.KILL
    assert "hangs" in watched.failure
    assert watched.exit_code == base.EXIT_GUEST_FAILED


def test_a_kernel_that_takes_everything_lives_on() -> None:
    watched = booted(3600.0)
    watched.sent(5.0)
    watched.taken()
    assert watched.deadline == 3600.0
    assert watched.tick(3000.0) is Action.NOTHING


def test_the_first_interrupt_is_passed_on_and_the_second_kills() -> None:
    watched = booted()
    assert watched.interrupt() is Action.FORWARD
    assert watched.interrupt() is Action.KILL
    assert watched.exit_code == base.EXIT_INTERRUPTED


def test_an_interrupt_before_the_command_runs_kills() -> None:
    assert Watch(0.0, 100.0).interrupt() is Action.KILL


def test_keys_that_interrupt_nothing_do_not_count() -> None:
    watched = booted()
    for _ in range(5):
        assert watched.interrupt() is Action.FORWARD
        watched.was_mere_key()

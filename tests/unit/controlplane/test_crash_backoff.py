"""When crashed containers and failed keys come back."""

from kproxy.controlplane.backoff import CrashBackoff, RetryBackoff


def test_at_once_then_10_s_doubling_to_5_minutes():
    backoff = CrashBackoff()
    delays = []
    now = 0.0
    for _ in range(9):
        due = backoff.exited(started=now, now=now)
        delays.append(due - now)
        now = due
    assert delays == [0, 10, 20, 40, 80, 160, 300, 300, 300]


def test_ten_minutes_of_running_start_afresh():
    backoff = CrashBackoff()
    for _ in range(5):
        backoff.exited(started=0, now=0)
    assert backoff.exited(started=0, now=599) == 599 + 160
    assert backoff.exited(started=1000, now=1600) == 1600
    assert backoff.exited(started=1600, now=1601) == 1611


def test_retries_double_per_key_and_forget_after_success():
    backoff = RetryBackoff()
    assert [backoff.failed("a") for _ in range(3)] == [0.05, 0.1, 0.2]
    assert backoff.failed("b") == 0.05
    backoff.succeeded("a")
    assert backoff.failed("a") == 0.05
    assert max(backoff.failed("a") for _ in range(50)) == 30

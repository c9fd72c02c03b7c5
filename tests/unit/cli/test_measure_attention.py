"""Marks by signals and keys, and the end of a run, while packets are sent."""

import io
import os
import pty
import select
import signal
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kproxy.cli.measure_attention import Attention, keys_come


def waits(attention: Attention) -> bool:
    """Return whether somebody would be woken now."""
    return bool(select.select(attention.fds, [], [], 0)[0])


def test_a_signal_marks_the_moment_in_which_it_comes() -> None:
    with Attention(signal.SIGUSR1, keys=False, live=False).watching() as attention:
        assert not waits(attention)
        before = time.monotonic_ns()
        os.kill(os.getpid(), signal.SIGUSR1)
        after = time.monotonic_ns()
        assert waits(attention)
        os.kill(os.getpid(), signal.SIGUSR1)
        (first, second), end = attention.read()
        assert before <= first.ns <= after <= second.ns
        assert [first.name, second.name] == ["mark 1", "mark 2"]
        assert not end
        assert not waits(attention)
        assert attention.read() == ([], False)


def test_an_interrupt_ends_the_run_and_a_second_one_the_program() -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1)]
    with Attention(None, keys=False, live=False).watching() as attention:
        os.kill(os.getpid(), signal.SIGINT)
        assert attention.read() == ([], True)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1)]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Return the user's end of a terminal that is standard input."""
    user, ours = pty.openpty()
    with open(ours) as stdin:  # noqa: PTH123 - a descriptor
        monkeypatch.setattr(sys, "stdin", stdin)
        yield user
    os.close(user)


def test_keys_mark_and_q_ends(terminal: int) -> None:
    before = termios.tcgetattr(sys.stdin.fileno())
    with Attention(None, keys=True, live=False).watching() as attention:
        os.write(terminal, b"mx")
        assert select.select(attention.fds, [], [], 60)[0]
        marks, end = attention.read()
        assert (len(marks), end) == (2, False)
        os.write(terminal, b"q")
        assert select.select(attention.fds, [], [], 60)[0]
        assert attention.read() == ([], True)
    assert termios.tcgetattr(sys.stdin.fileno()) == before


def test_the_end_of_the_terminal_is_not_the_end_of_the_run(terminal: int) -> None:
    with Attention(None, keys=True, live=False).watching() as attention:
        assert os.get_blocking(sys.stdin.fileno())  # others write to the same terminal
        with Path(os.devnull).open() as nothing:
            os.dup2(nothing.fileno(), terminal)  # it hangs up
        assert select.select(attention.fds, [], [], 60)[0]
        assert attention.read() == ([], False)
        assert sys.stdin.fileno() not in attention.fds


def test_in_the_background_no_keys_are_asked_for(
    terminal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "tcgetpgrp", lambda fd: os.getpgrp())
    assert keys_come()
    monkeypatch.setattr(os, "tcgetpgrp", lambda fd: os.getpgrp() + 1)
    assert not keys_come()


def test_the_live_line_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    with Attention(None, keys=False, live=True).watching() as attention:
        attention.show(1500, 1400, 2.5)
        attention.show(10, 20, 3)
    assert "2.5 s  sent 1,500  received 1,400  under way or lost 100" in shown.getvalue()
    assert "under way or lost 0" in shown.getvalue()
    quiet = Attention(None, keys=False, live=False)
    with quiet.watching():
        quiet.show(1, 1, 1)
    assert "sent 1 " not in shown.getvalue()

"""The live view of a run, on a terminal and in the lines of a part."""

import io
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import report_samples as samples
from rich.console import Console

from kproxy.cli import progress
from kproxy.cli.liveview import LiveView
from kproxy.cli.parts import Total
from kproxy.lab import news
from kproxy.lab.comparison import Step

ENDED = news.ended("endpoint-crash", samples.trial("ipvs", "endpoint-crash", 2))


def told(done: int, mode: str, text: str = "", said: news.News | None = None) -> Step:
    return Step(done=done, total=8, mode=mode, text=text, news=said)


def seen(view: LiveView) -> str:
    out = io.StringIO()
    Console(file=out, width=160).print(view)
    return out.getvalue()


def test_it_shows_where_the_run_is_and_what_was_lost() -> None:
    clock = [100.0]
    view = LiveView(lambda: clock[0])
    view.tell(told(0, "ipvs", "building the lab"))
    assert "building the lab" in seen(view)
    clock[0] = 140.0
    view.tell(told(1, "ipvs", said=news.Rates(sent=2000, received=1000)))
    assert "2,000 sent, 1,000 received █" in seen(view)
    view.tell(told(1, "ipvs", "proxy-crash, trial 1 of 4"))
    view.tell(told(1, "ipvs", said=news.Happened(name="process gone")))
    assert "proxy-crash, trial 1 of 4: process gone" in seen(view)
    assert "left" not in seen(view)  # of what took one trial, no other can be told
    clock[0] = 160.0
    view.tell(told(2, "ipvs", said=ENDED))
    view.tell(told(2, "nftables", "proxy-crash, trial 1 of 4"))
    text = seen(view)
    assert "2 of 8 trials" in text
    assert "0:01:00" in text
    assert "about 0:02:00 left" in text
    assert "40 of 12,000" in text
    assert "176 ms" in text
    assert "process gone 5 · process started 42" in text
    assert "1 trial: 40 of 12,000 packets lost" in text
    assert "0 unexplained" in text


def test_many_places_do_not_fill_the_screen() -> None:
    view = LiveView(lambda: 0.0)
    for number in range(50):
        view.tell(told(0, f"link{number}", "working"))
    text = seen(view)
    assert "link49" in text
    assert "link41" not in text


def test_no_terminal_gets_the_lines_of_steps_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress.shown() as tell:
        tell(told(1, "ipvs", "proxy-crash, trial 1 of 3"))
        tell(told(2, "ipvs", said=ENDED))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("s  [1/8] ipvs: proxy-crash, trial 1 of 3")


@pytest.mark.parametrize(
    "said", [ENDED, news.Rates(sent=2.5, received=1.5), news.Happened(name="fault")]
)
def test_news_of_a_part_reaches_its_parent(
    capsys: pytest.CaptureFixture[str], said: news.News
) -> None:
    with progress.shown(part=True) as tell:
        tell(told(1, "ipvs", "proxy-crash, trial 1 of 3"))
        tell(told(2, "ipvs", said=said))
    heard: list[Step] = []
    total = Total(16, heard.append)
    total.tell("other", "    1 s  [3/8] nftables: baseline, trial 1 of 3")
    for line in capsys.readouterr().err.splitlines():
        total.tell("ipvs", line)
    assert [step.done for step in heard] == [3, 4, 5]
    assert heard[-1] == Step(done=5, total=16, mode="ipvs", text="", news=said)


def test_what_only_looks_like_news_is_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    total = Total(1, lambda step: None)
    total.tell("ipvs", "news: {broken")
    assert capsys.readouterr().err == "news: {broken\n"


PROGRAM = """
import os, time
from kproxy.cli import progress
from kproxy.lab.comparison import Step
with progress.shown() as tell:
    tell(Step(done=1, total=8, mode="ipvs", text="working on it"))
    os.write(1, b"ready\\n")
    time.sleep(100)  # it is interrupted before
"""
SHOW_CURSOR = b"\x1b[?25h"


def test_an_interrupt_leaves_the_terminal_as_it_was() -> None:
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        cwd=Path(__file__).parents[3],
        start_new_session=True,
    )
    os.close(terminal)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        written = b""
        while data := _read(main):  # to its end: it may have more to show than a terminal keeps
            written += data
        assert process.wait(60) == -signal.SIGINT
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        os.close(main)
    assert b"working on it" in written
    assert written.rindex(SHOW_CURSOR) > written.rindex(b"\x1b[?25l")


def _read(main: int) -> bytes:
    assert select.select([main], [], [], 60)[0], "it does not end"
    try:
        return os.read(main, 1 << 16)
    except OSError:  # the last one who had the terminal open is gone
        return b""

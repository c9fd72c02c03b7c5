"""What namespaces are called that have no name of their own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kproxy.cli import trace
from kproxy.errors import UsageError
from kproxy.trace import places


def test_a_process_whose_name_was_cut_within_a_character_is_named(tmp_path: Path) -> None:
    directory = tmp_path / "4711"
    directory.mkdir()
    (directory / "comm").write_bytes("ääääääää".encode()[:15] + b"\n")
    assert places.process(directory) == "äääääää\ufffd[4711]"


def test_what_is_no_namespace_is_not_entered_and_we_stay(tmp_path: Path) -> None:
    home = places.here().identity
    path = tmp_path / "file"
    path.touch()
    for place in (places.Place("file", path), places.Place("gone", tmp_path / "gone")):
        with pytest.raises(UsageError, match=f"cannot enter network namespace {place.name}"):
            places.entered(place).__enter__()
    assert places.here().identity == home


def test_who_may_not_enter_is_told_to_be_root() -> None:
    """Not even its own namespace; it must not end as one that could not come back."""
    code = """
import os
import kproxy.cli.trace, kproxy.trace.run, kproxy.trace.text  # may be read by root only
from kproxy.cli.main import main
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
raise SystemExit(main())
"""
    root = Path(places.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, "trace", "127.0.0.1:9/udp"],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
    )
    assert done.returncode == 2, done.stderr
    assert "cannot enter network namespace here" in done.stderr
    assert "run this as root" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_told_to_end_a_trace_ends_in_order(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), trace._ended_in_order():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before

"""A program's own files at places of the machine: seen by it alone, and gone with it."""

import os
import subprocess
from pathlib import Path

import pytest

from kproxy.errors import KproxyError
from kproxy.lab import privatemounts

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mount namespaces need root")
TEXT = "nameserver 192.0.2.1\n"


def shown(place: Path) -> str:
    return subprocess.run(["cat", place], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return privatemounts.write(tmp_path / "own", TEXT)


@needs_root
def test_only_what_is_started_with_it_sees_it(tmp_path: Path, own: Path) -> None:
    place = tmp_path / "place"
    place.write_text("everybody's\n")
    assert privatemounts.start_with({place: own}, lambda: shown(place)) == TEXT
    assert place.read_text() == shown(place) == "everybody's\n"
    assert str(place) not in Path("/proc/self/mountinfo").read_text()


@needs_root
def test_a_place_that_there_is_not_is_made_for_the_program_only(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    run = tmp_path / "run"
    (run / "lock").mkdir(parents=True)
    (run / "pid").write_text("7")
    (run / "link").symlink_to("pid")
    place = run / "secrets" / "account"
    here = Path.cwd()

    def look() -> list[str]:
        script = "ls; cat secrets/account/token link; echo 8 > pid; echo x > lock/new; echo y > z"
        (secrets / "token").write_text("first ")
        found = subprocess.run(["sh", "-c", script], cwd=run, capture_output=True, text=True)
        return found.stdout.split()

    seen = privatemounts.start_with({place: secrets}, look)
    assert seen == ["link", "lock", "pid", "secrets", "first", "7"]
    # What was there is the machine's own, what was not has never been.
    assert sorted(path.name for path in run.iterdir()) == ["link", "lock", "pid"]
    assert (run / "pid").read_text() == "8\n"
    assert (run / "lock" / "new").read_text() == "x\n"
    assert str(run) not in Path("/proc/self/mountinfo").read_text()
    assert Path.cwd() == here


@needs_root
def test_what_is_replaced_in_a_directory_is_seen_by_who_runs(tmp_path: Path) -> None:
    secrets, place = tmp_path / "secrets", tmp_path / "run" / "here"
    secrets.mkdir()
    (secrets / "token").write_text("old")
    pipe = subprocess.PIPE
    command = ["sh", "-c", f"read _; cat {place}/token"]
    with privatemounts.start_with(
        {place: secrets}, lambda: subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    ) as process:
        privatemounts.write(secrets / "token", "new")
        assert process.communicate("\n")[0] == "new"


@needs_root
def test_errors_come_through(tmp_path: Path, own: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        privatemounts.start_with({own: own}, lambda: shown(tmp_path / "none"))
    with pytest.raises(KproxyError, match="cannot mount"):
        privatemounts.start_with({own: tmp_path / "none"}, lambda: 7)


def test_without_mounts_nothing_is_done() -> None:
    assert privatemounts.start_with({}, lambda: 7) == 7


@pytest.mark.skipif(os.geteuid() == 0, reason="root may")
def test_others_may_not(own: Path) -> None:
    with pytest.raises(KproxyError, match="root"):
        privatemounts.start_with({own: own}, lambda: 7)

"""A program's own resolv.conf: seen by it alone, and gone with it."""

import os
import subprocess
from pathlib import Path

import pytest

from kproxy.errors import KproxyError
from kproxy.lab import resolvfile

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mount namespaces need root")
TEXT = "nameserver 192.0.2.1\n"


def shown(place: Path) -> str:
    return subprocess.run(["cat", place], capture_output=True, text=True, check=True).stdout


@needs_root
def test_only_what_is_started_with_it_sees_it(tmp_path: Path) -> None:
    place, own = tmp_path / "place", tmp_path / "own"
    place.write_text("everybody's\n")
    assert resolvfile.start_with(own, TEXT, lambda: shown(place), place) == TEXT
    assert place.read_text() == shown(place) == "everybody's\n"
    assert str(place) not in Path("/proc/self/mountinfo").read_text()


@needs_root
def test_without_a_place_programs_do_without(tmp_path: Path) -> None:
    place = tmp_path / "none"
    assert resolvfile.start_with(tmp_path / "own", TEXT, place.exists, place) is False


@needs_root
def test_errors_come_through(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        resolvfile.start_with(tmp_path / "own", TEXT, lambda: shown(tmp_path / "none"))


def test_without_a_text_nothing_is_done(tmp_path: Path) -> None:
    assert resolvfile.start_with(tmp_path / "own", "", lambda: 7) == 7
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may")
def test_others_may_not(tmp_path: Path) -> None:
    with pytest.raises(KproxyError, match="root"):
        resolvfile.start_with(tmp_path / "own", TEXT, lambda: 7)

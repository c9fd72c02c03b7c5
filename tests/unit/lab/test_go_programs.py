"""Programs that are not ours: found by their own name or Debian's, copied in virtual time."""

from pathlib import Path

import pytest

from kproxy.errors import Unsupported
from kproxy.lab.whole import goprograms
from kproxy.lab.whole.goprograms import Program
from netns.kernels import base


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the only directory in which programs are looked for."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def install(place: Path, name: str) -> Path:
    program = place / name
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    ("program", "remedy"),
    [
        (Program.PROMETHEUS, "scripts/install --monitoring"),
        (Program.ALERTMANAGER, "scripts/install --monitoring"),
        (Program.NODE_EXPORTER, "scripts/install --monitoring"),
        (Program.ETCD, "scripts/install --etcd"),
    ],
)
def test_what_is_missing_is_told_with_what_installs_it(
    place: Path, program: Program, remedy: str
) -> None:
    with pytest.raises(Unsupported) as caught:
        goprograms.prepare(program, place / "copies")
    assert str(program) in caught.value.message
    assert remedy in caught.value.remedy


def test_a_program_is_found_by_debians_name_or_its_own(place: Path) -> None:
    own = install(place, "alertmanager")
    assert goprograms.installed(Program.ALERTMANAGER) == own
    debians = install(place, "prometheus-alertmanager")
    assert goprograms.installed(Program.ALERTMANAGER) == debians


def test_in_real_time_the_program_itself_runs(place: Path) -> None:
    own = install(place, "prometheus")
    assert goprograms.prepare(Program.PROMETHEUS, place / "copies")
    assert goprograms.path(Program.PROMETHEUS, place / "copies") == str(own)
    assert not (place / "copies").exists()


def test_in_virtual_time_a_copy_runs_and_one_that_reads_the_counter_is_told_of(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "clock", lambda: base.Clock.VIRTUAL)
    own = install(place, "prometheus")  # in which nothing is found that reads it
    assert not goprograms.prepare(Program.PROMETHEUS, place / "copies")
    copy = Path(goprograms.path(Program.PROMETHEUS, place / "copies"))
    assert copy.parent == place / "copies"
    assert copy.resolve() == own

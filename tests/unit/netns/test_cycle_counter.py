"""Copies of programs that do not read the processor's cycle counter."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from netns.kernels import cyclecounter

READS = b"\x0f\x01\xf9", b"\x0f\xae\xf0\x0f\xae\xe8\x0f\x31"
TICKS = READS[0] + bytes.fromhex("48c1e2204801d04889442408c3") + READS[1]
"""runtime.cputicks, as Go's assembler writes it."""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return tmp_path / "program"


def test_only_the_two_ways_of_reading_the_counter_are_replaced(program: Path) -> None:
    around = b"\x75\x10", b"\xeb\xe9" + READS[0]
    program.write_bytes(around[0] + TICKS + around[1])
    copy = program.with_name("copy")
    assert cyclecounter.without(program, copy)
    data = copy.read_bytes()
    assert len(data) == len(program.read_bytes())
    assert data.startswith(around[0])
    assert data.endswith(around[1])
    inner = data[len(around[0]) : -len(around[1])]
    assert READS[0] not in inner
    assert READS[1] not in inner
    assert inner[3:16] == TICKS[3:16]
    assert os.access(copy, os.X_OK)


@pytest.mark.parametrize("text", [b"no reads at all", READS[0] + READS[1], TICKS + TICKS])
def test_what_is_not_known_is_left_as_it_is(program: Path, text: bytes) -> None:
    program.write_bytes(text)
    copy = program.with_name("copy")
    assert not cyclecounter.without(program, copy)
    assert copy.readlink() == program


@pytest.mark.skipif(shutil.which("etcd") is None, reason="needs the program etcd")
def test_debians_etcd_runs_without(program: Path) -> None:
    assert cyclecounter.without(Path(shutil.which("etcd") or ""), program)
    command = [program, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("etcd Version: ")

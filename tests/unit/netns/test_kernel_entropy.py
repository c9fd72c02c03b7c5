"""The shared object that answers an embedded kernel's questions for random numbers."""

import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs_tool("gcc")
# Asks for as many bytes at a time as it is told, and prints all of them in hexadecimal.
ASK = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.getrandom.restype = ctypes.c_ssize_t
given = b""
for size in map(int, sys.argv[2:]):
    buffer = ctypes.create_string_buffer(size)
    assert library.getrandom(buffer, ctypes.c_size_t(size), 0) == size
    given += buffer.raw
print(given.hex())
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    result = tmp_path_factory.mktemp("entropy") / "entropy.so"
    with resources.as_file(resources.files("netns.kernels") / "entropy.c") as source:
        subprocess.run(
            [*("gcc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o"), result, source],
            check=True,
        )
    return result


def ask(library: Path, *sizes: int, seed: str | None) -> bytes:
    environment = {"KPROXY_ENTROPY_SEED": seed} if seed is not None else {}
    command = [sys.executable, "-c", ASK, library, *map(str, sizes)]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return bytes.fromhex(done.stdout)


def test_a_seed_gives_the_same_bytes_however_they_are_asked_for(library: Path) -> None:
    whole = ask(library, 100, seed="7")
    assert ask(library, 1, 2, 8, 16, 73, seed="7") == whole
    assert len(set(whole)) > 50  # 100 random bytes have 83 different values on average


@pytest.mark.parametrize("seed", ["8", "77", "", "-7"])
def test_another_seed_gives_other_bytes(library: Path, seed: str) -> None:
    assert ask(library, 32, seed=seed) != ask(library, 32, seed="7")


def test_without_a_seed_the_host_answers(library: Path) -> None:
    assert ask(library, 32, seed=None) != ask(library, 32, seed=None)

"""Which clock and seed a command gets, and what a kernel is told for it."""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from netns import errors
from netns.kernels import base, choice, clocks, stall, uml, uml_boot
from netns.kernels.base import Clock


@dataclass(frozen=True)
class Provider:
    name: str
    clocks: tuple[Clock, ...]

    def describe(self) -> str:
        return f"kernel {self.name}"

    def obstacle(self) -> None:
        return None

    def run(self, command: base.Command, limits: base.Limits) -> int:
        raise NotImplementedError


NATIVE = Provider("native", (Clock.REAL,))
PLAIN = Provider("uml", (Clock.REAL,))
TRAVELLER = Provider("uml", tuple(Clock))


class Chooser:
    """Chooses ``auto`` for ``auto``, and ``embedded`` for any other name."""

    def __init__(self, auto: Provider, embedded: Provider | None) -> None:
        self.auto, self.embedded = auto, embedded

    def __call__(self, name: str) -> choice.Choice:
        if name == "auto":
            return choice.Choice(self.auto)
        if self.embedded is None:
            raise errors.KernelUnusable("nothing is installed", remedy="install it")
        return choice.Choice(self.embedded)


@pytest.mark.parametrize(
    ("provider", "clock"),
    [(NATIVE, Clock.REAL), (PLAIN, Clock.REAL), (TRAVELLER, Clock.VIRTUAL)],
)
def test_the_default_is_virtual_where_the_kernel_can(provider: Provider, clock: Clock) -> None:
    chosen, got = clocks.choose("auto", None, Chooser(provider, None))
    assert (chosen.provider, got) == (provider, clock)


@pytest.mark.parametrize("clock", list(Clock))
def test_a_kernel_with_the_wanted_clock_is_taken(clock: Clock) -> None:
    chosen, got = clocks.choose("uml", clock, Chooser(NATIVE, TRAVELLER))
    assert (chosen.provider, chosen.because, got) == (TRAVELLER, "", clock)


def test_auto_leaves_this_machines_kernel_for_the_wanted_clock_and_says_so() -> None:
    chosen, got = clocks.choose("auto", Clock.VIRTUAL, Chooser(NATIVE, TRAVELLER))
    assert (chosen.provider, got) == (TRAVELLER, Clock.VIRTUAL)
    assert chosen.because == "kernel native has no virtual clock"


@pytest.mark.parametrize("embedded", [PLAIN, None])
def test_a_clock_that_is_nowhere_is_an_error_with_a_remedy(embedded: Provider | None) -> None:
    with pytest.raises(errors.KernelUnusable, match="has no virtual clock") as refused:
        clocks.choose("auto", Clock.VIRTUAL, Chooser(NATIVE, embedded))
    assert "kproxy kernel build" in refused.value.remedy


def test_a_kernel_named_by_the_user_is_never_replaced() -> None:
    with pytest.raises(errors.KernelUnusable, match="kernel uml has no travel clock"):
        clocks.choose("uml", Clock.TRAVEL, Chooser(TRAVELLER, PLAIN))


def test_only_with_the_worlds_clock_chance_is_left_to_itself() -> None:
    assert clocks.default_seed(Clock.REAL) is None
    assert clocks.default_seed(Clock.VIRTUAL) == clocks.default_seed(Clock.TRAVEL) == 1


def test_a_seed_is_what_pythons_hashes_take() -> None:
    assert clocks.parse_seed(str(2**32 - 1)) == 2**32 - 1
    for text in ("", "-1", "1.5", "x", str(2**32), "²"):
        with pytest.raises(ValueError, match="is not a seed"):
            clocks.parse_seed(text)


def test_clock_and_seed_are_told_where_they_are_not_as_ever() -> None:
    assert clocks.in_words(PLAIN, Clock.REAL, None) == "kernel uml"
    assert clocks.in_words(PLAIN, Clock.VIRTUAL, 3) == "kernel uml, virtual clock, seed 3"


def kernel(**more: Any) -> uml.UmlKernel:
    return uml.UmlKernel(executable=Path("/k"), version="6", origin="own", **more)


def words(command: base.Command) -> list[str]:
    options = uml_boot.boot_argv(kernel(), command, base.Limits(), (7, 8))
    return options[: options.index("--")]


def test_each_clock_has_its_boot_options_and_a_pinned_wall_clock() -> None:
    starts = set()
    for clock, option in ((Clock.TRAVEL, "time-travel"), (Clock.VIRTUAL, "time-travel=inf-cpu")):
        told = words(base.Command(argv=("x",), clock=clock))
        assert option in told
        starts |= {word for word in told if word.startswith("time-travel-start=")}
    assert starts == {"time-travel-start=1767225600000000000"}
    assert not [
        word for word in words(base.Command(argv=("x",))) if word.startswith("time-travel")
    ]


def test_a_seed_fixes_addresses_hashes_and_the_kernels_numbers() -> None:
    seeded, free = base.Command(argv=("x",), seed=5), base.Command(argv=("x",))
    assert "norandmaps" in words(seeded)
    assert "norandmaps" not in words(free)
    inside = uml_boot.guest_environment({}, seeded)
    assert (inside["PYTHONHASHSEED"], inside[base.SEED_VARIABLE]) == ("5", "5")
    assert base.SEED_VARIABLE not in uml_boot.guest_environment({base.SEED_VARIABLE: "9"}, free)
    preloaded = uml_boot.entropy_variables(kernel(entropy=Path("/e.so")), 5)
    assert preloaded == {"LD_PRELOAD": "/e.so", "KPROXY_ENTROPY_SEED": "5"}
    assert uml_boot.entropy_variables(kernel(), 5) == {}
    assert uml_boot.entropy_variables(kernel(entropy=Path("/e.so")), None) == {}


def test_only_a_kernel_with_time_travel_has_other_clocks() -> None:
    assert list(uml.Uml(kernel()).clocks) == [Clock.REAL]
    assert set(uml.Uml(kernel(time_travel=True)).clocks) == set(Clock)
    there = uml.Uml(uml.UmlKernel(executable=Path("/bin/true"), version="6", origin="own"))
    with pytest.raises(errors.KernelUnusable, match="no virtual clock"):
        there.run(base.Command(argv=("x",), clock=Clock.VIRTUAL), base.Limits())


def test_the_command_line_of_the_kernel_names_no_run() -> None:
    told = uml_boot.boot_argv(kernel(), base.Command(argv=("x",), seed=1), base.Limits(), (7, 8))
    assert not [word for word in told if str(os.getpid()) in word or "guests" in word]


@pytest.fixture
def standard_input() -> Iterator[None]:
    before = os.dup(0)
    yield
    os.dup2(before, 0)
    os.close(before)


@pytest.mark.usefixtures("standard_input")
def test_a_file_on_standard_input_is_opened_by_the_guest_where_input_would_move_time(
    tmp_path: Path,
) -> None:
    file = tmp_path / "input"
    file.write_text("first\nsecond\n")
    with file.open("rb", buffering=0) as stream:
        stream.seek(6, io.SEEK_SET)
        os.dup2(stream.fileno(), 0)
        assert uml_boot.file_on_stdin(any_file=True) == {"path": str(file), "offset": 6}
        assert uml_boot.file_on_stdin(any_file=False) is None
        file.unlink()
        assert uml_boot.file_on_stdin(any_file=True) is None
    with Path(os.devnull).open("rb") as stream:
        os.dup2(stream.fileno(), 0)
        assert uml_boot.file_on_stdin(any_file=False) == {"path": os.devnull, "offset": 0}
    reader, writer = os.pipe()
    os.dup2(reader, 0)
    os.close(reader)
    os.close(writer)
    assert uml_boot.file_on_stdin(any_file=True) is None


def test_outside_of_a_guest_the_clock_is_the_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(base.CLOCK_VARIABLE, "virtual")
    monkeypatch.delenv(base.GUEST_VARIABLE, raising=False)
    assert base.clock() is Clock.REAL
    monkeypatch.setenv(base.GUEST_VARIABLE, "uml")
    assert base.clock() is Clock.VIRTUAL
    monkeypatch.setenv(base.SEED_VARIABLE, "4")
    assert base.seed() == 4


def test_computing_is_declared_while_it_lasts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(base.COMPUTING_VARIABLE, str(tmp_path))
    monkeypatch.setenv(base.CLOCK_VARIABLE, "virtual")
    monkeypatch.delenv(base.GUEST_VARIABLE, raising=False)
    with base.computing(300):
        assert stall.declared(tmp_path) == 0  # nothing to declare on the world's clock
    monkeypatch.setenv(base.GUEST_VARIABLE, "uml")
    with base.computing(300), base.computing(20):
        assert stall.declared(tmp_path) == 300
    assert stall.declared(tmp_path) == 0

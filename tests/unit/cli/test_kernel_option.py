"""The step onto another kernel, and the options that lead there."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from kproxy import errors
from kproxy.cli import kernel_option
from netns import errors as netns_errors
from netns.kernels import base, choice


class Embedded:
    """A provider that records what it is asked to run."""

    name = "uml"
    kernel_name = "6.12-test"
    clocks = (base.Clock.REAL,)

    def __init__(self, outcome: int | Exception = 0) -> None:
        self.outcome = outcome
        self.ran: list[tuple[base.Command, base.Limits]] = []

    def describe(self) -> str:
        return "Some Kernel 1.0"

    def obstacle(self) -> None:
        return None

    def run(self, command: base.Command, limits: base.Limits) -> int:
        self.ran.append((command, limits))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(base.GUEST_VARIABLE, raising=False)


def choosing(provider: Any, because: str = "") -> Callable[[str], choice.Choice]:
    return lambda _name: choice.Choice(provider, because)


def step(writable: list[Path] | None = None) -> None:
    limits = base.Limits(memory=base.MIB * 256, time=9)
    kernel = kernel_option.KernelChoice(name="auto", limits=limits)
    kernel_option.run_on_kernel(kernel, writable=writable or [])


def test_inside_the_guest_it_returns_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(base.GUEST_VARIABLE, "uml")
    monkeypatch.setattr(choice, "choose", choosing(None))
    step()


def test_the_same_command_line_runs_inside(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    embedded = Embedded(7)
    monkeypatch.setattr(choice, "choose", choosing(embedded, "this one lacks it"))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-X", "dev", "kproxy", "compare"])
    with pytest.raises(SystemExit) as ended:
        step([tmp_path])
    assert ended.value.code == 7
    [(command, limits)] = embedded.ran
    assert command.argv == (sys.executable, "-X", "dev", "kproxy", "compare")
    assert command.writable == (tmp_path,)
    assert (limits.memory, limits.time) == (base.MIB * 256, 9)
    said = capsys.readouterr().err
    assert said == "kproxy: this one lacks it; using Some Kernel 1.0\n"


def test_what_is_asked_for_by_name_needs_no_comment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(choice, "choose", choosing(Embedded(0)))
    with pytest.raises(SystemExit):
        step()
    assert capsys.readouterr().err == ""


def test_of_several_embedded_kernels_the_used_one_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(choice, "choose", choosing(Embedded(0)))
    with pytest.raises(SystemExit):
        kernel_option.run_on_kernel(kernel_option.KernelChoice(name="uml"))
    assert capsys.readouterr().err == "kproxy: using Some Kernel 1.0\n"


def test_a_kernel_that_cannot_be_used_is_bad_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_name: str) -> choice.Choice:
        raise netns_errors.KernelUnusable("no root", remedy="become root")

    monkeypatch.setattr(choice, "choose", refuse)
    with pytest.raises(errors.UsageError, match="no root"):
        step()


def test_a_guest_that_fails_is_reported_with_its_console(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = netns_errors.GuestFailed("it panicked", console=("Oops",), exit_code=125)
    monkeypatch.setattr(choice, "choose", choosing(Embedded(failure)))
    with pytest.raises(SystemExit) as ended:
        step()
    assert ended.value.code == 125
    assert capsys.readouterr().err == "kproxy: it panicked\n  console: Oops\n"


@click.command()
@kernel_option.kernel_options
def command(kernel: kernel_option.KernelChoice) -> None:
    click.echo(f"{kernel.name} {kernel.limits.memory} {kernel.limits.time}")


def test_the_options_have_defaults() -> None:
    assert CliRunner().invoke(command).output == f"auto {1 << 30} 3600.0\n"


def test_the_options_are_read() -> None:
    words = ["--kernel", "uml", "--memory", "512M", "--time-limit", "90s"]
    assert CliRunner().invoke(command, words).output == f"uml {512 << 20} 90.0\n"


@pytest.mark.parametrize(
    ("option", "value"), [("--kernel", "bsd"), ("--memory", "lots"), ("--time-limit", "never")]
)
def test_a_bad_value_is_named(option: str, value: str) -> None:
    result = CliRunner().invoke(command, [option, value])
    assert result.exit_code == 2
    assert option in result.output
    assert value in result.output


def test_a_kernel_of_this_machine_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "names", lambda: ["auto", "6.12.9-aaaaaaaa"])
    result = CliRunner().invoke(command, ["--kernel", "6.12.9-aaaaaaaa"])
    assert result.output.startswith("6.12.9-aaaaaaaa ")
    result = CliRunner().invoke(command, ["--kernel", "6.1"])
    assert "no kernel '6.1' here; there are: auto, 6.12.9-aaaaaaaa" in result.output


def test_inside_the_guest_a_name_is_what_was_accepted_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(base.GUEST_VARIABLE, "uml")
    monkeypatch.setattr(choice, "names", list)
    assert CliRunner().invoke(command, ["--kernel", "whatever"]).exit_code == 0


@click.command()
@kernel_option.lab_options
def lab_command(kernel: kernel_option.KernelChoice) -> None:
    click.echo(f"{kernel.name} {kernel.clock} {kernel.seed} {kernel.limits.stall}")


def test_a_command_that_runs_a_lab_leaves_the_clock_to_the_kernel() -> None:
    assert CliRunner().invoke(lab_command).output == "auto None None 60.0\n"


def test_a_command_that_measures_this_machine_has_the_worlds_clock() -> None:
    assert kernel_option.KernelChoice().clock is base.Clock.REAL


def test_clock_seed_and_stall_are_read() -> None:
    words = ["--clock", "virtual", "--seed", "7", "--stall", "2m"]
    assert CliRunner().invoke(lab_command, words).output == "auto virtual 7 120.0\n"


@pytest.mark.parametrize(
    ("option", "value"), [("--clock", "sun"), ("--seed", "x"), ("--stall", "0")]
)
def test_a_bad_clock_is_named(option: str, value: str) -> None:
    result = CliRunner().invoke(lab_command, [option, value])
    assert result.exit_code == 2
    assert option in result.output


class Traveller(Embedded):
    """One that has all clocks."""

    clocks = tuple(base.Clock)


def test_the_virtual_clock_comes_with_a_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    embedded = Traveller()
    monkeypatch.setattr(choice, "choose", choosing(embedded, "this one lacks it"))
    with pytest.raises(SystemExit):
        kernel_option.run_on_kernel(kernel_option.KernelChoice(clock=None))
    [(command, _)] = embedded.ran
    assert (command.clock, command.seed) == (base.Clock.VIRTUAL, 1)
    assert capsys.readouterr().err.endswith("using Some Kernel 1.0, virtual clock, seed 1\n")


def test_a_clock_that_cannot_be_had_is_bad_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "choose", choosing(Embedded()))
    with pytest.raises(errors.UsageError, match="no virtual clock") as refused:
        kernel_option.run_on_kernel(
            kernel_option.KernelChoice(name="uml", clock=base.Clock.VIRTUAL)
        )
    assert "kproxy kernel build" in refused.value.remedy


def test_an_embedded_kernel_may_be_told_other_words_and_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(base.STATE_VARIABLE, str(tmp_path / "state"))
    embedded = Embedded()
    run = embedded.run
    read: list[str] = []

    def tell(directory: Path, clock: base.Clock) -> list[str]:
        (directory / "job").write_text(f"on the {clock} clock")
        return ["-m", "program", str(directory / "job")]

    def reading(command: base.Command, limits: base.Limits) -> int:
        read.append(Path(command.argv[-1]).read_text())
        return run(command, limits)

    monkeypatch.setattr(embedded, "run", reading)
    monkeypatch.setattr(choice, "choose", choosing(embedded))
    with pytest.raises(SystemExit):
        kernel_option.run_on_kernel(kernel_option.KernelChoice(), writable=[tmp_path], told=tell)
    [(command, _)] = embedded.ran
    assert command.argv[:-1] == (sys.executable, "-m", "program")
    assert command.writable == (tmp_path, Path(command.argv[-1]).parent)
    assert read == ["on the real clock"]
    assert list((tmp_path / "state").iterdir()) == []


class Native(Embedded):
    """The kernel of this machine."""

    name = "native"


def test_on_this_machines_kernel_a_seed_starts_the_command_anew_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    native = Native()
    monkeypatch.delenv(base.SEED_VARIABLE, raising=False)
    monkeypatch.setattr(choice, "choose", choosing(native))
    wanted = kernel_option.KernelChoice(clock=None, seed=3)
    with pytest.raises(SystemExit):
        kernel_option.run_on_kernel(wanted)
    assert [command.seed for command, _ in native.ran] == [3]
    monkeypatch.setenv(base.SEED_VARIABLE, "3")  # as the command started anew has it
    kernel_option.run_on_kernel(wanted)
    kernel_option.run_on_kernel(kernel_option.KernelChoice(clock=None))
    assert len(native.ran) == 1

"""On which kernel ``kproxy compare`` runs: that of a result, or one that can do its modes."""

import dataclasses

import click
import pytest
from click.testing import CliRunner

from kproxy import errors
from kproxy.cli import compare, reproducing
from kproxy.cli.kernel_option import KernelChoice, lab_options
from kproxy.lab import comparison, modes
from netns.kernels import base, choice


def chosen(monkeypatch: pytest.MonkeyPatch, *args: str) -> tuple[KernelChoice, str]:
    """Return what becomes of a result made on kernel ``own`` with 2 GiB, and what is said."""
    found: list[KernelChoice] = []

    @click.command()
    @lab_options
    def command(kernel: KernelChoice) -> None:
        found.append(reproducing._same_kernel(kernel, "own", 2048 * base.MIB))

    monkeypatch.setattr(choice, "names", lambda: ["auto", "uml", "own", "other"])
    outcome = CliRunner().invoke(command, args, catch_exceptions=False)
    return found[0], outcome.stderr


def test_the_kernel_and_the_memory_of_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, said = chosen(monkeypatch)
    assert (kernel.name, kernel.limits.memory, said) == ("own", 2048 * base.MIB, "")


def test_what_the_user_names_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, said = chosen(monkeypatch, "--kernel", "other", "--memory", "512M")
    assert (kernel.name, kernel.limits.memory, said) == ("other", 512 * base.MIB, "")


def test_a_kernel_that_is_not_here_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context():
        found: list[KernelChoice] = []

        @click.command()
        @lab_options
        def command(kernel: KernelChoice) -> None:
            found.append(reproducing._same_kernel(kernel, "gone", None))

        monkeypatch.setattr(choice, "names", lambda: ["auto"])
        outcome = CliRunner().invoke(command, [], catch_exceptions=False)
    assert found == [dataclasses.replace(found[0], name="auto")]
    assert "made on kernel gone, which is not here" in outcome.stderr


def test_modes_that_nobody_named_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(modes, "lacking", lambda wanted: {"ipvs": "no module ip_vs"})
    able = compare._able(comparison.Parameters(), named=False)
    assert able.modes == ("iptables", "nftables")
    assert able.left_out == ("mode ipvs: no module ip_vs",)
    assert "not on this kernel: mode ipvs: no module ip_vs" in capsys.readouterr().err


def test_a_mode_that_was_named_is_never_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes, "lacking", lambda wanted: {"ipvs": "no module ip_vs"})
    with pytest.raises(errors.UsageError, match="mode ipvs: not on this kernel: no module ip_vs"):
        compare._able(comparison.Parameters(), named=True)

"""``kproxy compare --reproduce`` runs on the kernel of the result, unless another is named."""

import dataclasses

import click
import pytest
from click.testing import CliRunner

from kproxy.cli import reproducing
from kproxy.cli.kernel_option import KernelChoice, lab_options
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

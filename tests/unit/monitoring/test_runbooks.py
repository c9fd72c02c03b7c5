"""Runbooks can be followed: their parts are there, their links lead somewhere, commands exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import alert_rules
import click
import pytest

from kproxy.cli.main import cli

PAGES = sorted((alert_rules.ROOT / "docs" / "runbooks").glob("[!R]*.md"))
PARTS = ["What it means", "What users lose", "Look", "Do"]
OTHERS = {
    *("amtool", "conntrack", "crictl", "curl", "df", "etcdctl", "ipvsadm", "iptables-save"),
    *("journalctl", "nft", "promtool", "ps", "sysctl", "systemctl"),
}
VERBS = {"delete", "describe", "drain", "exec", "get", "logs", "uncordon"}
"""Of kubectl."""


def params(pages: list[Path]) -> list[object]:
    return [pytest.param(path, id=path.stem) for path in pages]


def commands(text: str) -> Iterator[list[str]]:
    """Yield what a page tells to type: in blocks, and in the middle of a sentence."""
    for block in re.findall(r"^    (.+)$", text, re.MULTILINE):
        yield shlex.split(block)
    for quoted in re.findall(r"`([^`]+)`", text):
        words = quoted.split()
        if len(words) > 1 and words[0] in OTHERS | {"kproxy", "kubectl"}:
            yield words


@pytest.mark.parametrize("page", params(PAGES))
def test_a_page_has_all_parts(page: Path) -> None:
    text = page.read_text()

    assert text.startswith(f"# {page.stem}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == PARTS
    assert re.search(r"^    \w", text, re.MULTILINE)


@pytest.mark.parametrize("page", params(PAGES))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", params(PAGES))
def test_commands_exist(page: Path) -> None:
    for words in commands(page.read_text()):
        check(words)


@pytest.mark.parametrize("page", params(PAGES))
def test_a_page_names_the_action_that_is_taken(page: Path) -> None:
    actions = {
        rule["labels"]["remediation"]
        for rule in alert_rules.alerts()
        if rule["alert"] == page.stem and "remediation" in rule["labels"]
    }

    named = re.findall(r"\*\*By itself\*\*\s+\(`([a-z-]+)`\)", page.read_text())

    assert set(named) == actions


def check(words: list[str]) -> None:
    """Fail if a command is not one that there is."""
    program, *rest = words
    if program == "kubectl":
        plain = [word for word in rest if not word.startswith("-")]
        named = plain[1:] if rest[:1] == ["-n"] else plain
        assert named[0] in VERBS, words
        if "--" in rest:
            check(rest[rest.index("--") + 1 :])
    elif program == "kproxy":
        check_ours(rest)
    else:
        assert program in OTHERS, words


def check_ours(words: list[str]) -> None:
    command: click.Command = cli
    options: set[str] = set()
    for word in words:
        if word.startswith("-"):
            assert word.partition("=")[0] in options, words
        elif isinstance(command, click.Group):
            found = command.get_command(click.Context(command), word)
            assert found is not None, words
            command = found
            options = {name for one in command.params for name in one.opts}
    # To name the program is no command; what it is told to do needs its configuration.
    assert words[0] != "remediate" or len(words) == 1 or "--config" in words, words


def test_a_command_that_does_not_exist_would_be_found() -> None:
    for wrong in (
        *(["kproxy", "node", "fix"], ["kproxy", "diff", "--all"], ["kubectl", "heal"]),
        ["kproxy", "remediate", "audit"],
    ):
        with pytest.raises(AssertionError):
            check(wrong)

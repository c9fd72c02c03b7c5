"""Which kernel is chosen, and how amounts are read."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from netns import errors
from netns.kernels import base, choice, quantities


@dataclass(frozen=True)
class Provider:
    name: str
    lacking: base.Obstacle | None = None

    def describe(self) -> str:
        return f"kernel {self.name}"

    def obstacle(self) -> base.Obstacle | None:
        return self.lacking

    def run(self, command: base.Command, limits: base.Limits) -> int:
        raise NotImplementedError


HERE = Provider("native")
NOT_HERE = Provider("native", base.Obstacle("it has no IPVS", "load it"))
EMBEDDED = Provider("uml")
NOT_EMBEDDED = Provider("uml", base.Obstacle("it is not installed", "apt-get install it"))


def test_auto_takes_this_machines_kernel_if_it_will_do() -> None:
    assert choice.choose("auto", HERE, EMBEDDED) == choice.Choice(HERE)


def test_auto_takes_the_embedded_one_otherwise_and_says_why() -> None:
    chosen = choice.choose("auto", NOT_HERE, EMBEDDED)
    assert chosen.provider is EMBEDDED
    assert chosen.because == "it has no IPVS"


def test_what_is_asked_for_is_taken() -> None:
    assert choice.choose("uml", HERE, EMBEDDED).provider is EMBEDDED
    assert choice.choose("native", HERE, EMBEDDED).provider is HERE


@pytest.mark.parametrize(
    ("name", "here", "embedded", "words"),
    [
        ("native", NOT_HERE, EMBEDDED, "no IPVS.*load it"),
        ("uml", HERE, NOT_EMBEDDED, "not installed.*apt-get"),
        ("auto", NOT_HERE, NOT_EMBEDDED, "no IPVS, and.*not installed.*load it, or apt-get"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_remedy(
    name: str, here: Provider, embedded: Provider, words: str
) -> None:
    with pytest.raises(errors.KernelUnusable, match=words):
        choice.choose(name, here, embedded)


@pytest.mark.parametrize(
    ("text", "mib"), [("512", 512), ("512M", 512), ("1G", 1024), ("2GiB", 2048), ("262144k", 256)]
)
def test_memory(text: str, mib: int) -> None:
    assert quantities.parse_memory(text) == mib * base.MIB


@pytest.mark.parametrize("text", ["", "x", "1T", "-1G", "1.5G", "64M", "0"])
def test_bad_memory_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=repr(text)):
        quantities.parse_memory(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("60m", 3600), ("2h", 7200)]
)
def test_time(text: str, seconds: float) -> None:
    assert quantities.parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1s", "0", "1d", "inf", "nan"])
def test_bad_time_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=repr(text)):
        quantities.parse_time(text)


def test_the_state_directory_is_where_users_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(base.STATE_VARIABLE, "/some/where")
    assert base.state_directory() == Path("/some/where")
    monkeypatch.delenv(base.STATE_VARIABLE)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert base.state_directory() == Path("/run/kproxy")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert base.state_directory() == Path("/run/user/1000/kproxy")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("HOME", "/home-of-u")
    assert base.state_directory() == Path("/home-of-u/.local/state/kproxy")

"""Which kernel is chosen, and how amounts are read."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from netns import errors
from netns.kernels import base, choice, native, probe, quantities, registry, uml


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


def test_a_kernel_without_ipvs_is_taken_if_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(native, "has_ipvs", lambda: False)
    kinds = {"dummy": "Operation not supported", "veth": ""}
    monkeypatch.setattr(probe, "probe", lambda kinds_asked: {k: kinds[k] for k in kinds_asked})
    assert choice.choose("native", embedded=EMBEDDED).provider.name == "native"
    chosen = choice.choose("auto", embedded=EMBEDDED)
    assert chosen.provider is EMBEDDED
    assert "has no IPVS" in chosen.because


def kernel(name: str) -> uml.UmlKernel:
    return uml.UmlKernel(
        executable=Path("/bin/true"), version="6.12", origin="somewhere", name=name
    )


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> list[uml.UmlKernel]:
    kernels = [kernel(name) for name in ("6.12-b", "6.12-a", "debian")]
    monkeypatch.setattr(registry, "kernels", lambda: kernels)
    return kernels


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [
        *(("auto", "6.12-b"), ("uml", "6.12-b")),
        *(("6.12-a", "6.12-a"), ("6.12-b", "6.12-b"), ("debian", "debian")),
    ],
)
def test_of_embedded_kernels_the_first_is_taken_or_the_one_named(
    three: list[uml.UmlKernel], wanted: str, taken: str
) -> None:
    provider = choice.choose(wanted, NOT_HERE).provider
    assert isinstance(provider, uml.Uml)
    assert provider.kernel is not None
    assert provider.kernel.name == taken


def test_a_kernel_that_is_named_is_taken_also_where_this_machines_would_do(
    three: list[uml.UmlKernel],
) -> None:
    assert choice.choose("debian", HERE).provider.name == "uml"
    assert choice.choose("auto", HERE).provider is HERE


def test_all_names_are_offered(three: list[uml.UmlKernel]) -> None:
    assert choice.names() == ["auto", "native", "uml", "6.12-b", "6.12-a", "debian"]


def test_a_kernel_that_is_not_here_is_answered_with_those_that_are(
    three: list[uml.UmlKernel],
) -> None:
    with pytest.raises(errors.KernelUnusable, match=r"'6\.1'.*6\.12-b, 6\.12-a, debian"):
        choice.choose("6.1")


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

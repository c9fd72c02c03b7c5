"""Kernels are built completely or not at all, and no work is done twice."""

import fcntl
import itertools
import os
import select
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from fake_toolchain import OBJECTS, Toolchain

from netns import errors
from netns.kernels import base, build, configuration, registry
from netns.kernels.progress import COMPILING, Progress

ALL = [str(number) for number in range(1, OBJECTS + 1)]


@pytest.fixture
def toolchain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toolchain:
    tools = Toolchain(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", tools.path)
    monkeypatch.setattr(build, "ROOM", 0)
    return tools


def request_of(toolchain: Toolchain, *, force: bool = False) -> build.Request:
    return build.Request(source=str(toolchain.archive), jobs=1, force=force)


STEPS = ("trying the compiler", "unpacking", "configuring", COMPILING, "finishing")


def test_a_kernel_is_built_and_described(toolchain: Toolchain) -> None:
    outcome = build.build(request_of(toolchain))
    built = outcome.built
    assert outcome.fresh
    assert registry.built_kernels() == [built]
    assert built.version == "6.12.9"
    assert built.source == "linux-source-6.12.tar"
    assert set(built.features) == set(base.Feature)
    assert built.options == {"HZ": "100", "HIGH_RES_TIMERS": "y"}
    assert built.objects == OBJECTS
    assert {path.name for path in built.directory.iterdir()} == {
        *("build.log", "config", "entropy.so", "kernel.json", "linux")
    }
    kernel = built.kernel()
    assert os.access(kernel.executable, os.X_OK)
    assert kernel.entropy is not None
    assert kernel.entropy.read_text() == "compiled\n"
    assert kernel.time_travel


def test_nothing_else_stays(toolchain: Toolchain) -> None:
    built = build.build(request_of(toolchain)).built
    there = {path.name for path in registry.directory().iterdir()}
    assert there == {built.name, registry.LOCK}


def test_a_kernel_that_is_there_is_not_built_again(toolchain: Toolchain) -> None:
    first = build.build(request_of(toolchain))
    again = build.build(request_of(toolchain))
    assert again == build.Outcome(first.built, fresh=False)
    assert toolchain.compiled() == ALL


def test_force_builds_it_again_and_replaces_it(toolchain: Toolchain) -> None:
    first = build.build(request_of(toolchain)).built
    (first.directory / "config").write_text("")
    again = build.build(request_of(toolchain, force=True))
    assert again.fresh
    assert again.built.name == first.name
    assert (first.directory / "config").read_text()
    assert toolchain.compiled() == ALL + ALL


@pytest.mark.parametrize("step", STEPS)
def test_a_build_interrupted_in_any_step_shows_nothing_and_goes_on(
    toolchain: Toolchain, step: str
) -> None:
    def interrupt(progress: Progress) -> None:
        assert registry.built_kernels() == []
        if progress.step.startswith(step):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            build.build(request_of(toolchain), interrupt)
        assert registry.built_kernels() == []
    built = build.build(request_of(toolchain)).built
    assert registry.built_kernels() == [built]
    # Each once, but for one that was being compiled when the interrupt came.
    assert [number for number, _ in itertools.groupby(toolchain.compiled())] == ALL


def test_what_is_done_is_not_done_again(toolchain: Toolchain) -> None:
    steps: list[str] = []

    def interrupt(progress: Progress) -> None:
        steps.append(progress.step)
        if progress.step == COMPILING:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build.build(request_of(toolchain), interrupt)
    assert any(step.startswith("unpacking") for step in steps)
    steps.clear()
    with pytest.raises(KeyboardInterrupt):
        build.build(request_of(toolchain), interrupt)
    assert set(steps) == {"trying the compiler", COMPILING}


def test_what_was_killed_half_way_through_unpacking_is_unpacked_anew(toolchain: Toolchain) -> None:
    key = build.build_key(build.fragment(), build.source.find(str(toolchain.archive)))
    half = registry.directory() / f"{registry.UNFINISHED}{key}" / "source.partial"
    (half / "rubbish").mkdir(parents=True)
    assert build.build(request_of(toolchain)).fresh


BUILDER = """
import sys
from netns.kernels import build
build.ROOM = 0
build.build(build.Request(source=sys.argv[1], jobs=1))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_who_builds_may_be_killed(toolchain: Toolchain, number: signal.Signals) -> None:
    """The compiler ends too: it would go on in the dark, and keep the next call waiting."""
    reached = toolchain.bin / "reached"
    os.mkfifo(reached)
    toolchain.behave(f"before_third() {{ echo $$ >'{reached}'; exec sleep 999; }}")
    with subprocess.Popen(
        [sys.executable, "-c", BUILDER, toolchain.archive], stderr=subprocess.DEVNULL
    ) as builder:
        compiler = os.pidfd_open(int(reached.read_text()))
        builder.send_signal(number)
    ended, _, _ = select.select([compiler], [], [], 60)
    os.close(compiler)
    assert ended
    assert builder.returncode != 0
    assert registry.built_kernels() == []
    assert [place.name[: len(registry.UNFINISHED)] for place in registry.unfinished()] == [
        registry.UNFINISHED
    ]
    toolchain.behave("")
    assert build.build(request_of(toolchain)).fresh
    assert toolchain.compiled() == ALL
    assert registry.unfinished() == []


def test_a_build_that_fails_shows_the_line_that_tells_why(toolchain: Toolchain) -> None:
    toolchain.behave(
        "before_third() { echo 'net/3.c:7: error: boom'; seq 99; echo 'make: *** Error'; exit 2; }"
    )
    with pytest.raises(errors.BuildFailed, match=r"make failed with exit code 2.*build\.log") as e:
        build.build(request_of(toolchain))
    assert "net/3.c:7: error: boom" in e.value.output
    assert len(e.value.output) < 20
    assert e.value.lines("kproxy")[1].startswith("  log: ")
    toolchain.behave("")
    assert build.build(request_of(toolchain)).fresh
    assert toolchain.compiled() == ALL


def test_an_option_that_the_kernel_does_not_take_is_named(toolchain: Toolchain) -> None:
    toolchain.behave(
        "after_configuration() { sed -i 's/^CONFIG_IP_VS_MH=y//' \"$objects/.config\"; }"
    )
    with pytest.raises(errors.BuildFailed, match="does not take 1 of the options") as failure:
        build.build(request_of(toolchain))
    assert failure.value.output == ("CONFIG_IP_VS_MH=y",)
    toolchain.behave("")
    assert build.build(request_of(toolchain)).fresh


def test_missing_programs_are_named_with_their_packages(
    toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("flex", "bc"):
        (toolchain.bin / name).unlink()
    monkeypatch.setenv("PATH", str(toolchain.bin))
    monkeypatch.setattr(
        build, "TOOLS", {name: build.TOOLS[name] for name in ("bc", "flex", "gcc")}
    )
    with pytest.raises(errors.BuildFailed, match=r"bc flex \(apt-get install bc flex\)"):
        build.build(request_of(toolchain))
    assert not registry.directory().exists()


def test_a_compiler_without_headers_is_found_out_first(toolchain: Toolchain) -> None:
    (toolchain.bin / "no-headers").touch()
    with pytest.raises(errors.BuildFailed, match=r"small program.*libc6-dev"):
        build.build(request_of(toolchain))


def test_another_processor_is_refused(
    toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(errors.BuildFailed, match="aarch64"):
        build.build(request_of(toolchain))


def test_too_little_room_is_said_with_figures(
    toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "ROOM", 1 << 62)
    with pytest.raises(errors.BuildFailed, match=r"MiB are free.*XDG_CACHE_HOME"):
        build.build(request_of(toolchain))


def test_a_tree_is_built_where_it_is_and_stays_as_it_was(toolchain: Toolchain) -> None:
    before = sorted(toolchain.tree.rglob("*"))
    built = build.build(build.Request(source=str(toolchain.tree), jobs=1)).built
    assert built.source == str(toolchain.tree)
    assert sorted(toolchain.tree.rglob("*")) == before
    (toolchain.tree / "new.c").touch()
    assert build.build(build.Request(source=str(toolchain.tree), jobs=1)).fresh
    assert len(registry.built_kernels()) == 2


def test_a_second_build_waits_and_takes_what_the_first_made(
    toolchain: Toolchain, tmp_path: Path
) -> None:
    made = build.build(request_of(toolchain)).built
    elsewhere = made.directory.rename(tmp_path / "made")
    other = os.open(registry.directory() / registry.LOCK, os.O_RDWR)
    fcntl.flock(other, fcntl.LOCK_EX)
    said: list[str] = []

    def first_build_ends(progress: Progress) -> None:
        said.append(progress.step)
        elsewhere.rename(made.directory)
        os.close(other)

    outcome = build.build(request_of(toolchain), first_build_ends)
    assert outcome == build.Outcome(made, fresh=False)
    assert said == ["waiting for another build to end"]


def test_progress_counts_objects_against_the_last_kernel(toolchain: Toolchain) -> None:
    build.build(request_of(toolchain))
    reports: list[Progress] = []
    build.build(request_of(toolchain, force=True), reports.append)
    compiling = [one for one in reports if one.step == COMPILING]
    assert compiling[0].done == 0
    assert compiling[0].total == OBJECTS
    assert compiling[-1].current == f"net/{OBJECTS}.o"
    assert all(one.done <= one.total for one in compiling)


def test_comments_of_the_fragment_do_not_rename_kernels_but_options_do(
    toolchain: Toolchain,
) -> None:
    origin = build.source.find(str(toolchain.archive))
    options = build.fragment()
    key = build.build_key(options, origin)
    turned = dict(reversed(options.items()))
    assert build.build_key(turned, origin) == key
    assert build.build_key({**options, "HZ_1000": "y"}, origin) != key


def test_our_fragment_has_all_features() -> None:
    assert set(configuration.features(build.fragment())) == set(base.Feature)


def test_programs_of_a_build_see_no_settings_of_the_user(
    toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MAKEFLAGS or KCONFIG_CONFIG from outside would build another kernel under the same name."""
    monkeypatch.setenv("MAKEFLAGS", "-n")
    noted = toolchain.bin / "environment"
    toolchain.behave(f"after_configuration() {{ env >'{noted}'; }}")
    build.build(request_of(toolchain))
    assert "MAKEFLAGS" not in noted.read_text()
    assert "KBUILD_BUILD_USER=netns" in noted.read_text()


def test_the_program_may_be_executed_by_its_owner(toolchain: Toolchain) -> None:
    mode = build.build(request_of(toolchain)).built.kernel().executable.stat().st_mode
    assert mode & stat.S_IXUSR

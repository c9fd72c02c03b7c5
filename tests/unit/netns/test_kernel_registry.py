"""Which embedded kernels there are, in which order, and how they go."""

import dataclasses
from pathlib import Path

import pytest

from netns import errors
from netns.kernels import base, registry, uml

DEBIAN = uml.UmlKernel(
    executable=Path("/usr/bin/linux.uml"), version="6.1.176", origin="Debian", name="debian"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(uml, "debian", lambda: DEBIAN)
    return tmp_path / "kproxy" / "kernels"


def add(cache: Path, name: str, built: str = "2026-01-01T00:00:00+00:00") -> registry.Built:
    place = cache / name
    place.mkdir(parents=True)
    (place / registry.EXECUTABLE).write_text("#!/bin/sh\n")
    (place / registry.EXECUTABLE).chmod(0o755)
    kernel = registry.Built(
        directory=place,
        name=name,
        version=name.rpartition("-")[0],
        source="linux-source-6.12.tar.xz",
        source_digest="s",
        fragment_digest="f",
        compiler="gcc 12",
        features=(base.Feature.IPVS,),
        options={"HZ": "100"},
        built=built,
        seconds=360.0,
        size=10,
        objects=1300,
    )
    registry.write(kernel)
    return kernel


def test_a_kernel_is_read_as_it_was_written(cache: Path) -> None:
    assert add(cache, "6.12.1-aaaaaaaa") == registry.built_kernels()[0]


def test_the_newest_version_is_preferred_then_the_youngest_then_debians(cache: Path) -> None:
    add(cache, "6.9.9-aaaaaaaa", built="2026-03-01T00:00:00+00:00")
    add(cache, "6.12.1-bbbbbbbb", built="2026-01-01T00:00:00+00:00")
    add(cache, "6.12.1-cccccccc", built="2026-02-01T00:00:00+00:00")
    names = [kernel.name for kernel in registry.kernels()]
    assert names == ["6.12.1-cccccccc", "6.12.1-bbbbbbbb", "6.9.9-aaaaaaaa", "debian"]
    preferred = registry.preferred()
    assert preferred is not None
    assert preferred.name == names[0]


def test_without_any_kernel_none_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    assert registry.preferred() == DEBIAN
    monkeypatch.setattr(uml, "debian", lambda: None)
    assert registry.preferred() is None


@pytest.mark.parametrize("damage", ["no program", "no metadata", "half of it", "unknown feature"])
def test_a_damaged_kernel_is_none(cache: Path, damage: str) -> None:
    kernel = add(cache, "6.12.1-aaaaaaaa")
    metadata = kernel.directory / registry.METADATA
    if damage == "no program":
        (kernel.directory / registry.EXECUTABLE).unlink()
    elif damage == "no metadata":
        metadata.unlink()
    elif damage == "half of it":
        metadata.write_text(metadata.read_text()[:50])
    else:
        metadata.write_text(metadata.read_text().replace("ipvs", "teleport"))
    assert registry.built_kernels() == []
    assert registry.removable() == ["6.12.1-aaaaaaaa"]


def test_a_kernel_is_found_by_name_and_by_hash(cache: Path) -> None:
    kernel = add(cache, "6.12.1-aaaaaaaa")
    assert registry.find("6.12.1-aaaaaaaa") == kernel.kernel()
    assert registry.find("debian") == DEBIAN
    assert registry.with_key("aaaaaaaa") == kernel
    assert registry.with_key("aaaa") is None


def test_a_name_that_is_not_there_is_answered_with_those_that_are(cache: Path) -> None:
    add(cache, "6.12.1-aaaaaaaa")
    with pytest.raises(errors.KernelUnusable, match=r"'bsd'.*6\.12\.1-aaaaaaaa, debian"):
        registry.find("bsd")


def test_removing_takes_what_is_named_and_nothing_else(cache: Path) -> None:
    add(cache, "6.12.1-aaaaaaaa")
    add(cache, "6.12.1-bbbbbbbb")
    (cache / "unfinished-cccccccc").mkdir()
    assert registry.remove(["6.12.1-aaaaaaaa", "unfinished-cccccccc"])
    assert registry.removable() == ["6.12.1-bbbbbbbb"]


def test_removing_checks_all_names_first(cache: Path) -> None:
    add(cache, "6.12.1-aaaaaaaa")
    for wrong in ("nothing", "../..", "debian", ".lock"):
        with pytest.raises(errors.KernelUnusable):
            registry.remove(["6.12.1-aaaaaaaa", wrong])
    assert registry.removable() == ["6.12.1-aaaaaaaa"]


def test_a_build_that_runs_is_not_removed(cache: Path) -> None:
    (cache / "unfinished-cccccccc").mkdir(parents=True)
    with registry.lock(), pytest.raises(errors.KernelUnusable, match="being built"):
        registry.remove(["unfinished-cccccccc"])
    assert registry.unfinished() == [cache / "unfinished-cccccccc"]


def test_an_interrupted_removal_shows_nothing_and_is_swept(cache: Path) -> None:
    (cache / ".6.12.1-aaaaaaaa").mkdir(parents=True)
    assert registry.removable() == []
    registry.sweep()
    assert not any(cache.iterdir())


def test_the_cache_is_where_xdg_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home-of-u")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored
    assert registry.directory() == Path("/home-of-u/.cache/kproxy/kernels")
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/where")
    assert registry.directory() == Path("/some/where/kproxy/kernels")


def test_virtual_time_is_a_feature_of_the_kernel(cache: Path) -> None:
    kernel = add(cache, "6.12.1-aaaaaaaa")
    assert not kernel.kernel().time_travel
    features = (*kernel.features, base.Feature.TIME_TRAVEL)
    assert dataclasses.replace(kernel, features=features).kernel().time_travel

"""What users may name as the source of a kernel."""

from pathlib import Path

import pytest

from netns import errors
from netns.kernels import source


@pytest.fixture(autouse=True)
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "src"
    place.mkdir()
    monkeypatch.setattr(source, "PACKAGES", place)
    return place


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    place = tmp_path / "linux"
    (place / "arch" / "um").mkdir(parents=True)
    (place / "arch" / "um" / "Makefile").touch()
    return place


def test_a_version_is_that_of_debians_package(packages: Path) -> None:
    archive = packages / "linux-source-6.12.tar.xz"
    archive.write_bytes(b"content")
    found = source.find("6.12")
    assert found.path == archive
    assert not found.is_tree
    archive.write_bytes(b"other content")
    assert source.find("6.12").digest != found.digest


def test_a_version_that_is_not_installed_is_answered_with_what_is(packages: Path) -> None:
    (packages / "linux-source-6.1.tar.xz").touch()
    with pytest.raises(
        errors.SourceUnusable,
        match=r"source-6\.12 is not installed \(here is linux-source-6\.1\).*apt-get install",
    ):
        source.find("6.12")


def test_a_tree_is_known_by_what_is_in_it(tree: Path) -> None:
    first = source.find(str(tree))
    assert first.is_tree
    assert source.find(str(tree)) == first
    (tree / "arch" / "um" / "Makefile").write_text("changed")
    assert source.find(str(tree)).digest != first.digest


def test_what_git_keeps_does_not_change_a_tree(tree: Path) -> None:
    first = source.find(str(tree))
    (tree / ".git").mkdir()
    (tree / ".git" / "index").touch()
    assert source.find(str(tree)) == first


def test_a_tree_that_was_built_in_is_refused_with_the_remedy(tree: Path) -> None:
    (tree / ".config").touch()
    with pytest.raises(errors.SourceUnusable, match=r"built in.*ARCH=um mrproper"):
        source.find(str(tree))


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    for wanted, words in (
        (tmp_path, "no arch/um/Makefile"),
        (tmp_path / "notes.txt", "no tar archive"),
        (tmp_path / "absent", "there is no kernel source"),
    ):
        with pytest.raises(errors.SourceUnusable, match=words):
            source.find(str(wanted))

"""The configuration file changes under a running proxy, in all the ways files change."""

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kproxy.agent import configwatch

PATIENCE_S = 60


class Watcher:
    """Waits for a change in a thread; ``looks`` tells what it saw, each time."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.looks: queue.Queue[bool] = queue.Queue()
        look = configwatch._changed

        def noting(*arguments: Any) -> bool:
            found = look(*arguments)
            self.looks.put(found)
            return found

        monkeypatch.setattr(configwatch, "_changed", noting)
        content = path.read_bytes()
        wait = configwatch.wait_for_change
        self.thread = threading.Thread(target=wait, args=(path, content), daemon=True)
        self.thread.start()
        assert self.looks.get(timeout=PATIENCE_S) is False, "nothing has changed yet"

    def ended(self) -> bool:
        self.thread.join(PATIENCE_S)
        return not self.thread.is_alive()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configwatch, "SETTLE_S", 0.01)


def config_map(directory: Path, number: int, text: str) -> None:
    """Write a file as a kubelet does: into a directory that a link is then turned to."""
    version = directory / f"..version{number}"
    version.mkdir()
    (version / "config").write_text(text)
    (directory / "..new").symlink_to(version.name)
    (directory / "..new").rename(directory / "..data")


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    config_map(tmp_path, 1, "one")
    (tmp_path / "config").symlink_to("..data/config")
    return tmp_path / "config"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "config"
    path.write_text("one")
    return path


def replace(path: Path) -> None:
    new = path.with_name("new")
    new.write_text("two")
    new.rename(path)


def delete_and_write(path: Path) -> None:
    path.unlink()
    path.write_text("two")


@pytest.mark.parametrize(
    "change", [lambda path: path.write_text("two"), replace, delete_and_write],
    ids=["overwritten", "replaced", "deleted"],
)  # fmt: skip
def test_a_plain_file(
    plain: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], Any]
) -> None:
    watcher = Watcher(plain, monkeypatch)
    change(plain)
    assert watcher.ended()


def test_a_config_map_is_turned_to_a_new_version(
    mounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = Watcher(mounted, monkeypatch)
    config_map(mounted.parent, 2, "two")
    assert watcher.ended()


def test_what_says_the_same_is_no_change(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Watcher(mounted, monkeypatch)
    config_map(mounted.parent, 2, "one")
    assert watcher.looks.get(timeout=PATIENCE_S) is False
    config_map(mounted.parent, 3, "three")
    assert watcher.ended()


def test_a_file_that_is_gone_is_waited_for(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Watcher(plain, monkeypatch)
    plain.unlink()
    assert watcher.looks.get(timeout=PATIENCE_S) is False
    plain.write_text("")
    assert watcher.looks.get(timeout=PATIENCE_S) is False
    plain.write_text("two")
    assert watcher.ended()


def test_a_file_behind_links_to_other_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = tmp_path / "away"
    away.mkdir()
    (away / "config").write_text("one")
    (tmp_path / "here").symlink_to(away)
    path = tmp_path / "config"
    path.symlink_to(tmp_path / "here" / "config")
    assert configwatch.directories(path) >= {tmp_path, away}
    watcher = Watcher(path, monkeypatch)
    (away / "config").write_text("two")
    assert watcher.ended()


def test_links_in_a_circle_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert tmp_path in configwatch.directories(tmp_path / "a")


def test_without_watches_the_file_is_read_now_and_then(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError("no more watches")

    monkeypatch.setattr(configwatch, "_Inotify", refuse)
    monkeypatch.setattr(configwatch, "POLL_S", 0.01)
    watcher = Watcher(plain, monkeypatch)
    plain.write_text("two")
    assert watcher.ended()


def test_no_watch_is_left_behind(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def watches() -> Iterator[str]:
        for entry in Path("/proc/self/fd").iterdir():
            try:
                yield str(entry.readlink())
            except FileNotFoundError:
                continue  # the one that lists them

    watcher = Watcher(plain, monkeypatch)
    assert list(watches()).count("anon_inode:inotify") == 1
    plain.write_text("two")
    assert watcher.ended()
    assert "anon_inode:inotify" not in list(watches())

"""How User-Mode Linux is started, and what its end is said to mean."""

import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from netns import errors
from netns.kernels import base, bytecode, uml, uml_boot, vitals, warden
from netns.process import ProcessId, kill_all, start_time

KERNEL = uml.UmlKernel(
    executable=Path("/opt/linux"),
    version="6.12",
    origin="built here",
    boot=("an_option",),
    time_travel=True,
)
COMMAND = base.Command(argv=("true",))
LIMITS = base.Limits(memory=512 * base.MIB, time=60)


def boot_words() -> list[str]:
    return uml_boot.boot_argv(KERNEL, COMMAND, LIMITS, (7, 8))


def test_the_kernel_is_booted_over_the_hosts_files_read_only() -> None:
    words = boot_words()
    assert words[0] == "/opt/linux"
    assert {"rootfstype=hostfs", "hostfs=/", "ro", "mem=512M", "uml_dir=."} <= set(words)
    assert "rw" not in words


def test_the_line_to_the_guest_is_the_only_input() -> None:
    words = boot_words()
    assert [word for word in words if "fd:" in word] == ["con0=null,fd:1", "ssl0=fd:7,fd:8"]


def test_boot_options_of_a_kernel_come_before_those_of_its_first_process() -> None:
    words = boot_words()
    assert words.index("an_option") < words.index("--")
    assert words[-1].endswith('main()"')


def test_the_guest_knows_what_it_is_and_keeps_its_state_to_itself() -> None:
    outside = {"A": "b", "TMP": "/x", "KPROXY_STATE_DIR": "/on/the/host"}
    inside = uml_boot.guest_environment(outside, COMMAND)
    assert inside["A"] == "b"
    assert inside[base.GUEST_VARIABLE] == "uml"
    assert inside[base.STATE_VARIABLE] == "/run/kproxy"
    assert inside["TMPDIR"].startswith("/run/")
    assert "TMP" not in inside


def test_another_terminal_is_no_other_environment() -> None:
    ours = {
        "HOME": "/root",
        "TERM": "xterm",
        "COLUMNS": "80",
        "XDG_CACHE_HOME": "/c",
        "STYLE": "1",
    }
    shell = {"OLDPWD": "/a/b", "SHLVL": "3", "_": "/usr/bin/env", "SUDO_COMMAND": "kproxy chain"}
    session = {"SSH_CONNECTION": "1 2 3 4", "XDG_SESSION_ID": "17", "TMUX_PANE": "%3"}
    inside = uml_boot.guest_environment({**ours, **shell, **session}, COMMAND)
    assert inside == uml_boot.guest_environment(ours, COMMAND)
    assert ours.items() <= inside.items()


def test_the_guest_writes_no_caches_on_its_read_only_root() -> None:
    inside = uml_boot.guest_environment({"PYTEST_ADDOPTS": "-x"}, COMMAND)
    assert inside["PYTHONDONTWRITEBYTECODE"] == "1"
    assert inside["PYTEST_ADDOPTS"] == "-x -p no:cacheprovider"


def test_memory_goes_where_there_is_room(tmp_path: Path) -> None:
    assert uml.memory_directory(1024, [tmp_path]) == tmp_path
    assert uml.memory_directory(1024, [tmp_path / "not" / "there"]) == tmp_path


def test_too_little_room_is_said_with_figures(tmp_path: Path) -> None:
    with pytest.raises(errors.KernelUnusable, match=r"MiB free.*--memory"):
        uml.memory_directory(1 << 60, [tmp_path])


def test_a_place_that_may_not_execute_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(tmp_path)

    class NoExec:
        f_bavail = real.f_bavail
        f_frsize = real.f_frsize
        f_flag = real.f_flag | os.ST_NOEXEC

    monkeypatch.setattr(os, "statvfs", lambda _path: NoExec)
    with pytest.raises(errors.KernelUnusable, match="noexec"):
        uml.memory_directory(1024, [tmp_path])


@pytest.mark.parametrize(
    ("line", "reason", "remedy"),
    [
        ("UML ran out of memory on the host side! foo", "gave it no more memory", "--memory"),
        ("Kernel panic - not syncing: Fatal exception", "it panicked: Fatal exception", ""),
        ("Kernel panic - not syncing: System is deadlocked on memory", "used up", "--memory"),
        ("guest: OSError: mount: no such device", "first process failed: OSError: mount", ""),
        ("nothing of note", "without telling why", ""),
    ],
)
def test_the_console_explains_the_end(line: str, reason: str, remedy: str) -> None:
    said, helps = uml.explain(["SELinux: noise", line, "[<6002>] ? stack"])
    assert reason in said
    assert remedy in helps
    assert bool(remedy) == bool(helps)


def test_a_failure_shows_the_telling_lines_of_the_console_only() -> None:
    failure = errors.GuestFailed("", console=("SELinux: x", "Oops: y", "[<6002>] ? stack", ""))
    told = uml.describe_failure(failure, "the kernel", LIMITS)
    assert told.console == ("Oops: y",)
    assert told.lines("kproxy")[0] == "kproxy: the kernel: it ended without telling why"


def test_processes_killed_for_want_of_memory_are_named() -> None:
    console = ["x", "Out of memory: Killed process 44 (python3) total-vm:1kB"]
    [warning] = uml.memory_warnings(console, LIMITS)
    assert "512 MiB" in warning
    assert "python3" in warning


def test_directories_that_stay_empty_are_removed_again(tmp_path: Path) -> None:
    used, unused = tmp_path / "a" / "used", tmp_path / "b" / "unused"
    made = uml.make_directories([used, unused])
    (used / "result").write_text("x")
    uml.remove_if_empty(made)
    assert (used / "result").exists()
    assert not (tmp_path / "b").exists()


def test_a_run_directory_is_private_and_each_has_its_own(tmp_path: Path) -> None:
    first, second = warden.make_run_directory(tmp_path), warden.make_run_directory(tmp_path)
    assert first != second
    assert stat.S_IMODE(first.stat().st_mode) == 0o700


def test_repair_removes_what_dead_processes_left_and_spares_the_living(tmp_path: Path) -> None:
    mine = warden.make_run_directory(tmp_path)
    pid, started, _ = mine.name.split("-")
    # The same PID, but an earlier process: PIDs come round again.
    dead = mine.with_name(f"{pid}-{int(started) - 1}-0")
    dead.mkdir()
    (dead / "guest").mkdir()
    assert warden.repair(tmp_path) == [dead]
    assert mine.is_dir()
    assert not dead.exists()


def test_repair_ends_a_kernels_session_whatever_its_processes_run_now(tmp_path: Path) -> None:
    """A killed kernel's process may find itself in the midst of execve(2), on the host."""
    dead = warden.make_run_directory(tmp_path)
    gone = dead.rename(dead.with_name(f"{os.getpid()}-1-0"))
    script = "cd /; sleep 1000 & echo $!; cd -; sleep 1000 & echo $!; exec sleep 1000"
    with subprocess.Popen(
        ["sh", "-c", script], cwd=gone, start_new_session=True, stdout=subprocess.PIPE, text=True
    ) as kernel:
        assert kernel.stdout is not None
        stranger, _, member = (kernel.stdout.readline().strip() for _ in range(3))
        elsewhere, inside = (ProcessId.of(int(pid)) for pid in (stranger, member))
        assert elsewhere
        assert inside
        (gone / warden.SESSION_NOTE).write_text(f"{kernel.pid} {start_time(kernel.pid)}")
        assert warden.repair(tmp_path) == [gone]
        assert kernel.wait(60) == -signal.SIGKILL
        assert not inside.alive
        assert elsewhere.alive, "who works elsewhere is a stranger with a number used again"
        kill_all([elsewhere])


def test_a_state_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file, not a directory")
    with pytest.raises(errors.KernelUnusable, match="KPROXY_STATE_DIR"):
        warden.make_run_directory(tmp_path / "state")


def test_kernels_spread_over_the_cpus(tmp_path: Path) -> None:
    chosen = [warden.choose_cpu(warden.make_run_directory(tmp_path), {0, 1, 3}) for _ in range(4)]
    assert chosen == [3, 1, 0, 3]


def test_packages_are_compiled_before_they_are_read_only(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("x = 1\n")
    bytecode.compile_packages([tmp_path, tmp_path / "absent"])
    assert [path.suffix for path in (tmp_path / "__pycache__").iterdir()] == [".pyc"]


def test_a_kernel_whose_clock_cannot_be_seen_is_not_watched_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    executable = tmp_path / "linux"
    executable.write_bytes(b"stripped")
    kernel = uml.UmlKernel(executable=executable, version="6.0", origin="a tree", time_travel=True)
    guest = vitals.Vitals(1, executable)
    command = base.Command(argv=("true",), clock=base.Clock.VIRTUAL)
    assert uml.Uml(kernel)._stall_watch(guest, command, base.Limits(), tmp_path) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert "6.0 (a tree) has no symbol time_travel_time" in line
    assert "--time-limit only" in line

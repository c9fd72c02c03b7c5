"""Kernel switches and the door to other programs."""

import errno
import os
import signal
from pathlib import Path

import pytest

from kproxy.errors import KernelError, NotFound, Unsupported
from kproxy.kernel import sysctl
from kproxy.kernel.execer import Execer, FakeExecer, find_program
from kproxy.kernel.sysctl import FakeSysctl, Sysctl, SysctlClient

KEY = "net/ipv4/ip_forward"


@pytest.fixture(params=["files", "fake"])
def switches(request: pytest.FixtureRequest, tmp_path: Path) -> SysctlClient:
    if request.param == "fake":
        return FakeSysctl({KEY: "0"})
    (tmp_path / KEY).parent.mkdir(parents=True)
    (tmp_path / KEY).write_text("0\n")
    return Sysctl(tmp_path)


def test_values_are_read_and_written(switches: SysctlClient) -> None:
    assert switches.get(KEY) == "0"
    switches.set(KEY, 1)
    assert switches.get(KEY) == "1"


def test_what_is_right_is_not_written(switches: SysctlClient) -> None:
    assert sysctl.ensure(switches, KEY, 1)
    assert not sysctl.ensure(switches, KEY, "1")


@pytest.mark.parametrize("key", ["net/ipv4/missing", "net/ipv4/ip_forward/below"])
def test_missing_keys_are_named_and_not_made(switches: SysctlClient, key: str) -> None:
    for call in (lambda: switches.get(key), lambda: switches.set(key, 1)):
        with pytest.raises(NotFound, match=key) as caught:
            call()
        assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("key", ["/etc/hostname", "../etc/hostname", "net/../../x"])
def test_no_key_leads_out_of_the_tree(tmp_path: Path, key: str) -> None:
    with pytest.raises(NotFound, match="not a key"):
        Sysctl(tmp_path).set(key, 1)


def test_other_failures_keep_their_errno(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    with pytest.raises(KernelError, match="read sysctl net") as caught:
        Sysctl(tmp_path).get("net")
    assert caught.value.errno == errno.EISDIR


def test_the_real_tree_is_the_default() -> None:
    assert Sysctl().get("kernel/ostype") == "Linux"


def test_programs_are_found_in_the_order_of_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for directory in ("one", "two", "three"):
        (tmp_path / directory).mkdir()
    monkeypatch.setenv("PATH", ":".join(str(tmp_path / d) for d in ("one", "two", "three")))
    assert find_program("tool") is None
    (tmp_path / "one" / "tool").touch(mode=0o644)
    (tmp_path / "two" / "tool").mkdir()
    (tmp_path / "three" / "tool").touch(mode=0o755)
    assert find_program("tool") == str(tmp_path / "three" / "tool")


def test_input_output_and_exit_code() -> None:
    done = Execer().run(["sh", "-c", "cat; echo oops >&2; exit 3"], b"hello")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"hello", "oops\n")


def test_a_signal_is_told_as_negative() -> None:
    assert Execer().run(["sh", "-c", "kill -9 $$"]).returncode == -9


def test_missing_programs_and_programs_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="no-such-program"):
        Execer().run(["no-such-program", "-x"])
    (tmp_path / "data").write_text("no program")
    with pytest.raises(Unsupported, match="may not be executed"):
        Execer().run([str(tmp_path / "data")])


def test_a_file_that_is_no_program_is_an_error_like_others(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"\x7fELF")
    empty.chmod(0o755)
    with pytest.raises(KernelError, match=r"execute .*empty: Exec format error") as caught:
        Execer().run([str(empty)])
    assert caught.value.errno == errno.ENOEXEC


def test_a_program_that_hangs_is_killed() -> None:
    with pytest.raises(KernelError, match=r"sleep 60: did not end within 0.05 s"):
        Execer().run(["sleep", "60"], timeout_s=0.05)


def test_a_caller_who_gives_up_leaves_no_program_behind(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    def give_up(number: int, frame: object) -> None:
        if not pid.exists() or not pid.read_text().endswith("\n"):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            return
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, give_up)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(InterruptedError):
            Execer().run(["sh", "-c", f"echo $$ > {pid}; exec sleep 60"])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_descriptors_are_inherited_only_where_asked(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as kept, (tmp_path / "other").open("w") as other:
        names = " ".join(f"/proc/self/fd/{file.fileno()}" for file in (kept, other))
        done = Execer().run(["sh", "-c", f"readlink {names}"], inherit=(kept.fileno(),))
    assert done.stdout.decode().split() == [str(tmp_path / "lock")]


def test_the_fake_answers_for_programs_it_knows() -> None:
    fake = FakeExecer({"known": lambda argv, stdin: Execer().run(["cat"], stdin)})
    assert fake.run(["known", "-x"], b"in").stdout == b"in"
    with pytest.raises(Unsupported, match="unknown"):
        fake.run(["unknown"])
    assert fake.ran == [(["known", "-x"], b"in"), (["unknown"], b"")]

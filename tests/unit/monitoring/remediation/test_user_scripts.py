"""Scripts of users, run for real: as root they run as nobody, else as who runs the tests."""

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kproxy.errors import InvalidObject, KproxyError, UsageError
from kproxy.monitoring.remediation.scripts import manifests, running, scriptaction
from kproxy.monitoring.remediation.scripts.scriptaction import ScriptAction
from kproxy.monitoring.remediation.seams import Limits, Rehearsing, Target, Verdict
from netns.wait import wait_until

IS_ROOT = os.geteuid() == 0
USER = "nobody" if IS_ROOT else pwd.getpwuid(os.geteuid()).pw_name
TARGET = Target(alert="Broken", labels={"node": "n1", "service": "web"}, begun=12.5)
MAPPED = any(
    int(line.split()[0]) <= 65534 < int(line.split()[0]) + int(line.split()[2])
    for line in Path("/proc/self/uid_map").read_text().splitlines()
)
pytestmark = pytest.mark.skipif(IS_ROOT and not MAPPED, reason="needs a user nobody")

Write = Callable[..., ScriptAction]


@pytest.fixture
def directory() -> Iterator[Path]:
    """Give a directory that nobody can look into: pytest's own are for their owner only."""
    place = Path(tempfile.mkdtemp(prefix="kproxy-scripts-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def write(directory: Path) -> Write:
    """Give what makes an action of a shell script and its manifest."""

    def made(text: str, manifest: str = "", **limits: Any) -> ScriptAction:
        write_files(directory, text, manifest)

        def final(_: str, __: Limits) -> Limits:
            return Limits(**limits)

        return scriptaction.load(str(directory), USER, final)["mend"]

    return made


def write_files(directory: Path, text: str, manifest: str = "") -> None:
    (directory / "mend").write_text(f"#!/bin/sh\n{text}\n")
    (directory / "mend").chmod(0o755)
    (directory / "mend.yaml").write_text(f"summary: mends\nneeds: [node]\n{manifest}")


def test_the_phases_and_their_exit_codes(write: Write) -> None:
    action = write('echo "about $1"; [ "$1" = run ] && exit 3; [ "$1" = check ] && exit 1; exit 0')
    assert (action.name, action.summary, action.needs) == ("mend", "mends", {"node"})
    assert action.check(TARGET) == Verdict(False, "about check")
    assert (action.run(TARGET).done, action.run(TARGET).detail) == (False, "about run")
    assert action.verify(TARGET) == Verdict(True, "about verify")
    assert not isinstance(action, Rehearsing)


def test_a_check_that_cannot_tell(write: Write) -> None:
    with pytest.raises(KproxyError, match="check ended with 2: no idea"):
        write("echo no idea; exit 2").check(TARGET)


def test_a_script_that_can_rehearse(write: Write) -> None:
    action = write('echo "would $1"', "dryRun: true")
    assert isinstance(action, Rehearsing)
    assert action.rehearse(TARGET).detail == "would rehearse"


def test_arguments_and_variables_come_from_labels_and_nothing_else_comes(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "of the receiver")
    manifest = 'args: ["--on={node}", "a b", "$(id)"]\nenv: {ALERT_NODE: node}\n'
    action = write('echo "$#: $*; $ALERT_NODE; $KPROXY_BEGUN; $SECRET"', manifest)
    assert action.run(TARGET).detail == "4: run --on=n1 a b $(id); n1; 12.500000;"


def test_nothing_of_the_receiver_is_inherited(directory: Path) -> None:
    write_files(directory, "")
    (directory / "mend").write_text(
        "#!/usr/bin/env -S python3 -IS\n"
        "import json, os\n"
        "print(json.dumps([os.getcwd(), os.listdir('/proc/self/fd'), os.getgroups(),"
        " os.getresuid(), os.getsid(0) == os.getpid(), os.read(0, 1).decode()]))\n"
    )
    inherited, groups = os.dup(1), os.getgroups()
    os.set_inheritable(inherited, True)
    try:
        if IS_ROOT:
            os.setgroups([1, 7])
        argv = [str(directory / "mend"), "run"]
        ended = running.run(argv, {}, running.user_named(USER), 60.0, {"RLIMIT_CORE": 0})
    finally:
        os.close(inherited)
        if IS_ROOT:
            os.setgroups(groups)
    place, descriptors, groups, users, leads, read = json.loads(ended.stdout)
    # 0, 1, 2, and the one with which the directory is read.
    assert (place, len(descriptors), leads, read) == ("/", 4, True, "")
    if IS_ROOT:
        assert (groups, users) == ([], [pwd.getpwnam("nobody").pw_uid] * 3)


def test_what_it_may_not_become_and_use(write: Write) -> None:
    status = write("grep -E '^(NoNewPrivs|CapEff)' /proc/self/status | tr -d '\\n'").run(TARGET)
    assert "NoNewPrivs:\t1" in status.detail.replace("?", "\t")
    assert "CapEff:?0000000000000000" in status.detail
    limits = write("ulimit -c; ulimit -n; ulimit -v").run(TARGET)
    assert limits.detail == str(256 * 1024)


@pytest.mark.parametrize("value", ["", "-rf", "a b", "$(reboot)", "a;b", "a\nb", "x" * 300])
def test_a_value_that_could_mean_something_else_is_given_to_no_script(
    write: Write, value: str
) -> None:
    action = write("echo ran", "args: ['{node}']")
    target = Target(alert="Broken", labels={"node": value})
    assert not action.check(target).good
    with pytest.raises(KproxyError, match="the label node"):
        action.run(target)


def test_what_it_says_is_bounded(write: Write) -> None:
    assert len(write("head -c 10000000 /dev/zero | tr '\\0' x").run(TARGET).detail) == 300


def test_of_much_that_it_says_the_last_line_is_kept(write: Write) -> None:
    assert write("seq 10000; echo the end").run(TARGET).detail == "the end"


def runs(pattern: str) -> bool:
    """Return whether a process has this in its command line."""
    found = subprocess.run(["pgrep", "-f", pattern], capture_output=True, check=False)
    assert found.returncode in (0, 1), found.stderr
    return found.returncode == 0


def await_gone(mark: str) -> None:
    wait_until(lambda: not runs(mark), 60, f"no process {mark} to be left", interval=0.02)


def test_a_script_that_takes_too_long_is_killed_with_all_that_it_started(write: Write) -> None:
    mark = f"86400.{os.getpid()}1"
    action = write(f"setsid sleep {mark} & trap '' TERM; sleep {mark}", run_within=0.5)
    with pytest.raises(KproxyError, match=r"was killed after 0\.5 s"):
        action.run(TARGET)
    await_gone(mark)


def test_what_a_script_leaves_behind_is_killed(write: Write) -> None:
    mark = f"86400.{os.getpid()}2"
    assert write(f"setsid sleep {mark} >/dev/null 2>&1 & echo left one").run(TARGET).done
    await_gone(mark)


def test_nothing_is_left_when_the_receiver_is_killed(write: Write, directory: Path) -> None:
    mark = f"86400.{os.getpid()}3"
    write(f"setsid sleep {mark} & echo begun >&2; sleep {mark}")
    program = (
        "from kproxy.monitoring.remediation.scripts import running\n"
        f"running.run([{str(directory / 'mend')!r}, 'run'], {{}},"
        f" running.user_named({USER!r}), 600.0, {{}})"
    )
    receiver = subprocess.Popen([sys.executable, "-c", program])
    wait_until(lambda: runs(f"^sleep {mark}"), 60, "the script to sleep", interval=0.02)
    receiver.send_signal(signal.SIGKILL)
    receiver.wait()
    await_gone(mark)


def test_a_script_that_cannot_be_started(write: Write, directory: Path) -> None:
    action = write("")
    (directory / "mend").write_text("#!/no/such/interpreter\n")
    outcome = action.run(TARGET)
    assert not outcome.done
    assert "cannot run" in outcome.detail
    assert "No such file" in outcome.detail


def refused(directory: Path) -> str:
    with pytest.raises((UsageError, InvalidObject)) as caught:
        manifests.find(directory)
    return str(caught.value)


def test_what_others_could_change_is_refused(directory: Path) -> None:
    write_files(directory, "")
    assert len(manifests.find(directory)) == 1
    for path in (directory / "mend", directory / "mend.yaml", directory):
        mode = path.stat().st_mode
        for bit in (0o020, 0o002):
            path.chmod(mode | bit)
            assert f"{path} can be written by its group or by anybody" in refused(directory)
            path.chmod(mode)
        if IS_ROOT:
            os.chown(path, 1, -1)
            assert f"{path} belongs to user 1" in refused(directory)
            os.chown(path, 0, -1)


def test_a_script_that_was_made_writable_is_not_run_any_more(
    write: Write, directory: Path
) -> None:
    action = write("echo ran")
    (directory / "mend").chmod(0o777)
    with pytest.raises(UsageError, match="can be written"):
        action.run(TARGET)


def test_what_is_no_script_is_refused(directory: Path) -> None:
    write_files(directory, "")
    (directory / "mend").chmod(0o644)
    assert "is not executable" in refused(directory)
    (directory / "mend").unlink()
    assert "No such file" in refused(directory)
    (directory / "mend").symlink_to("/bin/true")
    assert "is no plain file" in refused(directory)
    assert "there is no directory" in refused(directory / "none")


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Be somebody whom the modes of files concern."""
    before = os.geteuid()
    if IS_ROOT:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_what_cannot_be_read_is_told(directory: Path) -> None:
    write_files(directory, "")
    (directory / "mend.yaml").chmod(0o200)
    with unprivileged():
        assert f"cannot read manifest {directory / 'mend.yaml'}" in refused(directory)
    directory.chmod(0o311)
    with unprivileged():
        assert f"cannot read {directory}: Permission denied" in refused(directory)
    directory.chmod(0o755)


def test_who_can_change_a_link_to_the_directory_changes_nothing_of_what_is_run(
    write: Write, directory: Path, tmp_path: Path
) -> None:
    write("echo ours")
    link = tmp_path / "link"
    link.symlink_to(directory)
    action = scriptaction.load(str(link), USER, lambda _, own: own)["mend"]
    link.unlink()
    assert action.run(TARGET).detail == "ours"


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ("needs: [node", "broken YAML"),
        ("summary: x", "needs: is missing"),
        ("summary: x\nneeds: [node]\nshell: true", "unknown field"),
        ("summary: x\nneeds: ['a b']", "needs[0]: 'a b' is no name"),
        ("summary: x\nneeds: []\nargs: ['{node}']", "args[0]: uses the label 'node'"),
        ("summary: x\nneeds: []\nenv: {NODE: node}", "env.NODE: uses the label 'node'"),
        ("summary: x\nneeds: [node]\nenv: {LD_PRELOAD: node}", "env.LD_PRELOAD: is no name"),
        ("summary: x\nneeds: [node]\nenv: {PATH: node}", "env.PATH: is no name"),
        ("summary: x\nneeds: []\nlimits: {runWithin: 0s}", "limits.runWithin: is not above 0"),
        ("summary: x\nneeds: []\nmemoryBytes: 0", "memoryBytes: is not above 0"),
    ],
)
def test_a_wrong_manifest_is_told(directory: Path, manifest: str, words: str) -> None:
    write_files(directory, "")
    (directory / "mend.yaml").write_text(manifest)
    told = refused(directory)
    assert words in told
    assert "mend.yaml" in told


def test_root_and_strangers_are_refused() -> None:
    with pytest.raises(UsageError, match="do not run as root"):
        running.user_named("root")
    with pytest.raises(UsageError, match="there is no user"):
        running.user_named("no-such-user")


def test_without_a_directory_there_are_none() -> None:
    assert scriptaction.load("", "nobody", lambda _, own: own) == {}

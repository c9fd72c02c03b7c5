"""The ways to a node: by a program that gets there, and by another where the first does not."""

import errno
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from repair_cluster import Cluster, FakeNodes

from kproxy.client import podexec
from kproxy.client.kept import HEAD_MOST, TAIL_MOST
from kproxy.errors import ApiError, UsageError
from kproxy.logs import Log
from kproxy.monitoring.nodecare import process
from kproxy.monitoring.remediation.actions import catalog, commandaccess
from kproxy.monitoring.remediation.actions.cluster import Proxies
from kproxy.monitoring.remediation.actions.commandaccess import CommandAccess
from kproxy.monitoring.remediation.actions.execaccess import Either, ExecAccess
from kproxy.monitoring.remediation.seams import Finished, NodeUnreachable
from netns.wait import wait_until

WITHIN = 60.0
SOON = 0.2
HERE = CommandAccess(["env", "NODE={node}"])


def sh(text: str) -> list[str]:
    return ["sh", "-c", text]


def test_output_exit_code_and_the_nodes_name() -> None:
    ended = HERE.run("n1", sh("echo $NODE; echo err >&2; exit 3"), WITHIN)
    assert ended == Finished(code=3, stdout="n1\n", stderr="err\n")


def test_words_are_quoted_for_a_shell_on_the_other_side_only() -> None:
    words = ["printf", "%s|", "a b", "$(id)", "'"]
    shell = CommandAccess(["sh", "-c", 'eval "$*"', "{node}"], quote=True)
    for access in (HERE, shell):
        assert access.run("n1", words, WITHIN).stdout == "a b|$(id)|'|"


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file for the number of a process; a command's time begins when it is there."""
    path = tmp_path / "pid"

    class Begun(subprocess.Popen[bytes]):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            wait_until(lambda: path.exists() and path.read_text(), WITHIN, "a number to be told")

    monkeypatch.setattr(subprocess, "Popen", Begun)
    return path


def test_a_command_that_takes_too_long_ends_with_its_children(told: Path) -> None:
    ended = HERE.run("n1", sh(f"sleep 1000 & echo $! > {told}; wait"), SOON)
    assert (ended.code, ended.timed_out) == (-1, True)
    # Killed with its parent, so what is left of it is at most a zombie, a moment later.
    child = int(told.read_text())
    dead = (None, process.State.ZOMBIE)
    wait_until(lambda: process.state_of(child) in dead, WITHIN, "the child to be dead")


def test_of_a_long_output_head_and_tail_are_kept_and_what_is_missing_is_said() -> None:
    megabytes = 3 * HEAD_MOST // 1_000_000
    text = f"echo begin; head -c {megabytes}000000 /dev/zero | tr '\\0' x; echo; echo end"
    ended = HERE.run("n1", sh(f"{{ {text}; }} | tee /dev/stderr"), WITHIN)
    told = len("begin\n") + megabytes * 1_000_000 + len("\nend\n")
    for said in (ended.stdout, ended.stderr):
        head, missing, tail = said.partition(
            f"\n[{told - HEAD_MOST - TAIL_MOST} bytes are left out here]\n"
        )
        assert missing
        assert (len(head), head[:7]) == (HEAD_MOST, "begin\nx")
        assert (len(tail), tail[-6:]) == (TAIL_MOST, "x\nend\n")


@pytest.mark.parametrize("within", [WITHIN, SOON])
def test_what_a_command_leaves_behind_is_not_waited_for(told: Path, within: float) -> None:
    lives_on = f"echo said; setsid sh -c 'echo $$ > {told}; exec sleep 600' &"
    lives_on += f" while [ ! -s {told} ]; do sleep 0.01; done"
    then = "exit 3" if within == WITHIN else "sleep 1000"
    try:
        ended = HERE.run("n1", sh(f"{lives_on}; {then}"), within)
        left = int(told.read_text())
        # It has the pipes still: who waits for their end would be here only when it has ended.
        assert process.state_of(left) not in (None, process.State.ZOMBIE)
        assert ended.stdout == "said\n"
        assert (ended.code, ended.timed_out) == ((3, False) if within == WITHIN else (-1, True))
    finally:
        os.kill(int(told.read_text()), signal.SIGKILL)


def test_a_command_that_cannot_be_listened_to_does_not_live_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[int] = []

    def exhausted(pid: int) -> int:
        begun.append(pid)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", exhausted)
    with pytest.raises(OSError, match="Too many"):
        HERE.run("n1", ["sleep", "60"], WITHIN)
    assert process.state_of(begun[0]) is None


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["no-such-program", "{node}"], "no-such-program: No such file"),
        (["sh", "-c", "echo no route to {node} >&2; exit 255"], "no route to n1"),
    ],
)
def test_a_node_that_is_not_reached_is_no_result(words: list[str], reason: str) -> None:
    with pytest.raises(NodeUnreachable, match=reason):
        CommandAccess(words).run("n1", ["true"], WITHIN)


@pytest.mark.parametrize("command", ["", "ssh", "ssh 'root@{node}"])
def test_a_command_that_leads_to_no_node_is_refused_at_once(command: str) -> None:
    with pytest.raises(UsageError, match=r"nodeAccess\.options\.command"):
        commandaccess.make(None, Log("test"), {"command": command})


def test_exec_needs_an_api_server() -> None:
    with pytest.raises(UsageError, match="exec needs an API server"):
        catalog.NODE_ACCESS["exec"](None, Log("test"), {})


@pytest.mark.parametrize("labels", ["", "k8s-app", "=x"])
def test_labels_that_are_none_are_refused_at_once(labels: str) -> None:
    with pytest.raises(UsageError, match="proxyLabels"):
        Proxies.of({"proxyLabels": labels})


class Exec:
    """Stands in for pods/exec."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.where: list[tuple[str, str, str]] = []
        self.error: Exception | None = None
        monkeypatch.setattr(podexec, "run", self._run)

    def _run(
        self, rest: object, where: tuple[str, str, str], command: Sequence[str], timeout: float
    ) -> podexec.Ran:
        self.where.append(where)
        if self.error is not None:
            raise self.error
        return podexec.Ran(code=0, stdout="out", stderr="")


@pytest.fixture
def exec_(monkeypatch: pytest.MonkeyPatch) -> Exec:
    return Exec(monkeypatch)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def by_exec(cluster: Cluster) -> ExecAccess:
    rest = cluster.tools.rest
    assert rest is not None
    return ExecAccess(rest, Proxies())


def test_of_two_proxies_the_newer_one_is_entered(cluster: Cluster, exec_: Exec) -> None:
    cluster.add_pod("kube-proxy-new", "n1", creationTimestamp="2999-01-01T00:00:00Z")
    assert by_exec(cluster).run("n1", ["true"], WITHIN).stdout == "out"
    assert exec_.where == [("kube-system", "kube-proxy-new", "kube-proxy")]


def test_without_a_container_that_runs_there_is_no_way(cluster: Cluster, exec_: Exec) -> None:
    pod = cluster.add_pod("kube-proxy-n1", "n1")
    pod["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "CrashLoopBackOff"}}
    with pytest.raises(NodeUnreachable, match="no container of a proxy runs there"):
        by_exec(cluster).run("n1", ["true"], WITHIN)
    assert exec_.where == []


def test_what_the_api_refuses_is_no_result_and_what_takes_too_long_is(
    cluster: Cluster, exec_: Exec
) -> None:
    exec_.error = ApiError(502, "ServiceUnavailable", "the kubelet cannot be reached")
    with pytest.raises(NodeUnreachable, match="node n1: the kubelet cannot be reached"):
        by_exec(cluster).run("n1", ["true"], WITHIN)
    exec_.error = podexec.ExecTimeout("late")
    assert by_exec(cluster).run("n1", ["true"], WITHIN) == Finished(code=-1, timed_out=True)


def test_what_may_have_run_is_not_run_again_by_the_other_way(
    cluster: Cluster, exec_: Exec
) -> None:
    exec_.error = podexec.ExecLost("the connection ended")
    second = FakeNodes()
    found = Either(by_exec(cluster), second).run("n1", ["kill"], WITHIN)
    assert found == Finished(code=-1, stderr="the connection ended")


def test_the_other_way_is_taken_where_the_first_does_not_lead_and_only_there() -> None:
    first, second = FakeNodes(), FakeNodes()
    either = Either(first, second)
    with pytest.raises(NodeUnreachable, match=r"node n1.*; node n1"):
        either.run("n1", ["x"], WITHIN)
    second.answers["n1"] = lambda command: Finished(code=2)
    assert either.run("n1", ["x"], WITHIN).code == 2
    first.answers["n1"] = lambda command: Finished(code=1)
    assert either.run("n1", ["x"], WITHIN).code == 1
    assert len(second.ran) == 1

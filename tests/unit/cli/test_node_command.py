"""``kproxy node``: whose flags it takes, what it prints, how it ends."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kproxy.cli import node
from kproxy.cli.inspect_source import Asked
from kproxy.errors import KproxyError, UsageError
from kproxy.inspect import kernel
from kproxy.monitoring.nodecare import flows, kill, process
from kproxy.monitoring.nodecare import look as looking
from kproxy.monitoring.nodecare.seen import Care, Look, Trouble

CONFIG = """
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: n7
"""


def asked(**fields: Any) -> Asked:
    nothing: dict[str, Any] = {
        "kubeconfig": "",
        "master": "",
        "files": (),
        "node": "",
        "mode": "",
        "config": "",
        "flags": (),
    }
    return Asked(**{**nothing, **fields})


def running(*command: str) -> Callable[[str], process.Process]:
    one = process.Process(
        pid=7,
        start_time=1,
        age_s=1.0,
        kind="kproxy",
        state=process.State.STOPPED,
        command=command,
        holds_lock=True,
        catches=frozenset(),
    )
    return lambda lock: one


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (("python", "-m", "kproxy", "proxy", "--config=/c", "-v=2"), ("--config=/c", "-v=2")),
        (("/bin/kube-proxy", "--config", "/c"), ("--config", "/c")),
        (("kproxy", "proxy", "--cleanup", "--config=/c"), ("--config=/c",)),
    ],
)
def test_the_flags_are_those_of_the_proxy_that_runs(
    monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], flags: tuple[str, ...]
) -> None:
    monkeypatch.setattr(process, "find", running(*command))
    assert node._as_the_proxy(asked()).flags == flags


def test_who_gives_flags_means_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "find", running("kproxy", "proxy", "--config=/c"))
    for given in (asked(config="/d"), asked(flags=("--v=1",)), asked(files=(Path("/x"),))):
        assert node._as_the_proxy(given) == given


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    (tmp_path / "config").write_text(CONFIG)
    monkeypatch.setattr(kernel, "is_root", lambda: True)
    monkeypatch.setattr(process, "find", lambda lock: None)

    def runs(*words: str) -> Any:
        config = () if words[0] == "restart-proxy" else ("--config", str(tmp_path / "config"))
        return CliRunner().invoke(node.node, [*words, *config], standalone_mode=False)

    return runs


def test_without_root_nothing_is_looked_at(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "is_root", lambda: False)
    for word in ("look", "resync", "heal-weights", "clean-conntrack", "restart-proxy"):
        assert isinstance(run(word).exception, UsageError), word


@pytest.mark.parametrize(
    ("done", "code", "lines"),
    [
        (Care(care="x", node="n7"), 0, ["x: nothing to do on n7"]),
        (
            Care(care="x", node="n7", found=("a",), done=("a",)),
            0,
            ["wrong: a", "done: a"],
        ),
        (
            Care(care="x", node="n7", dry_run=True, found=("a",), done=("a",)),
            1,
            ["wrong: a", "would be done: a"],
        ),
        (
            Care(care="x", node="n7", found=("a",), left=("a",), refused="restart it"),
            1,
            ["wrong: a", "still wrong: a", "refused: restart it"],
        ),
    ],
)
def test_a_care_says_what_was_wrong_and_what_is_left(
    run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    done: Care,
    code: int,
    lines: list[str],
) -> None:
    monkeypatch.setattr(flows, "clean", lambda *args, **options: done)
    result = run("clean-conntrack")
    assert (result.return_value, result.output.splitlines()) == (code, lines)
    told = json.loads(run("clean-conntrack", "--json").output)
    assert (told["good"], told["care"]) == (code == 0, "x")


def test_what_cannot_be_found_out_has_an_exit_code_of_its_own(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **options: Any) -> Care:
        raise KproxyError("API server: refused")

    monkeypatch.setattr(flows, "clean", fails)
    error = run("clean-conntrack").exception
    assert isinstance(error, UsageError)  # exit code 2
    assert "API server: refused" in str(error)


def test_a_look_needs_no_api_server(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []

    def look(doors: looking.Doors, name: str, mode: str, *, resync: int) -> Look:
        seen.append((name, mode))
        return Look(
            node=name,
            mode=mode,
            proxy={"found": True, "pid": 7, "state": "stopped"},
            answers={"livez": "200"},
            sync={"last_s": 1.5, "pending": None},
            drift={},
            watch_stale=None,
            weights={},
            conntrack={"entries": 3},
            troubles=(Trouble(what="proxy-stopped", evidence="it is", cure="restart-proxy"),),
            unknown={"wanted": "refused"},
        )

    monkeypatch.setattr(looking, "look", look)
    result = run("look")
    assert seen == [("n7", "nftables")]
    assert result.return_value == 1
    assert result.output.splitlines() == [
        "node n7, mode nftables, proxy: process 7, stopped",
        "/livez: 200",
        "sync: last_s 1.5",
        "drift: not known",
        "conntrack: entries 3",
        "not known: wanted: refused",
        "wrong: proxy-stopped: it is (cure: restart-proxy)",
    ]


def test_the_proxy_is_killed_by_name_of_its_lock(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    locks: list[str] = []

    def killed(lock: str, name: str, *, dry_run: bool) -> Care:
        locks.append(lock)
        return Care(care="restart-proxy", node=name, dry_run=dry_run)

    monkeypatch.setattr(kill, "kill", killed)
    assert run("restart-proxy", "--node", "n7").output == "restart-proxy: nothing to do on n7\n"
    assert locks == ["kproxy/writes"]

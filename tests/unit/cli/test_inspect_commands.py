"""``kproxy state`` and ``diff`` on files of objects and a pretended kernel, and their mistakes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from inspected_files import (
    FOREIGN,
    MANIFEST,
    MISSING,
    PretendedBackend,
    answer,
    backend,
    file,
    run,
)

from kproxy.errors import KernelError

__all__ = ["backend", "file"]


def test_state(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    words = ("state", "--objects", file, "--node", "node1", "--mode", "ipvs")
    code, found = answer(monkeypatch, capsys, *words)
    assert (code, found["node"], found["zone"], found["mode"]) == (0, "node1", "zone-a", "ipvs")
    (web,) = found["families"][0]["services"]
    assert [one["internal"] for one in web["endpoints"]] == [True, True, False]
    assert web["endpoints"][2]["why_not_internal"] == "not ready"
    assert web["affinity_seconds"] == 10800
    assert found["ignored"] == {"demo/names": "headless: clients ask DNS for its endpoints"}
    (problem,) = found["problems"]
    assert "Service demo/broken" in problem["object"]
    assert problem["field"] == "spec.ports[0].port"
    assert "kernel" not in found


def test_state_as_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    assert run(monkeypatch, "state", "--objects", file, "--node", "node1", "--mode", "ipvs") == 0
    said = capsys.readouterr()
    for words in (
        "IPv4: 1 service port on node1, zone zone-a, mode ipvs",
        "10.128.0.5:8080 here",
        "10.128.1.7:8080 not used: not ready",
        "ClientIP 10800 s",
        "not served: demo/names: headless",
        "problem: Service demo/broken",
    ):
        assert words in said.out
    assert said.err == ""


def test_addresses_in_brackets_are_in_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "six.yaml"
    path.write_text(MANIFEST.replace("10.96.0.10", "fd00:96::10"))
    assert run(monkeypatch, "state", "--objects", path, "--node", "node1", "--mode", "ipvs") == 0
    assert "[fd00:96::10]:80/TCP" in capsys.readouterr().out


def test_services_of_other_proxies_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "objects.yaml"
    label = "labels: {service.kubernetes.io/service-proxy-name: mine}"
    path.write_text(MANIFEST.replace("{name: names, ", f"{{name: names, {label}, "))
    words = ("state", "--objects", path, "--node", "node1", "--mode", "ipvs")
    assert answer(monkeypatch, capsys, *words)[1]["ignored"] == {
        "demo/names": "left to another proxy: mine"
    }
    config = tmp_path / "config.yaml"
    config.write_text(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
        "serviceProxyName: mine\n"
    )
    ignored = answer(monkeypatch, capsys, *words, "--config", config)[1]["ignored"]
    assert ignored["demo/names"].startswith("headless")
    assert ignored["demo/web"] == "left to another proxy: the one without a name"


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_an_object_that_was_left_out_is_told(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: Path,
    form: tuple[str, ...],
) -> None:
    words = ("--objects", file, "--node", "node1", "--mode", "ipvs", *form)
    for command in (("explain", "10.96.0.11:80"), ("diff",)):
        run(monkeypatch, *command, *words)
        assert "problem: Service demo/broken" in capsys.readouterr().err


def test_of_many_problems_some_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "objects.yaml"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [1] * 9}))
    run(monkeypatch, "explain", "10.96.0.11:80", "--objects", path, "--mode", "ipvs")
    said = capsys.readouterr().err
    assert said.count("problem: ") == 5
    assert "… and 4 more problems" in said


def test_diff_tells_by_its_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: Path,
    backend: type[PretendedBackend],
) -> None:
    words = ("diff", "--objects", file, "--node", "node1", "--mode", "ipvs")
    assert run(monkeypatch, *words) == 0
    assert "the kernel holds what is wanted (mode ipvs; IPv4; " in capsys.readouterr().out
    backend.found = (MISSING, FOREIGN)
    code, found = answer(monkeypatch, capsys, *words)
    assert code == 1
    assert found["families"][0]["differences"] == [
        {
            "deviation": "missing",
            "kind": "virtual server",
            "name": "tcp 10.96.0.10:80",
            "want": "rr",
            "have": "",
            "service": "demo/web:http",
        },
        {
            "deviation": "unexpected",
            "kind": "virtual server",
            "name": "tcp 10.96.0.99:80",
            "want": "",
            "have": "wlc",
            "service": None,
        },
    ]
    assert run(monkeypatch, *words) == 1
    assert "2 differences: 1 missing, 1 unexpected" in capsys.readouterr().out
    backend.failure = KernelError("dump", 1, "Operation not permitted")
    assert run(monkeypatch, *words) == 2
    assert capsys.readouterr().err == "kproxy: dump: Operation not permitted\n"
    assert backend.closed > 0


def test_the_mode_is_seen_in_the_kernel(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: Path,
    backend: type[PretendedBackend],
) -> None:
    words = ("diff", "--objects", file, "--node", "node1")
    assert run(monkeypatch, *words) == 2
    assert "give --mode" in capsys.readouterr().err
    backend.in_use = frozenset({"ipvs", "iptables"})  # their chains have the same names
    assert answer(monkeypatch, capsys, *words)[1]["mode"] == "ipvs"
    monkeypatch.setattr("kproxy.kernel.links.client.Links.exists", lambda self, name: False)
    assert answer(monkeypatch, capsys, *words)[1]["mode"] == "iptables"
    backend.in_use = frozenset({"iptables", "nftables"})
    assert run(monkeypatch, *words) == 2
    assert "several modes: iptables, nftables" in capsys.readouterr().err
    assert answer(monkeypatch, capsys, *words, "--", "--proxy-mode=nftables")[1]["mode"] == (
        "nftables"
    )


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (("state", "--objects", "/nowhere"), 2, "cannot read /nowhere"),
        (("state", "--objects", "/nowhere", "--master", "http://x"), 2, "--objects excludes"),
        (("state", "--master", "http://127.0.0.1:1"), 1, "API server http://127.0.0.1:1: "),
        (("diff", "--master", "http://127.0.0.1:1", "--mode", "ipvs"), 2, "http://127.0.0.1:1"),
        (("explain", "10.0.0.1:1", "--master", "http://127.0.0.1:1"), 2, "http://127.0.0.1:1"),
        (("explain", "web", "--mode", "ipvs"), 2, "'web'"),
        (("explain", "10.0.0.1:1", "--from", "web"), 2, "--from"),
        (("explain", "10.0.0.1:1", "--from", "fd00::1"), 2, "different families"),
        (("state", "--mode", "userspace"), 2, "userspace"),
        (("state", "--", "--no-such-flag"), 2, "--no-such-flag"),
        (("state", "--", "--master=http://127.0.0.1:1"), 1, "API server http://127.0.0.1:1: "),
        (("diff", "--", "--cleanup"), 2, "--cleanup: this command only reads"),
        (("state", "--", "--init-only"), 2, "--init-only: this command only reads"),
    ],
)
def test_mistakes_are_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    code: int,
    complaint: str,
) -> None:
    assert run(monkeypatch, *words) == code
    (line,) = [one for one in capsys.readouterr().err.splitlines() if "assumed" not in one]
    assert complaint in line


def test_without_root_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for words in (("diff",), ("state", "--kernel")):
        assert run(monkeypatch, *words, "--objects", file) == 2
        assert "needs root" in capsys.readouterr().err
    words = ("explain", "10.96.0.10:80", "--objects", str(file), "--node", "node1")
    code, found = answer(monkeypatch, capsys, *words, "--mode", "ipvs")
    assert code == 0
    assert found["services"][0]["kernel"] == {
        "agrees": None, "unasked": "that needs root", "differences": [],
    }  # fmt: skip
    # Nor is it said to hold nothing: nobody has looked.
    assert run(monkeypatch, *words) == 0
    said = capsys.readouterr()
    assert "mode iptables is assumed: none is given, only root sees the kernel's" in said.err
    assert "Kernel: not asked, that needs root." in said.out


def test_of_another_machine_the_kernel_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    monkeypatch.setattr(
        "kproxy.kernel.links.own.own_addresses", lambda without: {4: ("192.0.2.99",)}
    )
    words = ("explain", "10.96.0.10:80", "--objects", str(file), "--node", "node1")
    _, found = answer(monkeypatch, capsys, *words, "--mode", "ipvs")
    assert found["services"][0]["kernel"]["unasked"] == "this machine is not node1"


def test_nothing_slow_is_imported(file: Path) -> None:
    """Nothing that lays out networks or crafts packets, and tables only where one is drawn."""
    program = (
        "import sys\n"
        "from kproxy.cli.main import cli\n"
        f"words = ['10.96.0.10:80', '--objects', {str(file)!r}, '--mode', 'ipvs', '--json']\n"
        "cli(['explain', *words, '--node', 'node1'], standalone_mode=False)\n"
        "slow = {'scapy', 'pyroute2', 'rich', 'psutil', 'asyncio', 'ssl'}\n"
        "print(sorted(slow & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "[]"

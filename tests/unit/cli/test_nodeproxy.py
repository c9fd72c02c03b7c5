"""The node proxy's command line: one clear line for each mistake, and the right exit code."""

import io
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import click.testing
import pytest

from kproxy.cli import nodeproxy
from kproxy.cli.proxy import proxy
from kproxy.client import kubeconfig
from kproxy.logs import Log


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert nodeproxy.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_mistakes_name_flag_and_remedy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert "--proxy-mode" in complaint(capsys, "--proxy-mod", "ipvs")
    assert "iptables, ipvs" in complaint(capsys, "--proxy-mode=userspace", "--master=http://x")
    assert "cannot read /nowhere" in complaint(capsys, "--config", "/nowhere")
    assert "cannot read kubeconfig /nowhere" in complaint(capsys, "--kubeconfig=/nowhere")
    assert "--kubeconfig" in complaint(capsys)
    assert "out of range" in complaint(capsys, "--master=http://127.0.0.1:99999")
    assert "no name of a host" in complaint(capsys, "--master=http://a..b:80")


def test_a_wrong_configuration_file_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "ipvs": {"syncPeriod": "soon"},
    }))  # fmt: skip
    line = complaint(capsys, "--config", str(path))
    assert "ipvs.syncPeriod" in line
    assert str(path) in line


@pytest.mark.parametrize("version", ["v1alpha1", "v1alpha2"])
def test_the_effective_configuration_is_written_and_read_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, version: str
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write = ("--write-config-version", version, "--write-config-to")
    given = ("--proxy-mode=ipvs", "--ipvs-scheduler=lc", "--conntrack-clean-last")
    assert nodeproxy.main([*given, "--feature-gates=X=true", *write, str(first)]) == 0
    assert capsys.readouterr().err.startswith("kproxy proxy: --feature-gates has no effect")
    assert f"apiVersion: kubeproxy.config.k8s.io/{version}\n" in first.read_text()
    assert "scheduler: lc\n" in first.read_text()
    assert nodeproxy.main(["--config", str(first), *write, str(second)]) == 0
    assert second.read_text() == first.read_text()


def test_a_configuration_that_cannot_be_written_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    line = complaint(capsys, "--write-config-to", str(tmp_path))
    assert line == f"kproxy proxy: --write-config-to: cannot write {tmp_path}: Is a directory"


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert nodeproxy.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("kproxy ")


def test_a_changed_configuration_file_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path, output, ended = tmp_path / "config", io.StringIO(), threading.Event()
    path.write_text("one")
    monkeypatch.setattr(nodeproxy, "UNWATCHED_S", 0)
    before = signal.signal(signal.SIGTERM, lambda *_: ended.set())
    try:
        log = Log("proxy", stream=output)
        changed = nodeproxy._end_on_change(str(path), b"one", log)
        path.write_text("two")
        assert changed.wait(60)
        assert ended.wait(60)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert json.loads(output.getvalue())["msg"] == "configuration changed"


def test_without_a_file_nothing_is_watched() -> None:
    threads = threading.active_count()
    assert not nodeproxy._end_on_change("", b"", Log("proxy")).is_set()
    assert threading.active_count() <= threads


def test_in_a_pod_the_service_account_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    access = nodeproxy.api_access("", "")
    assert access.server == "https://[fd00::1]:443"
    assert access.token_file == kubeconfig.SERVICE_ACCOUNT / "token"
    monkeypatch.setenv("KPROXY_SERVICEACCOUNT_DIR", "/elsewhere")
    assert nodeproxy.api_access("", "").ca_file == Path("/elsewhere/ca.crt")
    assert nodeproxy.api_access("", "").token_file == Path("/elsewhere/token")
    assert nodeproxy.api_access("", "http://x:1").server == "http://x:1"


def test_help_is_the_same_by_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    assert nodeproxy.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "--proxy-mode" in text
    result = click.testing.CliRunner().invoke(proxy, ["--help"], standalone_mode=False)
    assert (result.return_value, result.output) == (0, text)


def test_the_module_starts_the_proxy_without_click() -> None:
    program = (
        "import sys\n"
        "sys.argv = ['kproxy', 'proxy', '--no-such-flag']\n"
        "from kproxy.__main__ import main\n"
        "assert main() == 2\n"
        "assert 'click' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "no-such-flag" in done.stderr


@pytest.mark.parametrize(
    ("flag", "code"), [("--cleanup", 128), ("--cleanup=true", 128), ("--proxy-mode=ipvs", 0)]
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_cleanup_that_is_interrupted_has_failed_and_a_start_has_not(
    flag: str, code: int, number: int
) -> None:
    program = (
        "import os, sys\n"
        f"sys.argv = ['kproxy', 'proxy', {flag!r}]\n"
        "from kproxy import __main__\n"
        "from kproxy.cli import nodeproxy\n"
        f"nodeproxy.main = lambda arguments: os.kill(os.getpid(), {int(number)})\n"
        "__main__.main()\n"
        "raise AssertionError('it went on')\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == (code + number if code else 0), done.stderr
    assert ("not everything was cleaned up" in done.stderr) == bool(code)


@pytest.mark.parametrize("arguments", [["--cleanup"], ["--master=http://127.0.0.1:1"]])
def test_without_root_it_says_so_instead_of_seeing_no_rules(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "run it as root" in complaint(capsys, *arguments)

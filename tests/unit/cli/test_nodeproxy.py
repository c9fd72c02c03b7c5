"""The node proxy's command line: one clear line for each mistake, and the right exit code."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import click.testing
import pytest

from kproxy.cli import nodeproxy
from kproxy.cli.proxy import proxy


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


def test_in_a_pod_the_service_account_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    access = nodeproxy.api_access("", "")
    assert access.server == "https://[fd00::1]:443"
    assert access.token_file == nodeproxy.SERVICE_ACCOUNT / "token"
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

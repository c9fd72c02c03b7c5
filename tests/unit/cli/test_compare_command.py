"""``kproxy compare`` refuses what cannot be, before any kernel is booted."""

from pathlib import Path

import pytest

from kproxy.cli import main


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: str) -> str:
    monkeypatch.setattr("sys.argv", ["kproxy", "compare", *args])
    assert main.main() == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert len(captured.err.splitlines()) == 1 or "-f" in args
    return captured.err


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("--scenario", "proxy-nap"), "proxy-nap"),
        (("--modes", "ipvs,userspace"), "userspace"),
        (("--trials", "0"), "--trials"),
        (("--trials", "many"), "--trials"),
        (("--rate", "-5"), "--rate"),
        (("--rate", "nan"), "--rate"),
        (("--rate", "inf"), "--rate"),
        (("--rate", "5000000"), "--rate"),
        (("--out", "/proc/no-such-place"), "--out"),
        (("--out", "/dev/null/x"), "--out"),
        (("--reproduce", "no-such.json"), "no-such.json"),
        (("--reproduce", "x.json", "--trials", "2"), "--trials"),
        (("--nodes", "1"), "--nodes"),
        (("-f", "no-such-file.yaml"), "no-such-file.yaml"),
        (("--kernel", "windows"), "windows"),
        (("--policy", "flush"), "--policy"),
        (("--node-rules", "no-such.nft"), "--node-rules"),
        (("--reproduce", "x.json", "--node-rules", "x.nft"), "--node-rules"),
        (("--reproduce", "x.json", "--policy", "keep"), "--policy"),
        (("--reproduce", "x.json", "--uplinks", "node1=eth1"), "--uplinks"),
        (("--from", "ipvs"), "add --scenario mode-switch"),
        (("--to", "ipvs", "--scenario", "baseline"), "add --scenario mode-switch"),
        (("--scenario", "mode-switch", "--from", "userspace"), "--from userspace"),
        (("--scenario", "mode-switch", "--from", "ipvs", "--to", "ipvs"), "no change"),
        (("--scenario", "mode-switch-drained", "--modes", "ipvs"), "no change"),
        (("--scenario", "mode-switch", "--modes", "ipvs,ipvs"), "mode ipvs alone: that is no"),
        (("--scenario", "mode-switch", "--modes", "ipvs", "--from", "ipvs"), "mode ipvs alone:"),
        (("--scenario", "mode-switch", "--modes", "userspace"), "--modes userspace: there is no"),
        (("--scenario", "mode-switch", "--modes", ","), "--modes: none is named"),
        (("--modes", ""), "--modes: none is named"),
        (("--policy", ","), "name a policy"),
        (("--scenario", "mode-switch", "--policy", "flush-at-start"), "a change of mode has none"),
        (("--reproduce", "x.json", "--from", "ipvs"), "--from"),
    ],
)
def test_bad_options_are_named(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    args: tuple[str, ...],
    named: str,
) -> None:
    assert named in run(capsys, monkeypatch, *args)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("kind: Deployment\n  bad: [", "line"),
        ("apiVersion: v1\nkind: Gadget\nmetadata: {name: x}\n", "Gadget"),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
            "spec: {selector: {a: b}, ports: [{port: 99999}]}\n",
            "spec.ports[0].port",
        ),
    ],
)
def test_bad_manifests_name_object_and_field(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    text: str,
    named: str,
) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(text)
    assert named in run(capsys, monkeypatch, "-f", str(path))


def test_list_names_all_scenarios(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kproxy.lab import scenarios, switching

    monkeypatch.setattr("sys.argv", ["kproxy", "compare", "--list"])
    assert main.main() == 0
    out = capsys.readouterr().out
    assert all(name in out for name in (*scenarios.SCENARIOS, *switching.WAYS))

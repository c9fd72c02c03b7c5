"""The rules as files to install."""

from pathlib import Path

import alert_rules
import pytest
import yaml

from kproxy.monitoring import profiles, rulefiles
from kproxy.monitoring.profiles import Profile


def test_files_for_prometheus(tmp_path: Path) -> None:
    assert rulefiles.main([str(tmp_path / "rules"), "--profile", "lab"]) == 0

    written = {path.name: yaml.safe_load(path.read_text()) for path in tmp_path.glob("rules/*")}
    rules = profiles.rules(Profile.LAB)
    assert written == {f"kproxy-{name}": document for name, document in rules.items()}


def test_objects_for_the_operator(tmp_path: Path) -> None:
    options = ["--custom-resource", "--namespace=watch", "--label=release=mine", "--label=a=b"]

    assert rulefiles.main([*options, "--runbooks=https://git.example/", str(tmp_path)]) == 0

    written = yaml.safe_load((tmp_path / "kproxy-proxy.yaml").read_text())
    assert written["kind"] == "PrometheusRule"
    assert written["metadata"] == {
        "name": "kproxy-proxy",
        "namespace": "watch",
        "labels": {"release": "mine", "a": "b"},
    }
    (down, *_) = written["spec"]["groups"][0]["rules"]
    assert down["annotations"]["runbook_url"] == "https://git.example/KubeProxyDown.md"


def test_a_directory_that_cannot_be_written_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")

    assert rulefiles.main([str(tmp_path / "file")]) == 2

    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("wrong", [[], ["--label", "x", "d"], ["--profile", "fast", "d"]])
def test_a_wrong_command_line_is_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        rulefiles.main(wrong)

    assert ended.value.code == 2


def test_the_list_of_runbooks_is_as_it_would_be_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert rulefiles.main(["--index"]) == 0

    assert capsys.readouterr().out == (alert_rules.ROOT / "docs/runbooks/README.md").read_text()

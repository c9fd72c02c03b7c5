"""``kproxy lab``: what is refused before anything starts, and what kubectl is told."""

from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from kproxy import errors
from kproxy.cli import lab_commands
from kproxy.cli.main import cli
from netns.journal import Journal
from netns.kernels import base


def run(*words: str, place: Path) -> Exception | None:
    result = CliRunner().invoke(cli, ["lab", *words, "--state-dir", str(place)])
    return result.exception if isinstance(result.exception, Exception) else None


@pytest.mark.parametrize("verb", ["status", "graph", "apply", "dashboard"])
def test_without_a_lab_that_is_told_with_the_remedy(verb: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n")
    words = ("-f", str(path)) if verb == "apply" else ()
    error = run(verb, *words, place=tmp_path / "labs")
    assert isinstance(error, errors.UsageError)
    assert "lab kproxy is not up (start it by `kproxy lab up`)" in str(error)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nodes: 0", "lab.yaml: nodes: 0 is out of range"),
        ("modee: ipvs", "lab.yaml"),
        ("manifests: [none.yaml]", "cannot read"),
        ("links: {node9: {loss: 1%}}", "links.node9: there is no such host"),
        ("images: {a: {image: nothing}}", "images"),
    ],
)
def test_a_wrong_file_is_one_line_with_its_field(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(text)
    error = run("up", "-f", str(path), place=tmp_path / "labs")
    assert isinstance(error, (errors.UsageError, errors.InvalidObject))
    assert words in str(error)
    assert not (tmp_path / "labs").exists()


def test_a_name_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    error = run("status", "--name", "../etc", place=tmp_path / "labs")
    assert isinstance(error, errors.UsageError)


@pytest.mark.parametrize("listen", ["8080", ":8080", "localhost:", "localhost:http", "a:99999"])
def test_an_address_for_the_live_page_is_host_and_port(listen: str, tmp_path: Path) -> None:
    error = run("dashboard", "--listen", listen, place=tmp_path / "labs")
    assert isinstance(error, errors.UsageError)
    assert "use HOST:PORT" in str(error)


def test_down_of_nothing_is_fine(tmp_path: Path) -> None:
    assert run("down", place=tmp_path / "labs") is None


def test_down_repairs_what_a_killed_measurement_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(base.STATE_VARIABLE, str(tmp_path))
    left = tmp_path / "lab"
    left.mkdir()
    with closing(Journal(left)) as journal:
        journal.begin("left")
    result = CliRunner().invoke(cli, ["lab", "down"])
    assert "down: the lab of a measurement that was killed" in result.output
    assert not left.exists()


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--name", "shop", "--help"]])
def test_help_about_kubectl_in_a_lab_needs_no_lab(words: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["lab", "kubectl", "--state-dir", str(tmp_path), *words])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "kproxy lab kubectl help" in result.output


def test_help_about_a_command_of_kubectl_is_kubectls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(lab_commands, "find", lambda place, name: None)
    monkeypatch.setattr(base, "find_program", lambda name: Path("/bin/kubectl"))
    monkeypatch.setattr(
        lab_commands, "enter", lambda directory, host, words: asked.append(words) or 0
    )
    CliRunner().invoke(cli, ["lab", "kubectl", "-n", "shop", "get", "--help"])
    assert asked == [["kubectl", "-n", "shop", "get", "--help"]]


def test_files_for_kubectl_are_read_here_and_become_its_input(tmp_path: Path) -> None:
    one, two = tmp_path / "1.yaml", tmp_path / "2.yaml"
    one.write_text("a: 1")
    two.write_text("b: 2")
    words = ["apply", "-n", "shop", "-f", str(one), f"--filename={two}", "--wait"]
    assert lab_commands._with_files_read(words) == (
        ["apply", "-n", "shop", "-f", "-", "--wait"],
        b"a: 1\n---\nb: 2",
    )


@pytest.mark.parametrize("words", [["-f{one},{two}"], ["-f", "{one},{two}"], ["-f={one},{two}"]])
def test_several_files_may_stand_after_one_option(words: list[str], tmp_path: Path) -> None:
    one, two = tmp_path / "1.yaml", tmp_path / "2.yaml"
    one.write_text("a: 1")
    two.write_text("b: 2")
    words = [word.format(one=one, two=two) for word in words]
    assert lab_commands._with_files_read(["create", *words]) == (
        ["create", "-f", "-"],
        b"a: 1\n---\nb: 2",
    )


def test_kubectl_sees_that_several_files_of_json_are_several(tmp_path: Path) -> None:
    """It takes what begins with a brace for one stream of JSON, in which no "---" may be."""
    path = tmp_path / "1.json"
    path.write_text("{}")
    words, data = lab_commands._with_files_read(["apply", "-f", str(path), "-f", str(path)])
    assert (words, data) == (["apply", "-f", "-"], b"---\n{}\n---\n{}")
    assert lab_commands._with_files_read(["apply", "-f", str(path)])[1] == b"{}"


def test_a_file_goes_to_kubectl_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe")
    assert lab_commands._with_files_read(["apply", "-f", str(path)])[1] == b"\xff\xfe"


def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "x.yaml"
    path.touch()
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(errors.UsageError, match=f"cannot read {path}: Permission denied"):
        lab_commands._with_files_read(["apply", "-f", str(path)])


@pytest.mark.parametrize("before", [[], ["-n", "shop"], ["--context=x", "-v", "6"]])
def test_logs_are_followed_whatever_files_there_are(
    before: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "web-0").touch()
    words = [*before, "logs", "-f", "web-0"]
    assert lab_commands._with_files_read(words) == (words, None)


@pytest.mark.parametrize(
    "words",
    [
        ["get", "pods"],
        ["apply", "-f", "-"],
        ["apply", "-f", "https://example.org/x.yaml"],
        ["apply", "-f"],
        ["apply", "--filename", "/"],
        ["apply", "-f="],
        ["exec", "pod", "--", "tail", "-f", "/etc/hostname"],
    ],
)
def test_what_is_no_file_is_left_to_kubectl(words: list[str]) -> None:
    assert lab_commands._with_files_read(words) == (words, None)

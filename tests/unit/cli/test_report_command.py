"""`kproxy report`: which files it reads and writes, and how it ends."""

import csv
import io
from pathlib import Path

import pytest
import report_samples as samples

from kproxy.cli import main
from kproxy.cli import report as command

SMALL = samples.comparison(trials=1)


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr("sys.argv", ["kproxy", "report", *map(str, words)])
    return main.main()


def test_html_beside_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = samples.written(SMALL, tmp_path)
    before = path.read_bytes()
    assert run(monkeypatch, path) == 0
    out = tmp_path / "report.html"
    assert out.read_text().startswith("<!doctype html>")
    assert capsys.readouterr().err == f"kproxy: written: {out}\n"
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "name", "begins"),
    [
        (("--format", "markdown"), "report.md", "# What the restart"),
        (("--format", "csv"), "report.csv", "result,mode,"),
        (("--out", "x.md"), "x.md", "# What the restart"),
        (("--out", "x.csv"), "x.csv", "result,mode,"),
        (("--out", "x"), "x", "<!doctype html>"),
    ],
)
def test_formats_by_name_and_by_ending(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    name: str,
    begins: str,
) -> None:
    samples.written(SMALL, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, ".", *words) == 0
    assert (tmp_path / name).read_text().startswith(begins)


def test_names_for_results_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "c=d"):
        samples.written(SMALL, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    words = ("before=a", "b", "b", "c=d/result.json")
    assert run(monkeypatch, *words, "--format", "csv", "--out", "-") == 0
    rows = csv.DictReader(io.StringIO(capsys.readouterr().out))
    labels = list(dict.fromkeys(row["result"] for row in rows))
    assert labels == ["before", "b", "b (2)", "c=d"]


def test_a_damaged_result_is_shown_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = samples.written(SMALL, tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert run(monkeypatch, path) == 1
    assert f"kproxy: {path}: the file is cut short" in capsys.readouterr().err
    assert "the file is cut short" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ("none.json",),
        ("result.json", "--out", "result.json"),
        ("result.json", "--out", "no/such/place.html"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
) -> None:
    before = samples.written(SMALL, tmp_path).read_bytes()
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("kproxy: ")
    assert Path("result.json").read_bytes() == before


def test_a_run_that_cannot_write_its_report_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = samples.written(SMALL, tmp_path)
    command.beside(path)
    assert capsys.readouterr().err == f"kproxy: report: {tmp_path / 'report.html'}\n"
    (tmp_path / "report.html").unlink()
    (tmp_path / "report.html").mkdir()
    command.beside(path)
    assert "kproxy: no report: " in capsys.readouterr().err

"""What two runs of the laboratory are compared by."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import reproducible

RESULT = b"""{
  "format": "x",
  "summary": [
    {
      "lost": 7.0,
      "mode": "a \\n  \\"trials\\": "
    }
  ],
  "trials": [
    {
      "lost": 8
    }
  ]
}
"""
REPORT = """<testsuites><testsuite time="3.5" timestamp="2026-01-01T00:00:01">
<testcase classname="a" name="b" time="1.250"/>
<testcase classname="a" name="c" time="0.010"><failure message="m">text</failure></testcase>
</testsuite></testsuites>"""


def test_a_summary_is_compared_as_it_is_written() -> None:
    summary = reproducible.raw_summary(RESULT)
    assert "7.0" in summary
    assert "8" not in summary
    assert summary == reproducible.raw_summary(RESULT.replace(b"8", b"9"))
    for other in (RESULT.replace(b"7.0", b"7"), RESULT.replace(b"7.0", b"7.00")):
        assert reproducible.difference(summary, reproducible.raw_summary(other))


@pytest.mark.parametrize("result", [b"", b"{}", RESULT.replace(b"trials", b"t")])
def test_a_result_without_a_summary_is_no_reference(result: bytes) -> None:
    with pytest.raises(RuntimeError, match="no summary"):
        reproducible.raw_summary(result)


def test_a_chain_is_compared_by_all_that_was_measured(tmp_path: Path) -> None:
    def digest(result: bytes) -> str:
        (tmp_path / "result.json").write_bytes(result)
        return reproducible.chain_digest(tmp_path)

    first = digest(RESULT)
    assert digest(RESULT.replace(b'"x"', b'"on another day"')) == first
    for other in (RESULT.replace(b"7.0", b"7"), RESULT.replace(b"8", b"9")):
        assert reproducible.difference(first, digest(other))
    with pytest.raises(RuntimeError, match="no summary"):
        digest(b"{}")


def test_tests_are_compared_by_outcome_and_virtual_duration() -> None:
    told = reproducible.outcomes(ElementTree.fromstring(REPORT))
    assert told.splitlines() == [
        "a::b: passed in 1.250 s",
        "a::c: failure in 0.010 s",
        "all: 3.5 s, begun at 2026-01-01T00:00:01",
    ]


def test_line_ends_are_bytes_too() -> None:
    assert reproducible.difference("a\nb", "a\nb") == ""
    assert reproducible.difference("a\nb", "a\r\nb")


def test_only_the_first_run_is_idle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loads = []

    def run(subject: reproducible.Subject, place: Path, load: int) -> str:
        place.mkdir()
        loads.append(load)
        return "the same"

    monkeypatch.setattr(reproducible, "run", run)
    assert reproducible.repeat(reproducible.subjects(1)[0], 4, tmp_path)
    assert loads == [0, *[reproducible.HOGS] * 3]

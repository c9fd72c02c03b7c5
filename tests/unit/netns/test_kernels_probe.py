"""What a failed attempt to use a kernel feature is said to be."""

from netns.kernels import probe


def test_what_works_has_no_complaint() -> None:
    assert probe.attempt([["true"], ["true"]]) == ""


def test_the_first_complaint_counts() -> None:
    commands = [["sh", "-c", "echo first >&2; exit 1"], ["sh", "-c", "echo second >&2; exit 1"]]
    assert probe.attempt(commands) == "first"


def test_silence_is_reported_too() -> None:
    assert probe.attempt([["false"]]) == "false failed"


def test_a_missing_program_is_named() -> None:
    assert probe.attempt([["no-such-program"]]) == "no program no-such-program"

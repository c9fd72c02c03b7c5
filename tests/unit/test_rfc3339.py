"""Times of day, written and read."""

import pytest

from kproxy import rfc3339

MOMENT = 1_767_225_599
"""2025-12-31 23:59:59 UTC."""


def test_each_precision_is_written_and_read_back_in_whole_seconds() -> None:
    for text, wanted in (
        (rfc3339.timestamp(MOMENT + 0.9), "2025-12-31T23:59:59Z"),
        (rfc3339.microtime(MOMENT + 0.25), "2025-12-31T23:59:59.250000Z"),
        (rfc3339.nanotime(MOMENT * 10**9 + 7), "2025-12-31T23:59:59.000000007Z"),
    ):
        assert text == wanted
        assert rfc3339.seconds_of(text) == MOMENT


@pytest.mark.parametrize("text", [None, "", "yesterday", "2025-13-01T00:00:00Z"])
def test_what_is_no_time_is_none(text: str | None) -> None:
    assert rfc3339.seconds_of(text) is None

"""The language on the line between host and guest."""

from hypothesis import given
from hypothesis import strategies as st

from netns.kernels import frames

FRAMES = st.lists(st.tuples(st.integers(1, 255), st.binary(max_size=300)), max_size=8)


@given(FRAMES, st.integers(1, 40))
def test_frames_survive_any_cut(sent: list[tuple[int, bytes]], cut: int) -> None:
    stream = b"".join(frames.pack(kind, payload) for kind, payload in sent)
    decoder = frames.Decoder()
    got = []
    for start in range(0, len(stream), cut):
        got.extend(decoder.feed(stream[start : start + cut]))
    assert sent == got


def test_an_incomplete_frame_waits_for_its_rest() -> None:
    decoder = frames.Decoder()
    frame = frames.pack(frames.STDOUT, b"whole")
    assert list(decoder.feed(frame[:-1])) == []
    assert list(decoder.feed(frame[-1:])) == [(frames.STDOUT, b"whole")]


def test_numbers_come_back() -> None:
    frame = frames.pack_number(frames.RESIZED, 24, 80)
    [(kind, payload)] = frames.Decoder().feed(frame)
    assert (kind, frames.numbers(payload)) == (frames.RESIZED, (24, 80))


def test_kinds_are_distinct() -> None:
    kinds = [
        value
        for name, value in vars(frames).items()
        if name.isupper() and isinstance(value, int) and value < 256
    ]
    assert len(kinds) == len(set(kinds))


def test_the_window_is_smaller_than_what_throttles_a_terminal_line() -> None:
    # 4096 bytes of buffer, of which the line discipline keeps 128 free.
    assert frames.WINDOW < 4096 - 128

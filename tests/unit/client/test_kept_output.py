"""Head and tail of what a program says."""

from kproxy.client.kept import Kept


def test_kept_is_bounded_whatever_the_size_of_its_parts() -> None:
    for size in (1, 3, 100):
        kept = Kept(4, 3)
        text = b"0123456789"
        for at in range(0, len(text), size):
            kept.add(text[at : at + size])
        assert (kept.left_out, kept.text()) == (3, "0123\n[3 bytes are left out here]\n789")
    whole = Kept(4, 3)
    whole.add(b"0123456")
    assert (whole.left_out, whole.text()) == (0, "0123456")

"""What namespaces are called that have no name of their own."""

from pathlib import Path

from kproxy.trace import places


def test_a_process_whose_name_was_cut_within_a_character_is_named(tmp_path: Path) -> None:
    directory = tmp_path / "4711"
    directory.mkdir()
    (directory / "comm").write_bytes("ääääääää".encode()[:15] + b"\n")
    assert places.process(directory) == "äääääää\ufffd[4711]"

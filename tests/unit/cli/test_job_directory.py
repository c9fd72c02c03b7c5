"""What a guest is told lies in a directory that goes with its owner, however that ends."""

import subprocess
import sys
from pathlib import Path

from kproxy.cli import jobdirectory

KILLED = (
    "import os, signal, sys\n"
    "from pathlib import Path\n"
    "from kproxy.cli import jobdirectory\n"
    "with jobdirectory.made(Path(sys.argv[1])) as place:\n"
    "    (place / 'job').touch()\n"
    "    os.kill(os.getpid(), signal.SIGKILL)\n"
)


def test_it_goes_in_the_end(tmp_path: Path) -> None:
    with jobdirectory.made(tmp_path / "state") as place:
        (place / "job").touch()
        assert list((tmp_path / "state").iterdir()) == [place]
    assert list((tmp_path / "state").iterdir()) == []


def test_what_a_killed_process_left_goes_at_the_next_start(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    (left,) = tmp_path.iterdir()
    with jobdirectory.made(tmp_path) as place:
        assert list(tmp_path.iterdir()) == [place]
        assert place != left


def test_that_of_a_live_process_stays(tmp_path: Path) -> None:
    with jobdirectory.made(tmp_path) as mine, jobdirectory.made(tmp_path) as other:
        assert {*tmp_path.iterdir()} == {mine, other}
    assert list(tmp_path.iterdir()) == []

"""A directory for what a guest is told: gone with its owner, at the latest at the next start.

Its name is as long every time, because paths are part of what a run in virtual time depends on; so
it does not tell the owner, who holds a lock on it instead. A SIGKILL gives the lock up, too.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "job-"


@contextlib.contextmanager
def made(state: Path) -> Iterator[Path]:
    """Make one in the state directory, and remove it; also those that killed processes left."""
    state.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with _opened(state) as door:
            fcntl.flock(door, fcntl.LOCK_EX)  # or another would remove ours before it is locked
            _sweep(state)
            place = Path(tempfile.mkdtemp(prefix=PREFIX, dir=state))
            fcntl.flock(stack.enter_context(_opened(place)), fcntl.LOCK_EX)
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        yield place


def _sweep(state: Path) -> None:
    for left in state.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), _opened(left) as directory:  # its owner is alive
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)

"""Gives a program a resolv.conf of its own, which nobody else sees and which goes with it.

The program is started in a mount namespace of its own, where the file lies over
``/etc/resolv.conf``. So nothing is written outside the lab's directory, and when the program ends,
however, the mount is gone with its namespace. The pid stays the program's: each step executes the
next one.
"""

from collections.abc import Sequence
from pathlib import Path

PLACE = Path("/etc/resolv.conf")
_SCRIPT = 'mount --no-mtab --bind "$1" "$2" && shift 2 && exec "$@"'


def write(path: Path, text: str) -> None:
    """Write the file; a program that runs with a former one goes on with that.

    That is so because a mount holds the file, not its name; who wants to change what running
    programs see writes into the file itself.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.new")
    partial.write_text(text)
    partial.replace(path)


def with_file(path: Path, command: Sequence[str | Path]) -> list[str | Path]:
    """Return the command that runs a command with this file as its ``/etc/resolv.conf``.

    For root. Exit codes: those of the command; 1 or 32 if the file could not be mounted, 127 if
    the command is not there.
    """
    private = ("unshare", "--mount", "--propagation", "private", "--")
    return [*private, "sh", "-c", _SCRIPT, "sh", path, PLACE, *command]

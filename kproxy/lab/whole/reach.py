"""Running a command on a host of a lab, for who may not know the lab: remediation, for one.

    python -m kproxy.lab.whole.reach --state-dir DIR HOST COMMAND…

The command replaces this process, in the host's network namespace; so it ends with whoever ends
this one, and at the latest with the host. Exit code 255: there is no such host, or the command
cannot be started.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from netns.errors import NetnsError
from netns.lab import Lab

UNREACHABLE = 255


def command(state_dir: Path) -> list[str]:
    """Return the words that go first, with ``{node}`` for the host."""
    return [sys.executable, "-m", "kproxy.lab.whole.reach", f"--state-dir={state_dir}", "{node}"]


def main(arguments: Sequence[str]) -> int:
    """Become the command. Returns only if that is not possible."""
    parser = argparse.ArgumentParser(prog="python -m kproxy.lab.whole.reach", description=__doc__)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("host")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    try:
        with Lab.attach(options.state_dir) as lab, lab.host(options.host).entered():
            os.execvp(options.command[0], options.command)  # noqa: S606  no shell is wanted
    except (NetnsError, OSError, IndexError) as error:
        print(f"{options.host}: {error}", file=sys.stderr)
        return UNREACHABLE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

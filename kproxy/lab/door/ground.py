"""Runs the door of a lab on a kernel that is fit for it.

    python -m kproxy.lab.door.ground KERNEL CLOCK MEMORY SECONDS [SEED]

Ends when its parent does. On this machine's own kernel it becomes the door; otherwise it plays the
host's part for an embedded kernel, whose command is the door.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import kproxy
from netns import errors
from netns.kernels import base, clocks
from netns.process import end_with_parent


def command(kernel: str, clock: base.Clock, limits: base.Limits, seed: int | None) -> list[str]:
    """Return the command line."""
    words = [kernel, str(clock), str(limits.memory), f"{limits.time:g}"]
    words += [] if seed is None else [str(seed)]
    return [sys.executable, "-m", "kproxy.lab.door.ground", *words]


def main(words: Sequence[str]) -> int:
    """Return the exit code of the door, or of its kernel."""
    parent = os.getppid()
    end_with_parent()
    if os.getppid() != parent:
        return 1
    kernel, clock, memory, seconds, *seed = words
    door = base.Command(
        argv=(sys.executable, "-m", "kproxy.lab.door"),
        packages=(Path(kproxy.__file__).parent,),
        clock=base.Clock(clock),
        seed=int(seed[0]) if seed else None,
    )
    try:
        chosen, _ = clocks.choose(kernel, door.clock)
        limits = base.Limits(memory=int(memory), time=float(seconds))
        return chosen.provider.run(door, limits)
    except errors.GuestFailed as failure:
        print("\n".join(failure.lines("kproxy")), file=sys.stderr)
        return failure.exit_code
    except errors.NetnsError as error:
        print(f"kproxy: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""``python -m netns.kernels [options] -- command args…``: run any command on a fit kernel.

The exit code is the command's; 124: the time limit is over; 125: the kernel failed; 2: bad usage
or no such kernel here. The tests' tiers that need IPVS run this way.
"""

import argparse
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from netns import errors
from netns.kernels import base, choice

UNITS = {"": base.MIB, "K": 1024, "M": base.MIB, "G": 1024 * base.MIB}
SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_memory(text: str) -> int:
    """Return bytes: ``1G``, ``512M``; a bare number is MiB. Raises ValueError."""
    found = re.fullmatch(r"(\d+)([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found:
        raise ValueError(f"{text!r} is not an amount of memory, such as 512M or 1G")
    amount = int(found[1]) * UNITS[found[2].upper()]
    if amount < 128 * base.MIB:
        raise ValueError(f"{text!r} is too little: a kernel with a lab needs 128M at least")
    return amount


def parse_time(text: str) -> float:
    """Return seconds: ``90``, ``90s``, ``60m``, ``2h``. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not found:
        raise ValueError(f"{text!r} is not a time, such as 90s, 60m or 2h")
    seconds = float(found[1]) * SECONDS[found[2]]
    if not seconds or math.isinf(seconds):
        raise ValueError(f"{text!r} is no time to run anything in")
    return seconds


def report(program: str, failure: errors.GuestFailed) -> None:
    """Print why an embedded kernel failed: one line, then the last that its console said."""
    print(f"{program}: {failure}", file=sys.stderr)
    for line in failure.console[-8:]:
        print(f"  console: {line}", file=sys.stderr)


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m netns.kernels", description="Run a command on a kernel fit for the lab."
    )
    parser.add_argument("--kernel", choices=choice.NAMES, default=choice.AUTO)
    parser.add_argument("--memory", default="1G", help="of an embedded kernel")
    parser.add_argument("--time-limit", default="60m", help="of an embedded kernel")
    parser.add_argument("--writable", metavar="DIR", type=Path, action="append", default=[])
    parser.add_argument("command", nargs="+", help="after --")
    options = parser.parse_args(arguments)
    try:
        limits = base.Limits(
            memory=parse_memory(options.memory), time=parse_time(options.time_limit)
        )
    except ValueError as error:
        parser.error(str(error))
    try:
        chosen = choice.choose(options.kernel)
        if chosen.because:
            used = chosen.provider.describe()
            print(f"kernels: {chosen.because}; using {used}", file=sys.stderr)
        command = base.Command(argv=tuple(options.command), writable=tuple(options.writable))
        return chosen.provider.run(command, limits)
    except errors.GuestFailed as failure:
        report("kernels", failure)
        return failure.exit_code
    except (errors.NetnsError, OSError) as error:
        print(f"kernels: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""``python -m netns.kernels [options] -- command args…``: run any command on a fit kernel.

The exit code is the command's; 124: the time limit is over; 125: the kernel failed; 130: it was
interrupted twice; 2: bad usage, or no such kernel here. The tests' tiers that need IPVS run this
way.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from netns import errors
from netns.kernels import base, choice, clocks, quantities

Number = TypeVar("Number", int, float)


def argument(parse: Callable[[str], Number]) -> Callable[[str], Number]:
    """Let argparse show why a value is refused."""

    def parsed(text: str) -> Number:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit code."""
    memory, time = argument(quantities.parse_memory), argument(quantities.parse_time)
    parser = argparse.ArgumentParser(
        prog="python -m netns.kernels", description="Run a command on a kernel fit for the lab."
    )
    parser.add_argument("--kernel", choices=choice.names(), default=choice.AUTO)
    parser.add_argument("--memory", type=memory, default="1G", help="of an embedded kernel")
    parser.add_argument("--time-limit", type=time, default="60m", help="of an embedded kernel")
    parser.add_argument(
        "--clock",
        choices=[str(clock) for clock in base.Clock],
        help="default: virtual where the kernel can, otherwise real",
    )
    parser.add_argument("--seed", type=argument(clocks.parse_seed), help="of what is random")
    parser.add_argument(
        "--stall", type=time, default="60s", help="CPU time for which virtual time may stand still"
    )
    parser.add_argument("--writable", metavar="DIR", type=Path, action="append", default=[])
    parser.add_argument("command", nargs="+", help="after --")
    options = parser.parse_args(arguments)
    wanted = base.Clock(options.clock) if options.clock else None
    try:
        chosen, clock = clocks.choose(options.kernel, wanted)
        seed = clocks.default_seed(clock) if options.seed is None else options.seed
        if chosen.because:
            used = clocks.in_words(chosen.provider, clock, seed)
            print(f"kernels: {chosen.because}; using {used}", file=sys.stderr)
        command = base.Command(
            argv=tuple(options.command), writable=tuple(options.writable), clock=clock, seed=seed
        )
        limits = base.Limits(memory=options.memory, time=options.time_limit, stall=options.stall)
        return chosen.provider.run(command, limits)
    except errors.GuestFailed as failure:
        print("\n".join(failure.lines("kernels")), file=sys.stderr)
        return failure.exit_code
    except (errors.NetnsError, OSError) as error:
        print(f"kernels: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

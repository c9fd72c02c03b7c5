"""Picks the clock for a command, and the seed.

A clock that cannot be had is never replaced silently: who asks for one gets it or an error.
"""

from collections.abc import Callable

from netns import errors
from netns.kernels import base, choice, uml
from netns.kernels.base import Clock

DEFAULT_SEED = 1  # under a clock that is not the world's, runs are the same unless told otherwise
REMEDY = "kproxy kernel build makes a kernel that has all clocks; or use --clock real"


def choose(
    kernel: str,
    wanted: Clock | None,
    chooser: Callable[[str], choice.Choice] | None = None,
) -> tuple[choice.Choice, Clock]:
    """Choose a kernel by name, as ``choice.choose`` does, and its clock.

    With no clock ``wanted`` it is the virtual one where the kernel has it, otherwise the real
    one. If ``auto`` leads to a kernel that lacks the wanted clock, an embedded one that has it is
    used. Raises KernelUnusable, with the remedy, if there is none.
    """
    chooser = chooser or choice.choose
    chosen = chooser(kernel)
    clocks = chosen.provider.clocks
    if wanted is None:
        return chosen, Clock.VIRTUAL if Clock.VIRTUAL in clocks else Clock.REAL
    if wanted in clocks:
        return chosen, wanted
    lacking = f"{chosen.provider.describe()} has no {wanted} clock"
    if kernel == choice.AUTO and chosen.provider.name != uml.NAME:
        try:
            other = chooser(uml.NAME)
        except errors.KernelUnusable as error:
            raise errors.KernelUnusable(f"{lacking}, and {error.message}", remedy=REMEDY) from None
        if wanted in other.provider.clocks:
            return choice.Choice(other.provider, because=lacking), wanted
    raise errors.KernelUnusable(lacking, remedy=REMEDY)


def default_seed(clock: Clock) -> int | None:
    """Return the seed of a run for which none is given."""
    return None if clock is Clock.REAL else DEFAULT_SEED


def parse_seed(text: str) -> int:
    """Return a seed. Raises ValueError, with the reason, for what is none."""
    if not text.isascii() or not text.isdecimal() or int(text) >= 2**32:
        raise ValueError(f"{text!r} is not a seed: a whole number from 0 to {2**32 - 1}")
    return int(text)


def in_words(provider: base.Provider, clock: Clock, seed: int | None) -> str:
    """Return the kernel for the user, and the clock and the seed where they are not as ever."""
    words = [provider.describe()]
    if clock is not Clock.REAL:
        words.append(f"{clock} clock")
    if seed is not None:
        words.append(f"seed {seed}")
    return ", ".join(words)

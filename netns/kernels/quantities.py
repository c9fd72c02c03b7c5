"""Amounts of memory and time as users write them."""

import re

from netns.kernels.base import MIB

LEAST_MEMORY = 128 * MIB
BYTES = {"": MIB, "K": 1024, "M": MIB, "G": 1024 * MIB}
SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_memory(text: str) -> int:
    """Return bytes: ``1G``, ``512M``; a bare number is MiB.

    Raises ValueError for what is not an amount, or too little for a kernel with a lab.
    """
    found = re.fullmatch(r"(\d+)([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE | re.ASCII)
    if not found:
        raise ValueError(f"{text!r} is not an amount of memory, such as 512M or 1G")
    amount = int(found[1]) * BYTES[found[2].upper()]
    if amount < LEAST_MEMORY:
        raise ValueError(f"{text!r} is too little: it takes {LEAST_MEMORY // MIB}M at least")
    return amount


def parse_time(text: str) -> float:
    """Return seconds: ``90``, ``90s``, ``60m``, ``2h``. Raises ValueError for anything else."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smh]?)", text.strip(), re.ASCII)
    if not found:
        raise ValueError(f"{text!r} is not a time, such as 90s, 60m or 2h")
    seconds = float(found[1]) * SECONDS[found[2]]
    if not seconds:
        raise ValueError(f"{text!r} leaves no time to run anything")
    return seconds

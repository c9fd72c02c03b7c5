"""Programs written in Go that do the same twice in virtual time: copies that count no cycles.

Go's runtime mixes the processor's cycle counter (RDTSC) into the random numbers of each of its
threads, by which it chooses among the ready cases of a ``select``, where to begin a walk of a map,
and more. The instruction asks no kernel, and so it tells a program in virtual time, which nothing
else of the world reaches, how long the world has taken. (Its other numbers come from the kernel
and the clock, which are the same in every run.) A copy in which ``runtime.cputicks`` always
returns 0 is the same program with one source of chance less: what else asks it are profiles.
"""

import os
from pathlib import Path

_RETURN = bytes.fromhex("48c1e220 4801d0 48 89442408 c3")
_RDTSCP, _ZERO = bytes.fromhex("0f01f9"), bytes.fromhex("31c0 99")
_FENCES_RDTSC, _ZERO_TOO = bytes.fromhex("0faef0 0faee8 0f31"), bytes.fromhex("31c0 31d2 90909090")
# The body of runtime.cputicks for amd64, from Go 1.19 on: both ways of reading the counter.
_READS = _RDTSCP + _RETURN + _FENCES_RDTSC
_COUNTS_NOTHING = _ZERO + _RETURN + _ZERO_TOO


def without(program: Path, copy: Path) -> bool:
    """Make a copy of a program that does not read the counter; return whether that is one.

    A program in which there is not exactly one place that reads it, as Go writes that, is left as
    it is: then ``copy`` is a link to it. ``copy`` must not exist. Raises OSError.
    """
    data = program.read_bytes()
    if data.count(_READS) != 1:
        copy.symlink_to(program)
        return False
    with os.fdopen(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755), "wb") as file:
        file.write(data.replace(_READS, _COUNTS_NOTHING))
    return True

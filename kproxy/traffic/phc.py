"""The clock of a network card (PTP hardware clock, PHC), against CLOCK_MONOTONIC.

A card that stamps packets does it by its own clock, which runs freely or is disciplined by
somebody else (ptp4l). The kernel reads it between two readings of CLOCK_REALTIME
(PTP_SYS_OFFSET_EXTENDED, or the older PTP_SYS_OFFSET); from there to CLOCK_MONOTONIC it is the
same step as for stamps of the kernel. What cannot be known is in the error: the time that reading
took, and how far the clock may have drifted since.
"""

import fcntl
import os
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from kproxy.errors import MeasurementError, UsageError
from kproxy.traffic import udp_receive

EVERY_NS = 20_000_000
"""So often the clock is read while packets arrive: at 100 ppm it drifts 2 µs meanwhile."""
_SAMPLES = 5
_MOST_SAMPLES = 25
_HEAD = struct.Struct("=I12x")
_TIME = struct.Struct("=qI4x")
_OFFSET_SIZE = _HEAD.size + (2 * _MOST_SAMPLES + 1) * _TIME.size
_EXTENDED_SIZE = _HEAD.size + 3 * _MOST_SAMPLES * _TIME.size
_WRITE, _READ = 1 << 30, 2 << 30
#: The numbers of requests as most architectures make them (asm-generic/ioctl.h).
_OFFSET = _WRITE | _OFFSET_SIZE << 16 | ord("=") << 8 | 5
_EXTENDED = _READ | _WRITE | _EXTENDED_SIZE << 16 | ord("=") << 8 | 9
_SECOND = 1_000_000_000
_LATEST = 0xFFFFFFFE * _SECOND
"""Records have 32 bits for seconds, of which 0 and the largest mean something else."""


class Sample(NamedTuple):
    """The card's clock, read between two readings of CLOCK_REALTIME; nanoseconds."""

    before: int
    card: int
    after: int


class Reading(NamedTuple):
    """At ``at_ns`` CLOCK_MONOTONIC was ``offset_ns`` ahead of the card's clock, ± ``error_ns``."""

    at_ns: int
    offset_ns: int
    error_ns: int


def times(data: bytes | bytearray, number: int) -> list[int]:
    """Return the first ``number`` times of an answer, in nanoseconds."""
    found = (_TIME.unpack_from(data, _HEAD.size + i * _TIME.size) for i in range(number))
    return [seconds * _SECOND + ns for seconds, ns in found]


def of_extended(data: bytes | bytearray, number: int) -> list[Sample]:
    """Return the samples of PTP_SYS_OFFSET_EXTENDED: system, card, system, each."""
    flat = times(data, 3 * number)
    return [Sample(*flat[i : i + 3]) for i in range(0, len(flat), 3)]


def of_plain(data: bytes | bytearray, number: int) -> list[Sample]:
    """Return the samples of PTP_SYS_OFFSET: the card's times are between the system's."""
    flat = times(data, 2 * number + 1)
    return [Sample(*flat[i : i + 3]) for i in range(0, len(flat) - 2, 2)]


def best(samples: Iterable[Sample]) -> tuple[int, int]:
    """Return CLOCK_REALTIME less the card's clock, and its error: by the quickest sample."""
    quickest = min(samples, key=lambda one: abs(one.after - one.before))
    took = abs(quickest.after - quickest.before)  # negative: somebody has set CLOCK_REALTIME
    return (quickest.before + quickest.after) // 2 - quickest.card, (took + 1) // 2


def drift_error(before: Reading, now: Reading, age_ns: int) -> int:
    """Return by how much an offset may be wrong after so long, if the rates stay as they were.

    How much the offset has changed since the last reading is known only within both errors.
    """
    passed = max(1, now.at_ns - before.at_ns)
    change = abs(now.offset_ns - before.offset_ns) + now.error_ns + before.error_ns
    return -(-change * age_ns // passed)


class CardClock:
    """An open PHC, ``/dev/ptp<index>``; a context manager. UsageError: it cannot be used.

    While packets arrive :meth:`section` is to be called every ``every_ns``.
    """

    every_ns = EVERY_NS

    def __init__(self, index: int, device: Path | None = None) -> None:
        self.path = device or Path(f"/dev/ptp{index}")
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(
                f"{self.path}, the card's clock: {error.strerror}",
                remedy="run as root, and in a container give it that device; or --timestamps "
                "software",
            ) from None
        self._extended = True
        try:
            self._last = self._usable()
        except BaseException:
            os.close(self._fd)
            raise

    def _usable(self) -> Reading:
        """Return a first reading. UsageError: this is no clock, or none that records can hold."""
        try:
            first = self.read()
        except MeasurementError as error:
            raise UsageError(error.message, remedy="--timestamps software") from None
        stands = first.at_ns - first.offset_ns
        if not _SECOND <= stands <= _LATEST:
            raise UsageError(
                f"{self.path}: the card's clock stands {stands / 1e9:.0f} seconds after 1970, "
                "which records cannot hold",
                remedy=f"set it: `phc_ctl {self.path} set`; or --timestamps software",
            )
        return first

    def read(self) -> Reading:
        """Compare the clocks now. MeasurementError: the card or its clock is gone."""
        try:
            ahead, error = best(self._samples())
        except OSError as problem:
            raise MeasurementError(
                f"{self.path}, the card's clock, cannot be read: {problem.strerror}"
            ) from None
        offset, other_error = udp_receive.clock_offset()
        return Reading(time.monotonic_ns(), ahead + offset, error + other_error)

    def _samples(self) -> list[Sample]:
        if self._extended:
            data = bytearray(_EXTENDED_SIZE)
            _HEAD.pack_into(data, 0, _SAMPLES)
            try:
                fcntl.ioctl(self._fd, _EXTENDED, data)
                return of_extended(data, _SAMPLES)
            except OSError:  # its driver, or this kernel, knows only the older one
                self._extended = False
        data = bytearray(_OFFSET_SIZE)
        _HEAD.pack_into(data, 0, _SAMPLES)
        fcntl.ioctl(self._fd, _OFFSET, data)
        return of_plain(data, _SAMPLES)

    def section(self, waited_ns: int) -> Reading:
        """Return a reading whose error holds for packets that arrive until the next one is due.

        And for those that have waited for so long. How the clocks drift is measured from the last
        reading on; the first is made when the clock is opened.
        """
        before, now = self._last, self.read()
        self._last = now
        drifted = drift_error(before, now, EVERY_NS + max(0, waited_ns))
        return now._replace(error_ns=now.error_ns + drifted)

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

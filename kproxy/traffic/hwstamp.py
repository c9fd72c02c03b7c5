"""Stamps of arrivals by the network card itself: whether it can, and how it is told to.

A card stamps what it is told to stamp (SIOCSHWTSTAMP), for everybody on the machine. So its
setting is changed as late as possible and given back by a process of its own, the *keeper*, as
soon as the one that changed it is gone, whatever ended that. Only if the keeper is killed as well
does the card go on stamping: it costs little, and `hwstamp_ctl -i DEVICE -r 0` ends it.
"""

import array
import contextlib
import errno
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import NamedTuple

from kproxy.errors import MeasurementError, UsageError
from kproxy.traffic.phc import CardClock

_SIOCETHTOOL, _SET, _GET = 0x8946, 0x89B0, 0x89B1
_GET_DRIVER, _GET_TS_INFO = 0x03, 0x41
_DRIVER_SIZE, _DRIVER_NAME = 196, slice(4, 36)
_TS_INFO = struct.Struct("=IIiI12xI12x")
_CONFIG = struct.Struct("=iii")
_RX_HARDWARE, _RAW_HARDWARE = 1 << 2, 1 << 6
_FILTER_ALL = 1
_KEEPER_SECONDS = 10.0
_SOFTWARE = "--timestamps software"


class Stamps(StrEnum):
    """By whom arrivals are stamped; AUTO: by the card if it can, otherwise by the kernel."""

    AUTO = "auto"
    SOFTWARE = "software"
    HARDWARE = "hardware"


class Ability(NamedTuple):
    """What a card says of itself (`ethtool -T`): flags of SO_TIMESTAMPING, PHC, bits of filters.

    ``clock`` is -1 where there is none.
    """

    flags: int
    clock: int
    filters: int

    def obstacle(self) -> str:
        """Return why ordinary packets cannot be stamped; empty: they can."""
        if not self.flags & _RX_HARDWARE or not self.flags & _RAW_HARDWARE:
            return "it cannot stamp arrivals (no hardware-receive, hardware-raw-clock)"
        if not self.filters & 1 << _FILTER_ALL:
            return "it stamps only packets of PTP (no receive filter mode all)"
        if self.clock < 0:
            return "it has no clock that could be read (PTP Hardware Clock: none)"
        return ""


class Config(NamedTuple):
    """What a card is told to stamp: struct hwtstamp_config."""

    flags: int
    transmit: int
    receive: int


def driver(name: str) -> str:
    """Return the driver of an interface; "" if it does not say."""
    said = _ethtool(name, _GET_DRIVER, _DRIVER_SIZE)[_DRIVER_NAME]
    return said.partition(b"\0")[0].decode(errors="replace")


def ability(name: str) -> Ability:
    """Return what a card can; a kernel or driver that does not answer can nothing."""
    _, flags, clock, _, filters = _TS_INFO.unpack(_ethtool(name, _GET_TS_INFO, _TS_INFO.size))
    return Ability(flags, clock if flags else -1, filters)


def _ethtool(name: str, command: int, size: int) -> bytes:
    block = bytearray(struct.pack("=I", command).ljust(size, b"\0"))
    try:
        return _ask(name, _SIOCETHTOOL, block)
    except OSError:
        return bytes(size)


def _ask(name: str, request: int, block: bytes | bytearray) -> bytes:
    """Do an ioctl of a device whose argument is behind a pointer. OSError."""
    behind = array.array("B", block)
    wanted = struct.pack("16sP", name.encode(), behind.buffer_info()[0]).ljust(40, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, request, wanted)
    return behind.tobytes()


def config(name: str) -> Config:
    """Return what a card is told to stamp. OSError."""
    return Config._make(_CONFIG.unpack(_ask(name, _GET, bytes(_CONFIG.size))))


def configure(name: str, wanted: Config) -> Config:
    """Tell a card what to stamp; returns what it has made of it. OSError."""
    return Config._make(_CONFIG.unpack(_ask(name, _SET, _CONFIG.pack(*wanted))))


@contextlib.contextmanager
def arrivals(
    wanted: Stamps, interface: str, tell: Callable[[str], None]
) -> Iterator[CardClock | None]:
    """Have a card stamp arrivals in the body; gives its clock (None: the kernel stamps).

    UsageError: HARDWARE is wanted and cannot be, with the card, what it lacks and what to do.
    For AUTO ``tell`` is called with that instead.
    """
    with contextlib.ExitStack() as stack:
        clock = None
        if wanted is not Stamps.SOFTWARE:
            try:
                clock = stack.enter_context(_clock(interface))
                stack.enter_context(_stamping(interface))
            except UsageError as error:
                if wanted is Stamps.HARDWARE:
                    why = f"--timestamps hardware: {error.message}"
                    raise UsageError(why, remedy=error.remedy) from None
                stack.close()
                clock = None
                tell(f"arrivals are stamped by the kernel: {error.message}")
        yield clock


def _clock(interface: str) -> CardClock:
    if not interface:
        raise UsageError("which card is to stamp is not known", remedy="give --interface")
    found = ability(interface)
    if why := found.obstacle():
        raise _refusal(interface, why)
    return CardClock(found.clock)


def _refusal(interface: str, why: str) -> UsageError:
    return UsageError(
        f"{interface} (driver {driver(interface) or 'unknown'}): {why}",
        remedy=f"`ethtool -T {interface}` tells what a card can; another card, or {_SOFTWARE}",
    )


@contextlib.contextmanager
def _stamping(interface: str) -> Iterator[None]:
    try:
        before = config(interface)
    except OSError as error:
        raise _refusal(
            interface,
            f"its driver does not tell how it is set ({error.strerror}), so that could not be "
            "given back",
        ) from None
    if before.receive == _FILTER_ALL:  # somebody else has told it to, and may need it
        yield
        return
    with _kept(interface, before):
        _enable(interface, before)
        yield


def _enable(interface: str, before: Config) -> None:
    try:
        made = configure(interface, before._replace(receive=_FILTER_ALL))
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise UsageError(
                f"{interface} may not be told to stamp: {error.strerror}",
                remedy=f"run as root (CAP_NET_ADMIN), or {_SOFTWARE}",
            ) from None
        why = f"it refuses to stamp all packets ({error.strerror})"
        raise _refusal(interface, why) from None
    if made.receive != _FILTER_ALL:
        raise _refusal(interface, f"it stamps only some packets (filter {made.receive})")


@contextlib.contextmanager
def _kept(interface: str, before: Config) -> Iterator[None]:
    """Give a setting back after the body; the keeper does it, also when this process is killed."""
    words = [sys.executable, "-m", "kproxy.traffic.hwstamp", interface, *map(str, before)]
    # In a session of its own: a Ctrl-C of the terminal is not for it.
    keeper = subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True)
    assert keeper.stdin is not None
    try:
        yield
    finally:
        keeper.stdin.close()
        try:
            code = keeper.wait(_KEEPER_SECONDS)
        except subprocess.TimeoutExpired:
            code = -1
    if code:
        raise MeasurementError(
            f"{interface} could not be told to stamp as it did before",
            remedy=f"`hwstamp_ctl -i {interface} -t {before.transmit} -r {before.receive}`",
        )


def keep(interface: str, before: Config) -> int:
    """Be the keeper: wait for the end of standard input, then give a setting back."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 4096):
        pass
    try:
        configure(interface, before)
    except OSError as error:
        print(f"kproxy: {interface}: its stamps are not as before: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1], Config(*map(int, sys.argv[2:5]))))

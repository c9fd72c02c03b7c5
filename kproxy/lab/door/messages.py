"""What client, owner and door of a lab say to each other. Pure.

A session is one command. Client and owner speak frames of one session; owner and door put its
number before each payload. Session 0 is between owner and door themselves.

Nobody sends more than was asked for: the door takes CREDIT bytes of input, and gives CREDIT bytes
of output, and as much again as the other side says (TAKEN) that it has dealt with.
"""

import struct
from typing import Any

import msgspec

from kproxy.lab.clusterfile import ClusterFile
from netns.kernels import frames
from netns.kernels.frames import (
    CLOSED,
    CREDIT,
    EXITED,
    LARGEST,
    RESIZED,
    SIGNAL,
    STDERR,
    STDIN,
    STDOUT,
    TAKEN,
    TTY,
    Decoder,
    numbers,
    pack,
    pack_number,
)

__all__ = [
    "CLOSED", "CREDIT", "EXITED", "LARGEST", "RESIZED", "SIGNAL", "STDERR", "STDIN", "STDOUT",
    "TAKEN", "TTY", "Decoder", "numbers", "pack", "pack_number",
]  # fmt: skip

OPEN = 64  # client: a Start
REFUSED = 65  # door, owner: why there is no such session (text); its end
GONE = 66  # owner: the client is away
# Session 0.
JOB = 67  # owner: a Job, the first frame of all
PROGRESS = 68  # door: what it does now (text)
READY = 69  # door: a Report
FAILED = 70  # door: a Failure; its end

_SESSION = struct.Struct(">I")


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """A command. ``host``: a host of the lab; empty: beside them all, on the lab's kernel.

    ``tty``: which of the three streams are a terminal, ``window``: its rows and columns, ``keys``:
    whether keys come from it.
    """

    host: str
    argv: list[str]
    env: dict[str, str] = {}
    cwd: str = "/"
    tty: tuple[bool, bool, bool] = (False, False, False)
    window: tuple[int, int] = (0, 0)
    keys: bool = False


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A lab to be started. ``state_dir`` empty: the default one.

    ``take_default_route``: a card may be taken that carries the machine's default route.
    """

    file: ClusterFile
    objects: list[dict[str, Any]] = []
    state_dir: str = ""
    wait_s: float = 300.0
    take_default_route: bool = False


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was started. ``problems``: objects that were refused, in words."""

    took_s: float
    problems: list[str] = []


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no lab. ``code`` is the exit code."""

    message: str
    remedy: str = ""
    code: int = 1


def pack_for(session: int, kind: int, payload: bytes = b"") -> bytes:
    """Return a frame between owner and door."""
    return frames.pack(kind, _SESSION.pack(session) + payload)


def split(payload: bytes) -> tuple[int, bytes]:
    """Return the session and the rest of a payload between owner and door."""
    return _SESSION.unpack_from(payload)[0], payload[_SESSION.size :]

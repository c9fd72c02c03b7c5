"""The sending process (:mod:`kproxy.traffic.udp_send`), told over pipes what to do."""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from types import TracebackType
from typing import Any, Self

from kproxy.errors import MeasurementError
from kproxy.traffic import profile
from kproxy.traffic.remote import channel

START_SECONDS = 60.0
END_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class Generator:
    """One process that sends. Its files are in memory: nothing can be left behind."""

    def __init__(self) -> None:
        self._profile_fd, self._profile = channel.fresh_file("kproxy-profile")
        self._record_fd, self.record = channel.fresh_file("kproxy-sent")
        # In a session of its own: a Ctrl-C of the terminal is for us, who tell it to stop.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kproxy.traffic.udp_send"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(self._profile_fd, self._record_fd),
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        self._rest = b""
        self.answer("ready")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Return what to wait for."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def start(self, wanted: profile.UdpProfile) -> int:
        """Begin to send; return when that was."""
        os.ftruncate(self._profile_fd, 0)
        os.pwrite(self._profile_fd, wanted.to_json().encode(), 0)
        self.tell("start", profile=self._profile)
        return int(self.answer("started")["mono_ns"])

    def tell(self, do: str, **fields: Any) -> None:
        """Send a command."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise MeasurementError("the sending process has died") from None

    def said(self) -> list[dict[str, Any]]:
        """Return what it has said; call it when there is something to read."""
        data = os.read(self.fileno(), 1 << 16)
        if not data:
            raise MeasurementError("the sending process has died")
        *lines, self._rest = (self._rest + data).split(b"\n")
        found = [json.loads(line) for line in lines if line.strip()]
        for one in found:
            if one["event"] == "error":
                raise MeasurementError(str(one["message"]))
        return found

    def answer(self, event: str, timeout: float = START_SECONDS) -> dict[str, Any]:
        """Wait for an answer; others that come before are left out."""
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self], [], [], left)[0]:
                raise MeasurementError(f"the sending process does not say {event!r}")
            for one in self.said():
                if one["event"] == event:
                    return one

    def close(self) -> None:
        """End the process; its records go with this object."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):  # of a dead process
            self._process.stdin.close()  # the end of input ends it
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(END_SECONDS)
        self._process.stdout.close()
        os.close(self._profile_fd)


def _end_with_parent() -> None:
    """Have this process ended when the one that tells it what to do is gone.

    As :mod:`netns.process` does it, which only the lab may use.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)

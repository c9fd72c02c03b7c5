"""Structured log lines: one JSON object each, on standard error.

The lab reads its time line (process started, synced, …) from these lines, so each carries the
monotonic clock, which all processes on one kernel share. The standard library's ``logging`` is
not used because importing it would lengthen every restart of the proxy.

A line: ``{"time": RFC 3339, "mono_ns": int, "level": "info", "who": "proxy", "msg": "synced"}``.
"""

import sys
import time
from typing import Any, TextIO

import msgspec

from kproxy import rfc3339

LEVELS = ("debug", "info", "warning", "error")
_encoder = msgspec.json.Encoder()


class Log:
    """Writes the lines of one component. Safe to use from several threads."""

    def __init__(self, who: str, level: str = "info", stream: TextIO | None = None) -> None:
        self.who = who
        self._least = LEVELS.index(level)
        self._stream = stream

    def debug(self, msg: str, **fields: Any) -> None:
        """Write a line for developers."""
        self._write("debug", msg, fields)

    def info(self, msg: str, **fields: Any) -> None:
        """Write an event that an operator may want to see."""
        self._write("info", msg, fields)

    def warning(self, msg: str, **fields: Any) -> None:
        """Write something that went wrong and was dealt with."""
        self._write("warning", msg, fields)

    def error(self, msg: str, **fields: Any) -> None:
        """Write something that went wrong and was not."""
        self._write("error", msg, fields)

    def _write(self, level: str, msg: str, fields: dict[str, Any]) -> None:
        if LEVELS.index(level) < self._least:
            return
        line = {
            "time": rfc3339.microtime(time.time()),
            "mono_ns": time.monotonic_ns(),
            "level": level,
            "who": self.who,
            "msg": msg,
            **fields,
        }
        stream = self._stream or sys.stderr
        # One write per line: lines of several threads or processes must not mix.
        stream.write(_encoder.encode(line).decode() + "\n")
        stream.flush()

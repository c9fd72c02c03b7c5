"""What a balancer knew when it was alive, in a file: a new one goes on with it.

Without it a balancer that starts while the API is away would know of no Service, take away what
still works, and be unable to reach the API by the address that it is to serve itself.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from kproxy import logs

from .fronts import Front
from .health import Probe


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """The fronts, and who was well."""

    fronts: tuple[Front, ...] = ()
    well: tuple[Probe, ...] = ()


class MemoryFile:
    """The file; ``path`` None: nothing is remembered. Writes only what has changed."""

    def __init__(self, path: Path | None, log: logs.Log) -> None:
        self._path = path
        self._log = log
        self._last = b""

    def load(self) -> Memory:
        """Return what the file holds; nothing, if it is not there or not whole."""
        if self._path is None:
            return Memory()
        try:
            self._last = self._path.read_bytes()
            return msgspec.json.decode(self._last, type=Memory)
        except FileNotFoundError:
            return Memory()
        except (OSError, msgspec.DecodeError) as error:
            self._log.warning("what was remembered cannot be read", error=str(error))
            return Memory()

    def save(self, fronts: Iterable[Front], well: Iterable[Probe]) -> None:
        """Write the file as a whole or not at all; what goes wrong is logged."""
        if self._path is None:
            return
        data = msgspec.json.encode(Memory(fronts=tuple(fronts), well=tuple(well)))
        if data == self._last:
            return
        partial = self._path.with_name(f".{self._path.name}.new")
        try:
            partial.write_bytes(data)
            partial.replace(self._path)
        except OSError as error:
            self._log.warning("what is known cannot be written", error=str(error))
        self._last = data

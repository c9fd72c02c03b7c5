"""What containers write, kept in files as container runtimes keep it: a time before every line.

A container's stdout and stderr are named pipes, which it holds open for reading, too: so neither
it nor its pipe dies with the kubelet, whose successor opens the pipe by its name and reads on.
What is written meanwhile waits in the pipe (256 KiB; then the container waits). Lines go to
``PODS/NAMESPACE_NAME_UID/CONTAINER/ATTEMPT.log`` in the format of the Container Runtime Interface,
``TIME STREAM F|P TEXT``, in pieces of at most 10 MiB, of which five are kept.

A program of ours whose lines carry their own time gets a file without anybody in between
(``own_log``); of such a file only the place where each start begins is written down here.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kproxy import rfc3339
from kproxy.controlplane.runtime import LogFiles

PIPE_BYTES = 256 * 1024
READ_BYTES = 64 * 1024
LONGEST_LINE = 16 * 1024
PIECE_BYTES = 10 * 1024 * 1024
PIECES = 5
STREAMS = ("stdout", "stderr")


@dataclass(frozen=True, slots=True)
class LogPlace:
    """The log of one start of one container: its directory, and which start it is."""

    directory: Path
    attempt: int

    @property
    def current(self) -> Path:
        """Return the file that grows."""
        return self.directory / f"{self.attempt}.log"

    @property
    def note(self) -> Path:
        """Return the file that says where in a program's own log this start begins."""
        return self.directory / f"{self.attempt}.own"

    def pipe(self, stream: str) -> Path:
        """Return the named pipe of a stream."""
        return self.directory / f"{self.attempt}.{stream}"

    def pieces(self) -> list[Path]:
        """Return the files that were full, the oldest first."""
        found = self.directory.glob(f"{self.attempt}.log.*")
        return sorted(found, key=lambda path: int(path.suffix[1:]))


class Tap:
    """One stream of a container: reads its pipe, writes its lines."""

    def __init__(self, place: LogPlace, stream: str, wall_ns: Callable[[], int]) -> None:
        self._place = place
        self._stream = stream.encode()
        self._wall_ns = wall_ns
        self._pipe = place.pipe(stream)
        self._rest = b""
        self._fd = os.open(self._pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        """Return the pipe's descriptor."""
        return self._fd

    def read(self) -> bool:
        """Write down what is there; return False when the stream has ended.

        Not more at once than a pipe holds: who writes without end must not hold up the others. So
        after the end of a container one call reads all that it has written.
        """
        for _ in range(PIPE_BYTES // READ_BYTES):
            try:
                data = os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                return True
            # A full disk costs lines, and so does a pod that is gone: never the kubelet.
            with contextlib.suppress(OSError):
                self._write(data, last=not data)
            if not data:
                return False
        return True

    def close(self, *, ended: bool) -> None:
        """Stop reading; the pipe stays for a successor unless the stream has ended."""
        os.close(self._fd)
        if ended:
            self._pipe.unlink(missing_ok=True)

    def _write(self, data: bytes, *, last: bool) -> None:
        head = self._head()
        *lines, rest = (self._rest + data).split(b"\n")
        out = [piece for line in lines for piece in _pieces(head, line)]
        while len(rest) >= LONGEST_LINE:
            out.append(_line(head, rest[:LONGEST_LINE], b"P"))
            rest = rest[LONGEST_LINE:]
        if last and rest:
            out.append(_line(head, rest, b"F"))
            rest = b""
        self._rest = rest
        if out:
            with self._place.current.open("ab") as file:
                file.write(b"".join(out))
                full = file.tell() >= PIECE_BYTES
            if full:
                self._rotate()

    def _head(self) -> bytes:
        """Return what all lines begin with that are read at once."""
        return rfc3339.nanotime(self._wall_ns()).encode() + b" " + self._stream + b" "

    def _rotate(self) -> None:
        old = self._place.pieces()
        number = int(old[-1].suffix[1:]) + 1 if old else 1
        self._place.current.rename(self._place.current.with_suffix(f".log.{number}"))
        self._place.current.touch()
        for path in old[: max(len(old) - PIECES + 2, 0)]:
            path.unlink(missing_ok=True)


def _pieces(head: bytes, line: bytes) -> Iterator[bytes]:
    while len(line) > LONGEST_LINE:
        yield _line(head, line[:LONGEST_LINE], b"P")
        line = line[LONGEST_LINE:]
    yield _line(head, line, b"F")


def _line(head: bytes, text: bytes, tag: bytes) -> bytes:
    return head + tag + b" " + text + b"\n"


class PodLogs:
    """The logs of one node's pods, below one directory."""

    def __init__(self, root: Path, wall_ns: Callable[[], int] = time.time_ns) -> None:
        self._root = root
        self._wall_ns = wall_ns

    def place(self, namespace: str, name: str, uid: str, container: str, start: int) -> LogPlace:
        """Return where a start of a container logs; its directory is made.

        Of the starts before only the last one is kept, as Kubernetes does it.
        """
        directory = self._root / f"{namespace}_{name}_{uid}" / container
        directory.mkdir(parents=True, exist_ok=True)
        for path in directory.iterdir():
            number, _, kind = path.name.partition(".")
            if int(number) < start - 1 and kind not in STREAMS:
                path.unlink(missing_ok=True)
        return LogPlace(directory, start)

    @contextlib.contextmanager
    def open(self, place: LogPlace) -> Iterator[tuple[list[Tap], list[int]]]:
        """Make the pipes of a start: give their readers, and what the container gets.

        The container's ends are closed when the block ends, its readers if it fails.
        """
        place.current.touch()
        taps: list[Tap] = []
        ends: list[int] = []
        try:
            for stream in STREAMS:
                place.pipe(stream).unlink(missing_ok=True)
                os.mkfifo(place.pipe(stream), 0o600)
                taps.append(Tap(place, stream, self._wall_ns))
                ends.append(os.open(place.pipe(stream), os.O_RDWR | os.O_CLOEXEC))
                with contextlib.suppress(OSError):  # an unprivileged user has less room
                    fcntl.fcntl(ends[-1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            yield taps, ends
        except BaseException:
            for tap in taps:
                tap.close(ended=True)
            raise
        finally:
            for end in ends:
                os.close(end)

    def left(self) -> Iterator[Tap]:
        """Yield readers of the pipes that a former kubelet left."""
        for stream in STREAMS:
            for path in sorted(self._root.glob(f"*/*/*.{stream}")):
                place = LogPlace(path.parent, int(path.stem))
                yield Tap(place, stream, self._wall_ns)

    def note_own(self, place: LogPlace, log: Path) -> None:
        """Write down where in a program's own log a start begins."""
        begin = log.stat().st_size if log.exists() else 0
        place.note.write_text(f"{begin} {log}")

    def find(self, uid: str, container: str, attempt: int) -> LogFiles | None:
        """Return the log of one start; None: there is none."""
        for directory in self._root.glob(f"*_{uid}/{container}"):
            place = LogPlace(directory, attempt)
            if place.note.exists():
                begin, path = place.note.read_text().split(" ", 1)
                following = LogPlace(directory, attempt + 1).note
                end = int(following.read_text().split(" ", 1)[0]) if following.exists() else None
                return LogFiles(paths=(Path(path),), plain=True, begin=int(begin), end=end)
            if place.current.exists() or place.pieces():
                return LogFiles(paths=(*place.pieces(), place.current))
        return None

    def forget(self, uid: str) -> None:
        """Remove the logs of a pod; absent is fine."""
        for directory in self._root.glob(f"*_{uid}"):
            shutil.rmtree(directory, ignore_errors=True)

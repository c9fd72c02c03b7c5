"""The single door of the proxy to other programs.

Only the packet filter tools are worth a process; everything else is asked of the kernel directly.
"""

import os
import select
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO, Protocol

import msgspec

from kproxy.errors import KernelError, Unsupported

TIMEOUT_S = 60.0
"""A tool that takes longer hangs, unless it has much to write."""


class Completed(msgspec.Struct, frozen=True):
    """What came of an execution. ``returncode`` is negative if a signal ended the program."""

    argv: Sequence[str]
    returncode: int
    stdout: bytes
    stderr: str


class ExecerClient(Protocol):
    """What :class:`Execer` and :class:`FakeExecer` have in common."""

    def run(
        self,
        argv: Sequence[str],
        stdin: bytes = b"",
        *,
        timeout_s: float = TIMEOUT_S,
        inherit: Sequence[int] = (),
    ) -> Completed:
        """Run a program to its end. Its failing is not an error here: see ``returncode``.

        It keeps the file descriptors of ``inherit``, also when this process dies meanwhile.

        Unsupported: there is no such program. KernelError: it could not be started, for want of
        memory or the like, or did not end in time and was killed.
        """


class Execer:
    """Runs programs, in the caller's namespaces and without a shell."""

    def run(
        self,
        argv: Sequence[str],
        stdin: bytes = b"",
        *,
        timeout_s: float = TIMEOUT_S,
        inherit: Sequence[int] = (),
    ) -> Completed:
        """Run a program to its end (see :class:`ExecerClient`)."""
        try:
            # Files in memory, not pipes: 50 MB of rules go through without being copied twice.
            with _memory(stdin) as source, _memory() as output, _memory() as complaints:
                pid = _spawn(argv, (source, output, complaints), inherit)
                status = _wait(pid, timeout_s, argv)
                texts = [_contents(file) for file in (output, complaints)]
        except InterruptedError:
            raise  # by a signal, whose handler made the caller give up
        except OSError as error:
            # No memory, process or file descriptor for it, or the file is no program.
            raise KernelError(
                f"execute {argv[0]}", error.errno or 0, error.strerror or str(error)
            ) from error
        returncode = os.waitstatus_to_exitcode(status)
        return Completed(argv, returncode, texts[0], texts[1].decode(errors="replace"))


def _spawn(argv: Sequence[str], streams: Sequence[BinaryIO], inherit: Sequence[int]) -> int:
    """Start a program; return its pid. Raises as :meth:`ExecerClient.run`.

    Not by the module subprocess: importing that takes longer than a small tool runs.
    """
    actions = [(os.POSIX_SPAWN_DUP2, file.fileno(), number) for number, file in enumerate(streams)]
    actions += [(os.POSIX_SPAWN_DUP2, number, number) for number in inherit]  # is kept at exec
    try:
        return os.posix_spawnp(
            argv[0],
            tuple(argv),
            os.environ,
            file_actions=actions,
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # which the interpreter ignores
        )
    except FileNotFoundError as error:
        raise Unsupported(
            f"{argv[0]}: no such program", remedy=f"install the package that has {argv[0]}"
        ) from error
    except PermissionError as error:
        raise Unsupported(f"{argv[0]}: may not be executed") from error


def _wait(pid: int, timeout_s: float, argv: Sequence[str]) -> int:
    """Wait for a child's end; return its status. KernelError: it took too long, and was killed."""
    ended = False
    try:
        ended = _ends_within(pid, timeout_s)
    finally:  # also when a signal makes the caller give up
        if not ended:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    if not ended:
        raise KernelError(" ".join(argv), 0, f"did not end within {timeout_s:g} s and was killed")
    return os.waitpid(pid, 0)[1]


def _ends_within(pid: int, timeout_s: float) -> bool:
    handle = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))
    finally:
        os.close(handle)


def _memory(contents: bytes = b"") -> BinaryIO:
    file = os.fdopen(os.memfd_create("kproxy", os.MFD_CLOEXEC), "w+b", buffering=0)
    view = memoryview(contents)
    while view:  # one write takes at most 2 GB
        view = view[file.write(view) :]
    file.seek(0)
    return file


def _contents(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def find_program(name: str) -> str | None:
    """Return the path of a program in PATH, or None.

    ``shutil.which`` does the same, but its module imports every compression library.
    """
    for directory in os.get_exec_path():
        path = os.path.join(directory, name)  # noqa: PTH118  quicker than pathlib
        if os.access(path, os.X_OK) and not os.path.isdir(path):  # noqa: PTH112  the same
            return path
    return None


class FakeExecer:
    """Answers in place of the programs it was given, and remembers what was run."""

    def __init__(
        self, programs: Mapping[str, Callable[[Sequence[str], bytes], Completed]]
    ) -> None:
        self.programs = programs
        self.ran: list[tuple[Sequence[str], bytes]] = []

    def run(
        self,
        argv: Sequence[str],
        stdin: bytes = b"",
        *,
        timeout_s: float = TIMEOUT_S,
        inherit: Sequence[int] = (),
    ) -> Completed:
        """Let the stand-in of the program answer. Unsupported: there is none."""
        self.ran.append((argv, stdin))
        if argv[0] not in self.programs:
            raise Unsupported(f"{argv[0]}: no such program")
        return self.programs[argv[0]](argv, stdin)

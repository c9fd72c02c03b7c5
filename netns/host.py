"""A host of a running lab: programs are started in it and Python functions called in it."""

import contextlib
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, ParamSpec, TypeVar

from netns import link, namespace
from netns.errors import CommandFailed, NetnsError
from netns.impairment import Impairment
from netns.journal import Journal, namespace_name
from netns.process import Process, ProcessId, members
from netns.topology import Interface, Route

P = ParamSpec("P")
T = TypeVar("T")

Stream = int | IO[bytes] | IO[str] | Path | None
Command = Sequence[str | Path]


class LiveHost:
    """One host. Get it from :meth:`netns.lab.Lab.host`; it does not own anything.

    Every program leads a process group of its own (a Ctrl-C at the terminal reaches the lab only,
    which then tears down in order) and is written down in the journal. It ends at the latest with
    the host: then all processes in the host's namespace are killed, grandchildren included.
    """

    def __init__(self, name: str, lab: str, journal: Journal, started: list[Process]) -> None:
        self.name = name
        self.namespace = namespace_name(lab, name)
        self._journal = journal
        self._started = started

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """The host's interfaces as they are now, with their MACs."""
        return tuple(self._journal.ledger().topology.interfaces(self.name))

    def interface(self, name: str) -> Interface:
        """One interface. Raises :class:`NetnsError` if there is none of this name."""
        for interface in self.interfaces:
            if interface.name == name:
                return interface
        raise NetnsError(f"host {self.name} has no interface {name!r}")

    def impair(self, interface: str, impairment: Impairment | None) -> None:
        """Impair from now on what an interface sends; None: no longer.

        Raises :class:`netns.errors.NetnsError` if there is no such interface, or the kernel has no
        ``netem``. What :attr:`interfaces` says stays as the topology was declared.
        """
        if impairment is not None:
            impairment.check(f"interface {self.name}:{interface}")
        with link.netlink(self.namespace) as ipr:
            link.impair(ipr, interface, impairment)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is in the host for the block: sockets made there stay in the host.

        Never await in the block, and do not leave it in another thread.
        """
        with namespace.entered(self.namespace):
            yield

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function while the calling thread is in the host; see :meth:`entered`."""
        with self.entered():
            return function(*args, **kwargs)

    def spawn(
        self,
        command: Command,
        *,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = None,
        stderr: Stream = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Process:
        """Start a program in the host and return at once.

        Streams are as for :class:`subprocess.Popen`, or a path of a file to append to. Pipes are
        at ``process.popen``. Raises :class:`CommandFailed` if the program cannot be started.
        """
        process = self._start(command, (stdin, stdout, stderr), env, cwd, pass_fds)
        # Who has been waited for needs nobody who remembers: each holds a descriptor.
        for ended in [one for one in self._started if one.waited_for]:
            with contextlib.suppress(ValueError):  # another thread was faster
                self._started.remove(ended)
        self._started.append(process)
        return process

    def _start(
        self,
        command: Command,
        streams: tuple[Stream, Stream, Stream],
        env: Mapping[str, str] | None,
        cwd: Path | None,
        pass_fds: Sequence[int] = (),
    ) -> Process:
        with contextlib.ExitStack() as stack:
            stdin, stdout, stderr = (_opened(each, stack) for each in streams)
            stack.enter_context(self.entered())
            # The child inherits the namespace of the calling thread; no preexec_fn, hence vfork.
            try:
                popen = subprocess.Popen(
                    list(command),
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    env=env,
                    cwd=cwd,
                    pass_fds=pass_fds,
                    process_group=0,
                )
            except OSError as problem:
                text = f"host {self.name}: cannot start {command[0]}: {problem.strerror}"
                raise CommandFailed(text, returncode=None) from problem
        identity = ProcessId.of(popen.pid)
        assert identity is not None  # a child stays at least a zombie until it is waited for
        process = Process(identity, popen=popen)
        self._journal.process(self.name, identity)
        return process

    def run(
        self,
        command: Command,
        *,
        timeout: float = 60.0,
        check: bool = True,
        input: bytes | str | None = None,  # noqa: A002  the word of subprocess.run
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the host to its end; its output as text.

        Raises :class:`CommandFailed` after ``timeout`` seconds (the program's whole process group
        is killed then) and, if ``check``, for any exit status but 0.
        """
        pipe = subprocess.PIPE
        stdin = subprocess.DEVNULL if input is None else pipe
        process = self._start(command, (stdin, pipe, pipe), env, cwd)
        popen = process.popen
        assert popen is not None
        data = input.encode() if isinstance(input, str) else input
        try:
            out, err = popen.communicate(data, timeout)
        except subprocess.TimeoutExpired as late:
            process.kill(group=True)
            out, err = popen.communicate()
            text = f"host {self.name}: {_shown(command)}: still running after {timeout:g} s"
            output = (out + err).decode(errors="replace")
            raise CommandFailed(text, returncode=None, output=output) from late
        except BaseException:
            process.kill(group=True)
            popen.communicate()
            raise
        stdout, stderr = out.decode(errors="replace"), err.decode(errors="replace")
        if check and popen.returncode != 0:
            last = (stderr.strip() or stdout.strip()).rpartition("\n")[2]
            text = f"host {self.name}: {_shown(command)}: {_status(popen.returncode)}: {last}"
            raise CommandFailed(text, returncode=popen.returncode, output=stdout + stderr)
        return subprocess.CompletedProcess(list(command), popen.returncode, stdout, stderr)

    def processes(self) -> list[Process]:
        """Everything that runs in the host now, whoever started it."""
        identity = namespace.identity(self.namespace)
        found = []
        for each in members({identity} if identity else set()):
            with contextlib.suppress(NetnsError):  # ended meanwhile
                found.append(Process(each))
        return found

    def set_route(self, route: Route) -> None:
        """Add a route, or replace the one to the same destination."""
        with link.netlink(self.namespace) as ipr:
            link.set_route(ipr, self.name, route)

    def delete_route(self, route: Route) -> None:
        """Delete a route. Absent is fine."""
        with link.netlink(self.namespace) as ipr:
            link.set_route(ipr, self.name, route, delete=True)

    def __repr__(self) -> str:
        return f"LiveHost({self.name!r})"


def _opened(stream: Stream, stack: contextlib.ExitStack) -> int | IO[bytes] | IO[str] | None:
    return stack.enter_context(stream.open("ab")) if isinstance(stream, Path) else stream


def _shown(command: Command) -> str:
    text = " ".join(str(part) for part in command)
    return text if len(text) <= 80 else text[:77] + "..."


def _status(returncode: int) -> str:
    if returncode < 0:
        return f"killed by {signal.Signals(-returncode).name}"
    return f"exit status {returncode}"

"""User-Mode Linux: a Linux kernel that runs as processes of an ordinary user.

It needs no virtualisation, sees the host's files, and is up in two seconds. A kernel is data
(:class:`UmlKernel`): Debian's package is one, and one that is built from source is another.
"""

import contextlib
import fcntl
import os
import re
import sys
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from netns import errors
from netns.kernels import base, bytecode, channel, uml_boot, vitals, warden
from netns.kernels.base import Clock
from netns.kernels.session import Session
from netns.kernels.stall import CREPT, STALLED, StallWatch
from netns.kernels.stdio import Stdio
from netns.kernels.watch import Watch

NAME = uml_boot.NAME
FIRST_NUMBER = 500  # of descriptors that a kernel gets: beyond those that are open anyway
DEBIAN_MODULES = Path("/usr/lib/uml/modules")
# As its configuration has it: its nf_tables is for bridges only, and it has no virtual time.
DEBIAN_FEATURES = (base.Feature.IPVS, base.Feature.IPTABLES_LEGACY, base.Feature.NETEM)
EXPLANATIONS = (
    # a line on the console -> what it means, and what helps
    (
        r"UML ran out of memory on the host side",
        "the host gave it no more memory",
        "give it another size with --memory, let a place for its memory file be in TMPDIR,"
        " or raise vm.max_map_count",
    ),
    (r"deadlocked on memory", "all its memory is used up", "give it more with --memory"),
    (r"^guest: (.*)", "its first process failed: {0}", ""),
    (r"Kernel panic - not syncing: (.*)", "it panicked: {0}", ""),
    (r"(Failed to .*umid.*|.*[Cc]ouldn't .*memory.*|.*[Cc]an't .*)", "it did not start: {0}", ""),
)
# Lines of the console which say nothing: those of every boot, stacks and registers.
NOT_TELLING = (
    r"^SELinux: |^mmapper_init|ubd device 0|^\[<|^(Call Trace|Stack|Modules linked in|EFLAGS):"
    r"|^(R..|DS|FS): |^[0-9a-f ]{8,}$|^CPU: "
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UmlKernel:
    """One kernel: its program, its modules (``modules``/<version>; None: all is built in).

    ``boot`` are further boot options. ``time_travel`` tells that it was built with time travel,
    so that it has all clocks. ``entropy`` is the object to be preloaded into its process, which
    makes the kernel's random numbers follow ``$KPROXY_ENTROPY_SEED`` (None: there is none).
    ``name`` is what users call it, ``features`` is what a lab may want of it.
    """

    executable: Path
    version: str
    origin: str
    modules: Path | None = None
    boot: tuple[str, ...] = field(default=())
    time_travel: bool = False
    entropy: Path | None = None
    name: str = NAME
    features: tuple[base.Feature, ...] = field(default=())

    @property
    def clocks(self) -> Collection[Clock]:
        """All of them if it was built with time travel, otherwise the real one."""
        travels = self.time_travel or base.Feature.TIME_TRAVEL in self.features
        return tuple(Clock) if travels else (Clock.REAL,)


def debian() -> UmlKernel | None:
    """Return the kernel of Debian's package user-mode-linux, if it is installed."""
    executable = base.find_program("linux.uml")
    if executable is None:
        return None
    versions = sorted(path.name for path in DEBIAN_MODULES.glob("*") if path.is_dir())
    return UmlKernel(
        executable=Path(executable),
        version=versions[-1] if versions else "",
        origin="Debian",
        modules=DEBIAN_MODULES if versions else None,
        name="debian",
        features=DEBIAN_FEATURES,
    )


class Uml:
    """Runs commands on a User-Mode Linux kernel, Debian's if none is given."""

    name = NAME

    def __init__(self, kernel: UmlKernel | None = None, *, isolate: bool = True) -> None:
        self.kernel = kernel or debian()
        self._isolate = isolate

    @property
    def kernel_name(self) -> str | None:
        """Return the kernel's own name, if there is one."""
        return self.kernel.name if self.kernel else None

    def describe(self) -> str:
        """Return name, version and origin."""
        if self.kernel is None:
            return "User-Mode Linux"
        return f"User-Mode Linux {self.kernel.version} ({self.kernel.origin})"

    @property
    def clocks(self) -> Collection[Clock]:
        """Those of the kernel."""
        return self.kernel.clocks if self.kernel else (Clock.REAL,)

    def obstacle(self) -> base.Obstacle | None:
        """Return what is not installed, if anything."""
        if self.kernel is None or not os.access(self.kernel.executable, os.X_OK):
            return base.Obstacle(
                "User-Mode Linux is not installed", "apt-get install user-mode-linux"
            )
        if not self.kernel.version:
            return base.Obstacle(
                f"User-Mode Linux has no modules in {DEBIAN_MODULES}",
                "apt-get install --reinstall user-mode-linux",
            )
        if self.kernel.modules and base.find_program("modprobe") is None:
            return base.Obstacle("modprobe is not installed", "apt-get install kmod")
        return None

    def run(self, command: base.Command, limits: base.Limits) -> int:
        """Boot, run the command, and return its exit code; nothing stays."""
        obstacle = self.obstacle()
        if obstacle is not None:
            raise errors.KernelUnusable(obstacle.reason, remedy=obstacle.remedy)
        assert self.kernel is not None
        if command.clock not in self.clocks:
            raise errors.KernelUnusable(f"{self.describe()} has no {command.clock} clock")
        state = base.state_directory()
        memory = memory_directory(limits.memory, memory_candidates())
        bytecode.compile_packages([Path(__file__).parents[1], *command.packages])
        made = make_directories(command.writable)
        warden.repair(state)
        try:
            return self._boot(command, limits, warden.make_run_directory(state), memory)
        finally:
            remove_if_empty(made)

    def _boot(
        self, command: base.Command, limits: base.Limits, run_directory: Path, memory: Path
    ) -> int:
        assert self.kernel is not None
        stdio = Stdio()
        start = uml_boot.start_message(self.kernel, command, stdio)
        notes = run_directory / uml_boot.CHANNEL_NAME
        uml_boot.write_start(notes, start)
        with Wires() as wires:
            real = command.clock is Clock.REAL
            output = notes / channel.OUTPUT_NAME
            intake = channel.Pipe(wires.from_guest) if real else channel.File(output)
            launch = self._launch(command, limits, run_directory, memory, wires)
            watch = Watch(time.monotonic(), limits.time, answers=real)
            guard = warden.start(launch, on_loss=stdio.restore, isolate=self._isolate)
            wires.close_far_ends()
            guest = None if real else vitals.Vitals(guard.pid, self.kernel.executable)
            session = Session(
                warden=guard,
                intake=intake,
                to_guest=wires.to_guest,
                console=wires.console,
                stdio=stdio,
                watch=watch,
                passes_input=start["stdin"] is None,
                keeps_away=not real,
                stall=self._stall_watch(guest, command, limits, notes),
                doing=guest.doing if guest else None,
            )
            try:
                return self._attend(session, limits)
            finally:
                guard.dismiss()
                warden.remove(run_directory)
                intake.close()

    def _launch(
        self,
        command: base.Command,
        limits: base.Limits,
        run_directory: Path,
        memory: Path,
        wires: "Wires",
    ) -> warden.Launch:
        assert self.kernel is not None
        return warden.Launch(
            argv=uml_boot.boot_argv(self.kernel, command, limits, wires.line),
            environment={"TMPDIR": str(memory), "PATH": os.defpath}
            | uml_boot.entropy_variables(self.kernel, command.seed),
            descriptors=wires.line,
            console=wires.console_end,
            cpu=warden.choose_cpu(run_directory, os.sched_getaffinity(0)),
            run_directory=run_directory,
            fixed_layout=command.seed is not None,
        )

    def _stall_watch(
        self, guest: vitals.Vitals | None, command: base.Command, limits: base.Limits, notes: Path
    ) -> StallWatch | None:
        """Return who watches the clock, if it is one that can stand still and can be seen."""
        if guest is None or command.clock is not Clock.VIRTUAL:
            return None
        if guest.blind:
            print(
                f"{self.describe()} has no symbol {vitals.TIME}: its clock is not watched, a"
                " process that spins is ended by --time-limit only",
                file=sys.stderr,
            )
            return None
        return StallWatch(guest, limits.stall, notes, time.monotonic())

    def _attend(self, session: Session, limits: base.Limits) -> int:
        """Stay until the command has ended; return its exit code."""
        try:
            code = session.run()
        except errors.GuestFailed as failure:
            raise describe_failure(failure, self.describe(), limits) from None
        for warning in memory_warnings(session.console, limits):
            print(warning, file=sys.stderr)
        return code


class Wires:
    """The pipes between this process and a kernel: a line in both directions, and its console.

    ``line`` and ``console_end`` are the kernel's ends. Leaving closes all that is still open.
    """

    def __init__(self) -> None:
        guest_reads, self.to_guest = os.pipe()
        self.from_guest, guest_writes = os.pipe()
        self.console, self.console_end = os.pipe()
        self.line = (renumber(guest_reads), renumber(guest_writes))
        self._far_ends = [*self.line, self.console_end]
        with contextlib.suppress(OSError):  # more than this user may have
            fcntl.fcntl(self.console_end, fcntl.F_SETPIPE_SZ, base.MIB)

    def __enter__(self) -> "Wires":
        return self

    def __exit__(self, *_: object) -> None:
        self.close_far_ends()
        for descriptor in (self.to_guest, self.from_guest, self.console):
            os.close(descriptor)

    def close_far_ends(self) -> None:
        """Leave the kernel's ends to the kernel."""
        while self._far_ends:
            os.close(self._far_ends.pop())


def renumber(descriptor: int) -> int:
    """Give a descriptor a number that does not depend on which others are open.

    It becomes part of the kernel's command line, which is to be the same in every run.
    """
    number = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST_NUMBER)
    os.close(descriptor)
    return number


def memory_candidates() -> list[Path]:
    """Return where the memory file may be, the best place first; ``$TMPDIR`` before the disks."""
    wanted = [Path(os.environ["TMPDIR"])] if os.environ.get("TMPDIR") else []
    return [Path("/dev/shm"), *wanted, base.state_directory(), Path("/var/tmp")]  # noqa: S108  UML makes a file without a name in it


def memory_directory(memory: int, candidates: Iterable[Path]) -> Path:
    """Return the first directory with room for the guest's memory file, executable as it must be.

    A directory that is not there yet counts as its parent. Raises KernelUnusable.
    """
    asked = []
    for directory in candidates:
        place = next(path for path in (directory, *directory.parents) if path.is_dir())
        room = os.statvfs(place)
        free = room.f_bavail * room.f_frsize
        may_execute = not room.f_flag & os.ST_NOEXEC
        if free > memory and may_execute and os.access(place, os.W_OK):
            return place
        why = "not writable" if not os.access(place, os.W_OK) else "noexec"
        asked.append(
            f"{directory}: {free // base.MIB} MiB free" if may_execute else f"{directory}: {why}"
        )
    raise errors.KernelUnusable(
        f"no room for a memory file of {memory // base.MIB} MiB: {'; '.join(asked)}",
        remedy="a smaller --memory, or a larger /dev/shm",
    )


def explain(console: Sequence[str]) -> tuple[str, str]:
    """Return why a kernel died and the remedy, from the last lines that it printed."""
    for pattern, meaning, remedy in EXPLANATIONS:
        for line in console:
            if found := re.search(pattern, line):
                return meaning.format(*found.groups()), remedy
    return "it ended without telling why", ""


def describe_failure(
    failure: errors.GuestFailed, kernel: str, limits: base.Limits
) -> errors.GuestFailed:
    """Return the failure in words for the user."""
    reason, remedy = failure.message, ""
    if not reason:
        reason, remedy = explain(failure.console)
    elif failure.exit_code == base.EXIT_TIME_LIMIT:
        remedy = f"it is an option: --time-limit, now {limits.time:g} s"
    elif STALLED in reason or CREPT in reason:
        remedy = (
            "in virtual time, what waits has to sleep; what computes that long needs --stall, now"
            f" {limits.stall:g} s, or declares it with netns.kernels.base.computing"
        )
    telling = [line for line in failure.console if line and not re.search(NOT_TELLING, line)]
    return errors.GuestFailed(
        f"{kernel}: {reason}",
        remedy=remedy,
        console=tuple(telling),
        exit_code=failure.exit_code,
    )


def memory_warnings(console: Iterable[str], limits: base.Limits) -> list[str]:
    """Return a line for every process that the guest's kernel killed for want of memory."""
    warnings = []
    for line in console:
        if killed := re.search(r"Out of memory: Killed process \d+ \((.*?)\)", line):
            warnings.append(
                f"the embedded kernel has used up its {limits.memory // base.MIB} MiB and killed"
                f" {killed[1]} (give it more with --memory)"
            )
    return warnings


def make_directories(paths: Sequence[Path]) -> list[Path]:
    """Make directories and return those that were not there, the innermost first."""
    made: list[Path] = []
    for path in paths:
        missing = [one for one in (path, *path.parents) if not one.exists()]
        path.mkdir(parents=True, exist_ok=True)
        made.extend(missing)
    return made


def remove_if_empty(paths: Sequence[Path]) -> None:
    """Remove directories in which nothing was left."""
    for path in paths:
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()

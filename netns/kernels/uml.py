"""User-Mode Linux: a Linux kernel that runs as processes of an ordinary user.

It needs no virtualisation, sees the host's files, and is up in two seconds. A kernel is data
(:class:`UmlKernel`): Debian's package is one, and one that is built from source is another.
"""

import os
import re
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netns import errors
from netns.kernels import base, bytecode, modules, warden
from netns.kernels.session import Session
from netns.kernels.stdio import Stdio
from netns.kernels.watch import Watch

NAME = "uml"
DEBIAN_MODULES = Path("/usr/lib/uml/modules")
# As its configuration has it: its nf_tables is for bridges only, and it has no virtual time.
DEBIAN_FEATURES = (base.Feature.IPVS, base.Feature.IPTABLES_LEGACY, base.Feature.NETEM)
SYSCTL = {
    "kernel.printk": "4 4 1 4",
    # One kernel holds the tables of all nodes of a lab.
    "net.netfilter.nf_conntrack_max": "1048576",
    "net.ipv4.neigh.default.gc_thresh1": "16384",
    "net.ipv4.neigh.default.gc_thresh2": "32768",
    "net.ipv4.neigh.default.gc_thresh3": "65536",
    "net.ipv6.neigh.default.gc_thresh1": "16384",
    "net.ipv6.neigh.default.gc_thresh2": "32768",
    "net.ipv6.neigh.default.gc_thresh3": "65536",
    # Sockets of the traffic generators hold two seconds of packets.
    "net.core.rmem_max": "67108864",
    "net.core.wmem_max": "67108864",
}
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

    def describe(self) -> str:
        """Return name, version and origin."""
        if self.kernel is None:
            return "User-Mode Linux"
        return f"User-Mode Linux {self.kernel.version} ({self.kernel.origin})"

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
        guest_reads, line_out = os.pipe()
        line_in, guest_writes = os.pipe()
        console, console_end = os.pipe()
        launch = warden.Launch(
            argv=boot_argv(self.kernel, limits, run_directory, (guest_reads, guest_writes)),
            environment={"TMPDIR": str(memory), "HOME": str(run_directory), "PATH": os.defpath},
            descriptors=(guest_reads, guest_writes),
            console=console_end,
            cpu=warden.choose_cpu(run_directory, os.sched_getaffinity(0)),
            run_directory=run_directory,
        )
        watch = Watch(time.monotonic(), limits.time)
        guard = warden.start(launch, on_loss=stdio.restore, isolate=self._isolate)
        for descriptor in (guest_reads, guest_writes, console_end):
            os.close(descriptor)
        session = Session(
            warden=guard, line=(line_in, line_out), console=console, stdio=stdio, watch=watch
        )
        try:
            code = session.run(start_message(self.kernel, command, stdio))
            for warning in memory_warnings(session.console, limits):
                print(warning, file=sys.stderr)
            return code
        except errors.GuestFailed as failure:
            raise describe_failure(failure, self.describe(), limits) from None
        finally:
            guard.dismiss()
            warden.remove(run_directory)
            for descriptor in (line_in, line_out, console):
                os.close(descriptor)


def boot_argv(
    kernel: UmlKernel, limits: base.Limits, run_directory: Path, line: tuple[int, int]
) -> list[str]:
    """Return the command line that boots a kernel into ``guest``."""
    root = Path(__file__).parents[2]
    return [
        str(kernel.executable),
        f"mem={limits.memory // base.MIB}M",
        *("rootfstype=hostfs", "root=/dev/root", "hostfs=/", "ro"),
        "umid=guest",
        f"uml_dir={run_directory}",
        *("con=null", "con0=null,fd:1", "ssl=null", f"ssl0=fd:{line[0]},fd:{line[1]}"),
        *("quiet", "panic=-1", "noreboot", "random.trust_cpu=on"),
        *kernel.boot,
        # Words with '=' that the kernel does not know become variables of its first process.
        f'PYTHONPATH="{root}"',
        f'init="{os.path.realpath(sys.executable)}"',
        *("--", "-S", "-s", "-P", "-B", "-c"),
        '"from netns.kernels.guest import main; main()"',
    ]


def start_message(kernel: UmlKernel, command: base.Command, stdio: Stdio) -> dict[str, Any]:
    """Return what ``guest`` is told: the command, this process' environment and streams."""
    umask = os.umask(0)
    os.umask(umask)
    return {
        "argv": command.argv,
        "cwd": str(Path.cwd()),
        "environment": guest_environment(os.environ),
        "umask": umask,
        "tty": stdio.is_tty,
        "keys": stdio.keys,
        "window": stdio.window(),
        "writable": [str(path.resolve()) for path in command.writable],
        "modules": str(kernel.modules) if kernel.modules else None,
        "load": modules.ALL,
        "modprobe": base.find_program("modprobe"),
        "sysctl": SYSCTL,
        "hostname": socket.gethostname(),
    }


def guest_environment(outside: Any) -> dict[str, str]:
    """Return the environment of a command in the guest: ours, but for what is elsewhere there."""
    return {name: value for name, value in outside.items() if name not in ("TMP", "TEMP")} | {
        base.GUEST_VARIABLE: NAME,
        base.STATE_VARIABLE: "/run/kproxy",  # dies with the kernel, as all that it notes does
        "TMPDIR": "/run/tmp",  # memory of the guest
        # Caches beside the sources cannot be written.
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_ADDOPTS": f"{outside.get('PYTEST_ADDOPTS', '')} -p no:cacheprovider".strip(),
    }


def memory_candidates() -> list[Path]:
    """Return where the memory file may be, the best place first; ``$TMPDIR`` before the disks."""
    wanted = [Path(os.environ["TMPDIR"])] if os.environ.get("TMPDIR") else []
    return [Path("/dev/shm"), *wanted, base.state_directory(), Path("/var/tmp")]  # noqa: S108


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

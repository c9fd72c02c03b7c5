"""What a User-Mode Linux kernel is told: its boot options, and the message to ``guest``."""

import json
import os
import socket
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netns.kernels import base, channel, guest, guest_setup, modules
from netns.kernels.base import Clock
from netns.kernels.stdio import Stdio

if TYPE_CHECKING:
    from netns.kernels.uml import UmlKernel

NAME = "uml"
CHANNEL_NAME = "channel"  # in the run directory
ENTROPY_VARIABLE = "KPROXY_ENTROPY_SEED"
# Where the clock is not the world's, every guest boots at midnight, 2026-01-01 (ns).
EPOCH = 1_767_225_600 * 10**9
CLOCK_OPTIONS = {
    Clock.REAL: (),
    Clock.TRAVEL: ("time-travel", f"time-travel-start={EPOCH}"),
    Clock.VIRTUAL: ("time-travel=inf-cpu", f"time-travel-start={EPOCH}"),
}
# With a seed addresses do not vary, and no driver stirs the host's /dev/random into our numbers.
FROM_SEED = ("norandmaps", "initcall_blacklist=rng_init")
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


def boot_argv(
    kernel: "UmlKernel",
    command: base.Command,
    limits: base.Limits,
    line: tuple[int, int],
) -> list[str]:
    """Return the command line that boots a kernel into ``guest``, in its run directory.

    A kernel stirs its command line into its random numbers, so nothing in it differs from run to
    run; not even where the run directory is.
    """
    root = Path(__file__).parents[2]
    return [
        str(kernel.executable),
        f"mem={limits.memory // base.MIB}M",
        *("rootfstype=hostfs", "root=/dev/root", "hostfs=/", "ro"),
        "umid=guest",
        "uml_dir=.",
        *("con=null", "con0=null,fd:1", "ssl=null", f"ssl0=fd:{line[0]},fd:{line[1]}"),
        *("quiet", "panic=-1", "noreboot", "random.trust_cpu=on"),
        *CLOCK_OPTIONS[command.clock],
        *([] if command.seed is None else FROM_SEED),
        *kernel.boot,
        # Words with '=' that the kernel does not know become variables of its first process.
        f'PYTHONPATH="{root}"',
        f'{guest.CHANNEL_VARIABLE}="/proc/self/cwd/{CHANNEL_NAME}"',
        "PYTHONHASHSEED=0",
        f'init="{os.path.realpath(sys.executable)}"',
        *("--", "-S", "-s", "-P", "-B", "-c"),
        '"from netns.kernels.guest import main; main()"',
    ]


OF_A_SHELL = ("OLDPWD", "SHLVL", "_", "SUDO_COMMAND", "INVOCATION_ID", "WINDOWID", "STY")
OF_A_SESSION = ("SSH_", "XDG_SESSION_", "TMUX", "DBUS_", "JOURNAL_", "SYSTEMD_")
"""Variables, and how such begin, that say where a command was given: in another terminal others.

What is in the environment is in the memory of each process, whose layout a run depends on.
"""


def entropy_variables(kernel: "UmlKernel", seed: int | None) -> dict[str, str]:
    """Return the variables of the kernel's process that make its random numbers those of a seed.

    The object answers for libc's getrandom(), where such a kernel takes all its entropy from. A
    kernel that has none stays as random as it is.
    """
    if seed is None or kernel.entropy is None:
        return {}
    return {"LD_PRELOAD": str(kernel.entropy), ENTROPY_VARIABLE: str(seed)}


def start_message(kernel: "UmlKernel", command: base.Command, stdio: Stdio) -> dict[str, Any]:
    """Return what ``guest`` is told: the command, this process' environment and streams."""
    umask = os.umask(0)
    os.umask(umask)
    return {
        "argv": command.argv,
        "cwd": str(Path.cwd()),
        "environment": guest_environment(os.environ, command),
        "umask": umask,
        "tty": stdio.is_tty,
        "keys": stdio.keys,
        "window": stdio.window(),
        "stdin": file_on_stdin(any_file=command.clock is not Clock.REAL),
        "output": None if command.clock is Clock.REAL else channel.OUTPUT_NAME,
        "writable": [str(path.resolve()) for path in command.writable],
        "modules": str(kernel.modules) if kernel.modules else None,
        "load": modules.ALL,
        "modprobe": base.find_program("modprobe"),
        "sysctl": SYSCTL,
        "hostname": socket.gethostname(),
        "seeded": command.seed is not None,
    }


def write_start(directory: Path, start: Mapping[str, Any]) -> None:
    """Leave the message where the guest reads it as soon as it is up: nothing is waited for."""
    directory.mkdir(mode=0o700)
    (directory / guest.START_NAME).write_text(json.dumps(start))


def file_on_stdin(*, any_file: bool) -> dict[str, Any] | None:
    """Return what the guest needs to open standard input itself; None if it has to be passed on.

    ``/dev/null`` always, ``any_file`` in virtual time, where whatever comes from the host in the
    course of a run would move the clock.
    """
    try:
        status = os.fstat(0)
    except OSError:  # closed
        return {"path": os.devnull, "offset": 0}
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == Path(os.devnull).stat().st_rdev:
        return {"path": os.devnull, "offset": 0}
    if not any_file or not stat.S_ISREG(status.st_mode):
        return None
    path = Path("/proc/self/fd/0").readlink()
    if not path.exists():  # removed
        return None
    return {"path": str(path), "offset": os.lseek(0, 0, os.SEEK_CUR)}


def guest_environment(outside: Mapping[str, str], command: base.Command) -> dict[str, str]:
    """Return the environment of a command in the guest: ours, but for what is elsewhere there."""
    gone = ("TMP", "TEMP", base.SEED_VARIABLE, *OF_A_SHELL)
    environment = {
        name: value
        for name, value in outside.items()
        if name not in gone and not name.startswith(OF_A_SESSION)
    }
    return (
        environment
        | base.seed_variables(command.seed)
        | {
            base.GUEST_VARIABLE: NAME,
            base.CLOCK_VARIABLE: command.clock,
            base.COMPUTING_VARIABLE: str(guest_setup.CHANNEL),
            base.STATE_VARIABLE: "/run/kproxy",  # dies with the kernel, as all that it notes does
            "TMPDIR": "/run/tmp",  # memory of the guest
            # Caches beside the sources cannot be written.
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_ADDOPTS": f"{outside.get('PYTEST_ADDOPTS', '')} -p no:cacheprovider".strip(),
        }
    )

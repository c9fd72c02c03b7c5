"""What the first program inside an embedded kernel does before a command can run there.

The root is the host's own file system, read-only. Processes are dear in such a kernel (tens of
milliseconds for each), so everything but loading modules is a system call from Python.
"""

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

MS_RDONLY = 1
MS_BIND = 4096
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
RNDRESEEDCRNG = 0x5207
POWER_OFF = 0x4321FEDC

PRIVATE = Path("/run/guest")  # files of this module
CHANNEL = PRIVATE / "channel"  # a directory of the host, for what host and guest tell each other
MODULES = Path("/lib/modules")
TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108  mounted anew in the guest
_libc = ctypes.CDLL(None, use_errno=True)


def mount(
    source: str | Path, target: str | Path, kind: str = "", flags: int = 0, data: str = ""
) -> None:
    """Mount a file system, or bind a place to another. Raises OSError that names the target."""
    words = [os.fsencode(word) for word in (source, target, kind, data)]
    if _libc.mount(*words[:3], ctypes.c_ulong(flags), words[3]) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"mount: {os.strerror(errno)}", str(target))


def power_off() -> None:
    """End this kernel."""
    _libc.reboot(POWER_OFF)


def mount_kernel_file_systems() -> None:
    """Mount what the kernel itself offers: devices, processes, settings, terminals."""
    devices = Path("/dev")
    if devices.stat().st_dev == Path("/").stat().st_dev:  # not done by the kernel
        mount("dev", devices, "devtmpfs")
    mount("proc", "/proc", "proc")
    mount("sysfs", "/sys", "sysfs")
    for name, kind, data in (
        ("pts", "devpts", "mode=620,ptmxmode=666"),
        ("shm", "tmpfs", "mode=1777"),
    ):
        (devices / name).mkdir(exist_ok=True)
        mount(name, devices / name, kind, data=data)
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        if not os.path.lexists(devices / name):
            (devices / name).symlink_to(f"/proc/self/fd{target}")


def mount_temporary_file_systems() -> None:
    """Mount memory on the places where programs expect to be able to write."""
    mount("run", "/run", "tmpfs", data="mode=755")
    for name in ("lock", "netns", "tmp", PRIVATE):
        Path("/run", name).mkdir()
    for directory in TEMPORARY:
        if directory.is_dir() and not directory.is_symlink():
            cover(directory)


def cover(directory: Path) -> None:
    """Make a directory writable in memory, with the host's entries still there (read-only).

    A user's files may well lie below /tmp, and so may tools that only know /tmp to write to.
    """
    below = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    mount("tmp", directory, "tmpfs", data="mode=1777")
    try:
        entries = list(Path(f"/proc/self/fd/{below}").iterdir())
    except PermissionError:
        entries = []
    for entry in entries:
        place = directory / entry.name
        if entry.is_symlink():
            place.symlink_to(entry.readlink())
        elif entry.is_dir():
            place.mkdir()
            mount(entry, place, flags=MS_BIND)
        elif entry.is_file():
            os.mknod(place)  # opening it would move a virtual clock, for each file that is here
            mount(entry, place, flags=MS_BIND)
    os.close(below)


def mount_channel(directory: str) -> None:
    """Mount the host's directory for what host and guest tell each other."""
    CHANNEL.mkdir()
    mount("none", CHANNEL, "hostfs", data=directory)


def mount_host_directories(writable: Sequence[str], working_directory: str) -> None:
    """Let files that are written to ``writable`` land on the host; make the last one reachable."""
    for path in sorted(writable, key=len):
        Path(path).mkdir(parents=True, exist_ok=True)
        mount("none", path, "hostfs", data=path)
    if not Path(working_directory).is_dir():
        Path(working_directory).mkdir(parents=True)
        mount("none", working_directory, "hostfs", MS_RDONLY, working_directory)


def load_modules(directory: str, names: Sequence[str], modprobe: str) -> dict[str, str]:
    """Load modules that lie in ``directory``/<version>; those which are not there are left out.

    The kernel and programs which load others later find them too, although /lib/modules of the
    host may not exist, and cannot be made on a read-only root: for programs, through the
    variables which are returned.
    """
    (PRIVATE / "lib").mkdir()
    (PRIVATE / "lib" / "modules").symlink_to(directory)
    if MODULES.is_dir():
        mount(directory, MODULES, flags=MS_BIND)
    loader = PRIVATE / "modprobe"
    loader.write_text(f'#!/bin/sh\nexec {modprobe} -d {PRIVATE} "$@"\n')
    loader.chmod(0o700)
    write("/proc/sys/kernel/modprobe", str(loader))
    subprocess.run([loader, "-q", "-a", *names], check=False, stdin=subprocess.DEVNULL)
    return {"MODPROBE_OPTIONS": f"-d {PRIVATE}"}


def draw_random_numbers_anew() -> None:
    """Let the kernel's random numbers not depend on how many of them were drawn before.

    Every file in memory takes one, so every file that lies in the host's /tmp would change all.
    """
    device = os.open("/dev/urandom", os.O_RDONLY)
    fcntl.ioctl(device, RNDRESEEDCRNG)
    os.close(device)


def set_loopback_up() -> None:
    """Set ``lo`` up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack_from("H", fcntl.ioctl(control, SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))


def write(path: str, value: str) -> None:
    """Write a setting; one that this kernel does not have is left out."""
    setting = Path(path)
    if setting.exists():
        setting.write_text(value)

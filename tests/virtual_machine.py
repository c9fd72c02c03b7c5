"""A virtual machine with emulated network cards, over this machine's own file system (read-only).

QEMU boots Debian's generic kernel with a small initial file system made here: busybox, the few
modules that are needed, and a script that mounts this machine's files by 9p and runs one command.
No image, no installation, no virtualisation by hardware. Cards of one ``hub`` are wired to each
other; :meth:`Machine.plug` pulls the cable of one.
"""

import contextlib
import io
import json
import os
import shlex
import shutil
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

QEMU, BUSYBOX = "qemu-system-x86_64", Path("/bin/busybox")
KERNEL_VARIABLE = "KPROXY_VM_KERNEL"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "kproxy", "vm-kernel")
BOOT_MODULES = ("virtio_pci", "9p", "9pnet_virtio")
_END = "kproxy-vm-end"

INIT = """#!/bin/busybox sh
export PATH=/bin
busybox mkdir -p /proc /dev /new
busybox mount -t proc none /proc
busybox mount -t devtmpfs none /dev
for each in $(busybox cat /modules/order); do busybox insmod /modules/$each; done
busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,cache=loose,ro root /new
busybox mount -t proc none /new/proc
busybox mount -t sysfs none /new/sys
busybox mount -t devtmpfs none /new/dev
busybox mount -t tmpfs none /new/run
busybox mount -t tmpfs none /new/tmp
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
/bin/busybox chroot /new /bin/sh -c '@COMMAND@' </dev/null
echo "@END@ $?"
/bin/busybox poweroff -f
"""


class Nic(NamedTuple):
    """A card: what QEMU calls its model, and the number of the hub that it is wired to."""

    model: str
    hub: int


def kernel_directory() -> Path | None:
    """Return the directory with ``boot`` and ``lib/modules`` of a generic kernel."""
    places = [Path(os.environ[KERNEL_VARIABLE])] if KERNEL_VARIABLE in os.environ else []
    for place in (*places, CACHE, Path("/")):
        if _image(place) is not None:
            return place
    return None


def why_not() -> str | None:
    """Return why there can be no such machine here; None: there can."""
    if shutil.which(QEMU) is None:
        return "QEMU is not installed (apt-get install qemu-system-x86)"
    if not BUSYBOX.exists():
        return "busybox is not installed (apt-get install busybox-static)"
    if kernel_directory() is None:
        return "there is no generic kernel (scripts/vm-kernel fetches one)"
    return None


class Machine:
    """A machine that runs one command; a context manager that ends it."""

    def __init__(
        self, command: Sequence[str], nics: Sequence[Nic], modules: Sequence[str], place: Path
    ) -> None:
        """``place``: a directory for its files. ``modules`` are loaded, and what they need."""
        root = kernel_directory()
        assert root is not None
        image = _image(root)
        assert image is not None
        initial = place / "initial.cpio"
        initial.write_bytes(_initial(command, root, image, modules))
        self._monitor = place / "monitor"
        self._arguments = [
            QEMU, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "768",
            "-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio",
            "-kernel", str(image), "-initrd", str(initial),
            "-append", "console=ttyS0 quiet panic=-1 net.ifnames=0",
            "-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,"
            "multidevs=remap",
            "-qmp", f"unix:{self._monitor},server=on,wait=off",
        ]  # fmt: skip
        for number, nic in enumerate(nics):
            self._arguments += ["-netdev", f"hubport,id=wire{number},hubid={nic.hub}"]
            address = f"52:54:00:00:00:{number + 1:02x}"
            device = f"{nic.model},netdev=wire{number},id=nic{number},mac={address},romfile="
            self._arguments += ["-device", device]

    def __enter__(self) -> "Machine":
        self._process = subprocess.Popen(
            self._arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def run(self, timeout: float, heard: Callable[[str], None]) -> int:
        """Tell every line that is printed; return the command's exit code."""
        late = threading.Timer(timeout, self._process.kill)
        late.start()
        assert self._process.stdout is not None
        lines = []
        try:
            for line in self._process.stdout:
                text = line.decode(errors="replace").strip()
                lines.append(text)
                if text.startswith(_END):
                    return int(text.split()[1])
                heard(text)
        finally:
            late.cancel()
        raise AssertionError(
            "the machine has ended by itself, or late:\n" + "\n".join(lines[-40:])
        )

    def plug(self, nic: int, *, connected: bool) -> None:
        """Plug the cable of a card in, or pull it."""
        with self._asking() as ask:
            ask("set_link", name=f"nic{nic}", up=connected)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[Callable[..., Any]]:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self._monitor))
            stream = sock.makefile("rwb")
            stream.readline()

            def ask(command: str, **arguments: object) -> Any:
                question = {"execute": command, "arguments": arguments}
                stream.write(json.dumps(question).encode() + b"\n")
                stream.flush()
                while True:
                    answer = json.loads(stream.readline())
                    if "return" in answer or "error" in answer:
                        assert "return" in answer, answer
                        return answer["return"]

            ask("qmp_capabilities")
            yield ask
            stream.close()


def _image(root: Path) -> Path | None:
    """Return the newest generic kernel whose modules are there, too."""
    found = sorted(root.glob("boot/vmlinuz-*-amd64"))
    good = [one for one in found if "cloud" not in one.name and _modules(root, one).is_dir()]
    return good[-1] if good else None


def _modules(root: Path, image: Path) -> Path:
    return root / "lib" / "modules" / image.name.removeprefix("vmlinuz-")


def _initial(command: Sequence[str], root: Path, image: Path, modules: Sequence[str]) -> bytes:
    """Return the initial file system: a cpio archive of the format that the kernel reads."""
    script = INIT.replace("@COMMAND@", shlex.join(command).replace("'", "'\\''"))
    made = _Archive()
    made.file("init", script.replace("@END@", _END).encode(), executable=True)
    made.file("bin/busybox", BUSYBOX.read_bytes(), executable=True)
    release = _modules(root, image).name
    wanted: dict[str, Path] = {}
    for name in (*BOOT_MODULES, *modules):
        question = ["modprobe", "-d", str(root), "-S", release, "--show-depends", name]
        answer = subprocess.run(question, capture_output=True, text=True, check=True).stdout
        for line in answer.splitlines():
            if line.startswith("insmod "):
                path = Path(line.split()[1])
                wanted.setdefault(path.name, path)
    for name, path in wanted.items():
        made.file(f"modules/{name}", path.read_bytes())
    made.file("modules/order", "\n".join(wanted).encode())
    return made.end()


class _Archive:
    """Writes cpio's format "newc"."""

    def __init__(self) -> None:
        self._data = io.BytesIO()
        self._number = 0
        for name in ("bin", "modules"):
            self._entry(name, stat.S_IFDIR | 0o755, b"")

    def file(self, name: str, content: bytes, *, executable: bool = False) -> None:
        self._entry(name, stat.S_IFREG | (0o755 if executable else 0o644), content)

    def end(self) -> bytes:
        self._entry("TRAILER!!!", 0, b"")
        return self._data.getvalue()

    def _entry(self, name: str, mode: int, content: bytes) -> None:
        self._number += 1
        label = name.encode() + b"\0"
        fields = (self._number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(label), 0)
        self._pad(b"070701" + "".join(f"{each:08x}" for each in fields).encode() + label)
        self._pad(content)

    def _pad(self, data: bytes) -> None:
        self._data.write(data + bytes(-len(data) % 4))

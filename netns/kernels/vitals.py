"""Looks at a running User-Mode Linux kernel from outside, without disturbing it.

The kernel is a process: its CPU time is in /proc, and its variables are in its memory. The
processes of the guest are processes of the host, too ("stubs"), each with the guest's pages in
it. Nothing here sends anything into the guest, whose virtual time it would move.
"""

import contextlib
import os
import re
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from netns.kernels.stall import Sample
from netns.process import stat_fields

TICKS = os.sysconf("SC_CLK_TCK")
TIME, INIT_TASK, RUNNING = "time_travel_time", "init_task", "cpu_tasks"
SECTION = struct.Struct("<IIQQQQIIQQ")  # of an ELF file with 64 bits
SYMBOL = struct.Struct("<IBBHQQ")
SYMBOL_TABLE = 2
LARGEST_TASK = 16 * 1024  # bytes of the kernel's description of a process
NAME_LENGTH = 16
STACK_TOP = 256 * 1024  # bytes of a stack in which the command line is looked for
MOST_WORDS = 4096  # of arguments and environment
READ_EVERY = 0.001  # seconds from one look at a guest's memory to the next
LOOKS = 100
IDLE = "swapper"
LONGEST = 200  # characters of a command line that are shown


def symbols(executable: Path, names: frozenset[str]) -> dict[str, int]:
    """Return the addresses of these names in an ELF file; what it does not have is left out."""
    found: dict[str, int] = {}
    with executable.open("rb") as file:
        header = file.read(64)
        if header[:5] != b"\x7fELF\x02":
            return found
        (offset,) = struct.unpack_from("<Q", header, 40)
        size, count = struct.unpack_from("<HH", header, 58)
        file.seek(offset)
        table = file.read(size * count)
        sections = [SECTION.unpack_from(table, size * number) for number in range(count)]
        for _, kind, _, _, place, length, link, *_ in sections:
            if kind != SYMBOL_TABLE:
                continue
            file.seek(place)
            entries = file.read(length)
            file.seek(sections[link][4])
            texts = file.read(sections[link][5])
            wanted = {at.start(): name for name in names for at in occurrences(name, texts)}
            for text, _, _, _, address, _ in SYMBOL.iter_unpack(entries):
                if text in wanted:
                    found[wanted[text]] = address
    return found


def occurrences(name: str, texts: bytes) -> Iterator[re.Match[bytes]]:
    """Return where a name stands in a table of them: names share their ends."""
    return re.finditer(re.escape(name.encode()) + b"\\0", texts)


@dataclass(frozen=True, slots=True)
class Used:
    """A process of the host: its parent and the CPU time, in seconds, that it has used."""

    parent: int
    cpu: float


class Vitals:
    """The signs of life of the kernel that a warden keeps."""

    def __init__(self, warden: int, executable: Path) -> None:
        self._warden = warden
        self._symbols = symbols(executable, frozenset((TIME, INIT_TASK, RUNNING)))
        self._before: dict[int, Used] = {}
        self._now: dict[int, Used] = {}

    @property
    def blind(self) -> bool:
        """Whether this kernel's clock cannot be found in its memory."""
        return TIME not in self._symbols

    def sample(self) -> Sample | None:
        """Return CPU time and virtual time of the guest; None if it cannot be looked at now."""
        used = descendants(self._warden)
        kernel = self._kernel(used)
        if kernel is None or TIME not in self._symbols:
            return None
        self._before, self._now = self._now, used
        try:
            nanoseconds = self._number(kernel, self._symbols[TIME])
            process = self._task(kernel) if RUNNING in self._symbols else 0
        except (OSError, struct.error):
            return None
        return Sample(sum(one.cpu for one in used.values()), nanoseconds / 1e9, process)

    def readings(self, number: int) -> Sequence[float]:
        """Return the virtual time, read so many times, a millisecond apart; fewer if it ends."""
        kernel = self._kernel(self._now)
        found: list[float] = []
        with contextlib.suppress(OSError, struct.error, KeyError):
            while kernel is not None and len(found) < number:
                found.append(self._number(kernel, self._symbols[TIME]) / 1e9)
                time.sleep(READ_EVERY)
        return found

    def doing(self) -> str:
        """Return what the guest does at the moment, for the user; empty if it cannot be told."""
        self._before = descendants(self._warden)
        kernel = self._kernel(self._before)
        self._now = self._before
        if kernel is None:
            return ""
        names: list[str] = []
        with contextlib.suppress(OSError, struct.error, KeyError):
            for _ in range(LOOKS):
                names.append(self._name(kernel))
                time.sleep(READ_EVERY)
        # While all processes sleep, the kernel's own threads run for moments.
        if sum(name.startswith(IDLE) for name in names) > len(names) / 2:
            return "all its processes sleep"
        self._now = descendants(self._warden)
        who = self.running()
        return f"{who} runs" if who else ""

    def running(self) -> str:
        """Return who runs in the guest, for the user; empty if it cannot be found out."""
        kernel = self._kernel(self._now)
        if kernel is None:
            return ""
        name = command = ""
        with contextlib.suppress(OSError, struct.error, KeyError):
            name = self._name(kernel)
        with contextlib.suppress(OSError, ValueError):
            command = command_line(self._busiest(kernel))
        return f"{name} ({command})" if name and command else name or command

    def _kernel(self, used: Mapping[int, Used]) -> int | None:
        """Return the PID of the kernel's first process: warden, keeper, kernel."""
        for keeper, one in used.items():
            if one.parent == self._warden:
                return next((pid for pid, its in used.items() if its.parent == keeper), None)
        return None

    def _busiest(self, kernel: int) -> int:
        """Return the stub that has used the most CPU time of late."""
        spent = {
            pid: one.cpu - (self._before[pid].cpu if pid in self._before else 0.0)
            for pid, one in self._now.items()
            if one.parent == kernel
        }
        return max(spent, key=spent.__getitem__)

    def _name(self, kernel: int) -> str:
        """Return the name of the process that the guest's kernel runs at the moment.

        Where in a task its name is, the first of all tasks tells, whose name is known.
        """
        first = read_memory(kernel, self._symbols[INIT_TASK], LARGEST_TASK)
        place = first.find(IDLE.encode())
        task = self._task(kernel)
        name = read_memory(kernel, task + place, NAME_LENGTH) if task else b""
        return name.split(b"\0")[0].decode(errors="replace")

    def _task(self, kernel: int) -> int:
        """Return where the kernel describes the process that it runs; 0 if that is not there."""
        for word in struct.unpack("<2Q", read_memory(kernel, self._symbols[RUNNING], 16)):
            if word > LARGEST_TASK:
                assert isinstance(word, int)
                return word
        return 0

    @staticmethod
    def _number(process: int, address: int) -> int:
        (number,) = struct.unpack("<Q", read_memory(process, address, 8))
        assert isinstance(number, int)
        return number


def descendants(ancestor: int) -> dict[int, Used]:
    """Return all processes below this one."""
    everyone: dict[int, Used] = {}
    for entry in Path("/proc").iterdir():
        fields = stat_fields(int(entry.name)) if entry.name.isdigit() else []
        if fields:
            # user and system time of its own, and of its children that have ended
            cpu = sum(int(field) for field in fields[11:15]) / TICKS
            everyone[int(entry.name)] = Used(int(fields[1]), cpu)
    below: dict[int, Used] = {}
    known = {ancestor}
    while known:
        known = {pid for pid, one in everyone.items() if one.parent in known}
        below |= {pid: everyone[pid] for pid in known}
    return below


def read_memory(process: int, address: int, length: int) -> bytes:
    """Read memory of another process. Raises OSError."""
    memory = os.open(f"/proc/{process}/mem", os.O_RDONLY)
    try:
        return os.pread(memory, length, address)
    finally:
        os.close(memory)


def command_line(stub: int) -> str:
    """Return the command line of the guest's process in a stub; empty if it is not there.

    A stub has only the pages that its process has touched since it began or was forked.
    """
    for line in reversed(Path(f"/proc/{stub}/maps").read_text().splitlines()):
        place, rights, _, _, inode, *_ = line.split()
        start, end = (int(number, 16) for number in place.split("-"))
        if inode == "0" or not rights.startswith("rw"):
            continue
        start = max(start, end - STACK_TOP)
        arguments = arguments_on_stack(read_memory(stub, start, end - start), start)
        if arguments:
            return printable(" ".join(arguments))
    return ""


def arguments_on_stack(stack: bytes, address: int) -> list[str]:
    """Return the arguments that a program was started with; none if this is not its stack.

    Where it ends (upwards) are the words: arguments, environment, name of the program, each with
    a null byte, and then eight more. Below are their number and the pointers to them.
    """
    if not stack.endswith(b"\0" * 9) or stack.endswith(b"\0" * 10):
        return []
    words = list(re.finditer(rb"[^\0]*\0", stack))[-MOST_WORDS:]
    # The pointers stand below the words, so what matches first from above is no coincidence.
    for index, word in reversed(list(enumerate(words))):
        first = stack.find(struct.pack("<Q", address + word.start())) - 8
        if first < 0:
            continue
        (count,) = struct.unpack_from("<Q", stack, first)
        arguments = words[index : index + count]
        if not 0 < count == len(arguments):
            continue
        pointers = [address + one.start() for one in arguments]
        if stack.startswith(struct.pack(f"<{count + 1}Q", *pointers, 0), first + 8):
            return [one[0][:-1].decode(errors="replace") for one in arguments]
    return []


def printable(text: str) -> str:
    """Return a text that fits into a message: one line, not too long."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"

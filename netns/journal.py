"""What a lab has made, written down before it is made: the basis of every clean-up.

A state directory holds two files:

``lock``
    The lab holds an flock on it as long as it lives; the kernel gives it up at its death, however
    that comes.
``journal``
    One JSON object per line, each appended with a single write (O_APPEND), so that several
    processes may write at once. A record begins and ends with a line break, so that half a line
    of a killed writer spoils nobody else's. Who changes the lab (adds or removes hosts) holds an
    flock on it meanwhile. Nothing is synced to a disk: after a crash of the machine there are no
    namespaces either.

The records: ``lab`` (first; who owns it), ``add`` (a topology that will be made, and the cards of
this machine that it takes, as they are), ``returned`` (a card is where it was), ``removing`` (a
host that will be taken away), ``remove`` (it was), ``restore`` (an addition failed and was undone:
the topology from before), ``process`` (started), ``attach`` (another process works on the lab, and
the namespace it is at home in), ``closing`` (tear-down begins, nothing may be added any more).
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from netns import codec
from netns.errors import NetnsError
from netns.nic import Taken
from netns.process import ProcessId, boot_id
from netns.topology import Topology

LOCK = "lock"
JOURNAL = "journal"
_POLL = 0.01

NamespaceId = tuple[int, int]  # device and inode, see netns.namespace.identity


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The sum of a journal: what there is (or may be, if its maker was killed)."""

    name: str = ""
    owner: ProcessId | None = None
    boot: str = ""
    topology: Topology = dataclasses.field(default_factory=Topology)
    processes: tuple[tuple[str, ProcessId], ...] = ()
    attached: tuple[tuple[ProcessId, NamespaceId], ...] = ()
    leaving: frozenset[str] = frozenset()
    """Hosts that are being taken away. They belong to the topology until that is done."""
    cards: tuple[Taken, ...] = ()
    """Cards of this machine that have not been given back."""
    closing: bool = False

    def visitors(self, places: Collection[NamespaceId]) -> set[ProcessId]:
        """Who works on the lab without being at home in one of these namespaces.

        Their main thread may be in one of them for a moment, to configure it, and yet they are
        none of its processes.
        """
        found = {each for each, home in self.attached if home not in places}
        return found if self.owner is None else found | {self.owner}

    @property
    def namespaces(self) -> list[str]:
        """The names of all namespaces, of hosts and of segments."""
        members = [host.name for host in self.topology.hosts]
        members += [each.name for each in self.topology.segments if not each.physical]
        return [namespace_name(self.name, member) for member in members]


def namespace_name(lab: str, member: str) -> str:
    """What the namespace of a host or segment is called in ``ip netns list``."""
    return f"{lab}-{member}"


def fold(ledger: Ledger, record: dict[str, Any]) -> Ledger:
    """The ledger after one more record; one of an unknown kind changes nothing."""
    topology = ledger.topology
    match record.get("op"):
        case "lab":
            owner = ProcessId(record["pid"], record["start_time"])
            return Ledger(name=record["name"], owner=owner, boot=record["boot"])
        case "add":
            topology = topology.merged(codec.decode(record["topology"]))
            cards = (*ledger.cards, *map(Taken.decode, record.get("cards", ())))
            return dataclasses.replace(ledger, topology=topology, cards=cards)
        case "returned":
            place = (record["host"], record["interface"])
            cards = tuple(each for each in ledger.cards if (each.host, each.interface) != place)
            return dataclasses.replace(ledger, cards=cards)
        case "removing":
            leaving = ledger.leaving | {record["host"]}
            return dataclasses.replace(ledger, leaving=leaving)
        case "remove":
            left = tuple(each for each in ledger.processes if each[0] != record["host"])
            topology = topology.without(record["host"])
            leaving = ledger.leaving - {record["host"]}
            return dataclasses.replace(ledger, topology=topology, processes=left, leaving=leaving)
        case "restore":
            topology = codec.decode(record["topology"])
            return dataclasses.replace(ledger, topology=topology)
        case "process":
            process = (record["host"], ProcessId(record["pid"], record["start_time"]))
            return dataclasses.replace(ledger, processes=(*ledger.processes, process))
        case "attach":
            identity = ProcessId(record["pid"], record["start_time"])
            attached = (identity, (record["home"][0], record["home"][1]))
            return dataclasses.replace(ledger, attached=(*ledger.attached, attached))
        case "closing":
            return dataclasses.replace(ledger, closing=True)
        case _:
            return ledger


def parse(data: bytes, ledger: Ledger) -> tuple[Ledger, int]:
    """Fold in every complete line; also how many bytes these were.

    A line that is no JSON is half a record whose writer was killed. It was written *before* the
    deed, so the deed was not done, and it is skipped. A record that lacks a field raises
    :class:`NetnsError`: this program did not write it.
    """
    used = data.rfind(b"\n") + 1
    for line in data[:used].split(b"\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        try:
            ledger = fold(ledger, record)
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise NetnsError(f"journal: bad record {line[:80]!r}: {problem!r}") from problem
    return ledger, used


class Journal:
    """The journal file of a state directory, open for reading and appending."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / JOURNAL
        self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._offset = 0
        self._ledger = Ledger()
        self._changing = threading.RLock()
        self._reading = threading.Lock()

    def append(self, op: str, **fields: object) -> None:
        """Write one record. Raises :class:`NetnsError` if there is no room for all of it."""
        record = b"\n" + json.dumps({"op": op, **fields}).encode() + b"\n"
        try:
            complete = os.write(self._fd, record) == len(record)
        except OSError as problem:
            raise NetnsError(f"cannot write to {self.path}: {problem.strerror}") from None
        if not complete:
            remedy = "make room there"
            raise NetnsError(f"cannot write to {self.path}: no space left", remedy=remedy)

    def begin(self, name: str) -> None:
        """Write the first record: this process owns the lab."""
        me = ProcessId.of(os.getpid())
        assert me is not None
        self.append("lab", name=name, pid=me.pid, start_time=me.start_time, boot=boot_id())

    def attach(self) -> None:
        """Write down that this process works on the lab, too."""
        me = ProcessId.of(os.getpid())
        assert me is not None
        home = Path("/proc/self/ns/net").stat()
        place = [home.st_dev, home.st_ino]
        self.append("attach", pid=me.pid, start_time=me.start_time, home=place)

    def process(self, host: str, identity: ProcessId) -> None:
        """Write down a process that was started."""
        self.append("process", host=host, pid=identity.pid, start_time=identity.start_time)

    def ledger(self) -> Ledger:
        """The sum of what everybody has written up to now. Waits for nobody who is changing it."""
        with self._reading:
            size = os.fstat(self._fd).st_size
            if size > self._offset:
                data = os.pread(self._fd, size - self._offset, self._offset)
                self._ledger, used = parse(data, self._ledger)
                self._offset += used
            return self._ledger

    @contextlib.contextmanager
    def changing(self, timeout: float = 30.0) -> Iterator[Ledger]:
        """Exclude everybody else (threads and processes) from changing the lab meanwhile."""
        with self._changing:
            _flock(self._fd, timeout, f"{self.path} is locked by another process")
            try:
                yield self.ledger()
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file; it stays."""
        os.close(self._fd)


def peek(directory: Path) -> Ledger:
    """The sum of a journal, without opening it for writing; an empty one if there is none."""
    try:
        data = (directory / JOURNAL).read_bytes()
    except FileNotFoundError:
        data = b""
    return parse(data, Ledger())[0]


def take_lock(directory: Path) -> int | None:
    """Become the owner of a state directory: a file descriptor to keep open, or None if taken."""
    path = directory / LOCK
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        # A dying lab may have deleted the file between our open and our flock: then try again.
        try:
            if os.fstat(fd).st_ino == path.stat().st_ino:
                return fd
        except FileNotFoundError:
            pass
        os.close(fd)


def _flock(fd: int, timeout: float, why: str) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise NetnsError(f"waited {timeout:g} s in vain: {why}") from None
            time.sleep(_POLL)
        else:
            return

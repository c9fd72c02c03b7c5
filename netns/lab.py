"""A running lab: a topology made real, changed while it runs, and always taken away.

::

    with Lab(topology, name="demo") as lab:
        lab["node1"].run(["ping", "-c1", "192.0.2.2"])
        lab.add(Host(name="pod"), links=[Link(a=..., b=...)])
        lab.remove("pod")

**Clean-up.** A lab is taken away when its block ends, however it ends: return, exception, Ctrl-C
(KeyboardInterrupt). For SIGTERM and SIGHUP ask for it, once, in the main program: ``with
netns.lab.signals_unwind(), Lab(...)``; a library has no business in installing signal handlers.
After SIGKILL nothing can be done by the dead; the next start with the same state directory, or
:func:`repair`, reads the journal and takes away what is left. Killed are only processes that are
in a namespace of the lab, or in its journal with the same pid *and* start time. Cards of this
machine that hosts have (``Interface.uplink``) are given back before their namespaces go; what
could not be made as it was is logged as a warning.

**Several processes.** The process that made the lab owns it. Others may :meth:`Lab.attach` to the
state directory, look hosts up, run programs in them, add and remove hosts; what they add stays
when they end and goes with the lab.

All of it needs root (in the user namespace that owns the network namespaces).
"""

import contextlib
import dataclasses
import os
import shutil
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Self

from netns import addressing, build, cable, codec, ending, namespace, nic, nicreport
from netns.errors import LabBusy, LabGone, NetnsError
from netns.host import LiveHost
from netns.journal import JOURNAL, LOCK, Journal, Ledger, namespace_name, peek, take_lock
from netns.nicreport import NicReport
from netns.process import Process, boot_id
from netns.topology import Host, Link, Segment, Topology

STATE = Path("/run/netns-lab")
SCRATCH = "scratch"


class AttachedLab:
    """A lab as seen by a process that does not own it; see :meth:`Lab.attach`.

    Its methods may be called by several threads. None of them may be called in a thread with a
    running event loop (use ``asyncio.to_thread``).
    """

    _take_default_route = False

    def __init__(self, state_dir: Path, journal: Journal) -> None:
        self.state_dir = state_dir
        self._journal = journal
        self._started: list[Process] = []  # kept so that ended children are waited for
        self._pulled: cable.Pulled = {}

    @property
    def name(self) -> str:
        """The lab's name, with which the names of its namespaces begin."""
        return self._journal.ledger().name

    @property
    def topology(self) -> Topology:
        """What the lab consists of now, with every MAC."""
        return self._journal.ledger().topology

    @property
    def scratch(self) -> Path:
        """A directory for files of the lab's user; it goes with the lab."""
        path = self.state_dir / SCRATCH
        path.mkdir(exist_ok=True)
        return path

    @property
    def hosts(self) -> list[str]:
        """The names of all hosts."""
        return [host.name for host in self.topology.hosts]

    def host(self, name: str) -> LiveHost:
        """A host. Raises :class:`NetnsError` if there is none of this name."""
        ledger = self._journal.ledger()
        if all(host.name != name for host in ledger.topology.hosts):
            remedy = f"there are: {', '.join(self.hosts) or 'none'}"
            raise NetnsError(f"lab {ledger.name} has no host {name!r}", remedy=remedy)
        return LiveHost(name, ledger.name, self._journal, self._started)

    def __getitem__(self, name: str) -> LiveHost:
        return self.host(name)

    def __contains__(self, name: object) -> bool:
        return name in self.hosts

    def has_now(self, name: str) -> bool:
        """Whether there is a host of this name that nobody is taking away.

        ``name in lab`` still says yes while it is being removed. Waits for nobody: whoever asks
        because a process of the host has ended learns why at once.
        """
        ledger = self._journal.ledger()
        return name not in ledger.leaving and any(
            host.name == name for host in ledger.topology.hosts
        )

    def add(
        self, *hosts: Host, links: Iterable[Link] = (), segments: Iterable[Segment] = ()
    ) -> None:
        """Add hosts, and links between new and existing ones. All or nothing.

        A segment that exists gets the listed interfaces as further members. Returns when packets
        pass. Raises :class:`netns.errors.TopologyError`, or :class:`NetnsError` if the kernel
        refuses; :class:`LabGone` if the lab is being torn down.
        """
        more = Topology(hosts=hosts, links=tuple(links), segments=tuple(segments))
        with self._journal.changing() as ledger:
            _refuse_if_closing(ledger)
            self._add(more, ledger)

    def _add(self, more: Topology, ledger: Ledger) -> None:
        def namespace_of(member: str) -> str:
            return namespace_name(ledger.name, member)

        before = ledger.topology
        before.merged(more).validate()
        homes = {host.name: namespace_of(host.name) for host in before.merged(more).hosts}
        cards = nic.examine(more, homes, take_default_route=self._take_default_route)
        more = addressing.with_macs(nic.with_macs(more, cards))
        after = before.merged(more)
        after.validate()
        taken = {segment.name for segment in before.segments}
        new = [host.name for host in more.hosts]
        new += [one.name for one in more.segments if not one.physical and one.name not in taken]
        for name in new:
            _refuse_stranger(namespace_of(name))
        noted = [dataclasses.asdict(card) for card in cards]
        self._journal.append("add", topology=codec.encode(more), cards=noted)
        try:
            build.build(more, before, namespace_of, cards)
        except BaseException:
            ending.kill([namespace_of(name) for name in new], ledger)
            ending.give_back(self._journal, cards)
            ending.delete([namespace_of(name) for name in new])
            build.unlink(more, before, namespace_of)
            build.forget_neighbours(after, before, namespace_of)
            self._journal.append("restore", topology=codec.encode(before))
            raise

    def remove(self, name: str) -> None:
        """Take a host away: its processes are killed, its links and its namespace deleted.

        When this returns nothing of it is left. A name that no host has is fine: two may want to
        remove the same one.
        """
        with self._journal.changing() as ledger:
            _refuse_if_closing(ledger)
            before = ledger.topology
            after = before.without(name)
            if after.hosts == before.hosts:
                return

            def namespace_of(member: str) -> str:
                return namespace_name(ledger.name, member)

            # Written before the first process ends: who sees that end asks whether this is why.
            self._journal.append("removing", host=name)
            ending.kill([namespace_of(name)], ledger, host=name)
            self._reap()
            ending.give_back(self._journal, [card for card in ledger.cards if card.host == name])
            build.unlink(before.around(name), after, namespace_of)
            build.forget_neighbours(before, after, namespace_of)
            namespace.delete(namespace_of(name))
            self._journal.append("remove", host=name)

    def plug(self, host: str, interface: str, *, connected: bool) -> int:
        """Pull a host's cable out of its switch, or plug it in again; return when (monotonic ns).

        The host's interface loses its carrier and keeps its addresses and routes. With a card it
        is the other end that is switched off, if that is in this lab, too. Raises
        :class:`NetnsError` if it is not a member of a segment, or a card whose carrier stays:
        then only a hand can pull it.
        """
        ledger = self._journal.ledger()
        return cable.plug(ledger, host, interface, self._pulled, connected=connected)

    def cards(self) -> list[NicReport]:
        """Return what is to be said of the cards of this machine that hosts have."""
        return [
            self.host(card.host).call(
                nicreport.report,
                card.host,
                card.interface,
                card.nic,
                str(card.kind),
                card.inventory,
            )
            for card in self._journal.ledger().cards
        ]

    def _reap(self) -> None:
        for process in [each for each in self._started if not each.alive]:
            with contextlib.suppress(ValueError):  # another thread was faster
                self._started.remove(process)

    def close(self) -> None:
        """Let go of the lab; it goes on."""
        self._reap()
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Lab(AttachedLab):
    """A lab owned by this process: entering the block builds it, leaving it takes it away.

    ``name`` begins the names of its namespaces. ``state_dir`` (default ``/run/netns-lab/NAME``) is
    made if need be; it holds the journal. If a dead lab has left something there, it is repaired
    first. A card that carries this machine's default route is taken only if asked for by
    ``take_default_route``. Raises :class:`LabBusy` on entering if a live one has it, and
    :class:`netns.errors.TopologyError` at once if the topology is wrong.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        name: str = "lab",
        state_dir: Path | None = None,
        take_default_route: bool = False,
    ) -> None:
        topology.validate()
        self._take_default_route = take_default_route
        self._pulled = {}
        self._wanted = topology
        self._wanted_name = name
        self.state_dir = STATE / name if state_dir is None else state_dir
        self._started = []

    @classmethod
    def attach(cls, state_dir: Path) -> AttachedLab:
        """A handle to the live lab of another process; :class:`LabGone` if there is none."""
        if not (state_dir / JOURNAL).exists():
            raise LabGone(f"there is no lab in {state_dir}", remedy="start it first")
        journal = Journal(state_dir)
        ledger = journal.ledger()
        owner = ledger.owner
        if owner is None or ledger.boot != boot_id() or not owner.alive:
            journal.close()
            raise LabGone(f"the lab in {state_dir} is dead", remedy="start it again")
        journal.attach()
        return AttachedLab(state_dir, journal)

    def __enter__(self) -> Self:
        self._lock = _own(self.state_dir)
        try:
            _repair(self.state_dir)
            self._journal = Journal(self.state_dir)
        except BaseException:
            _disown(self.state_dir, self._lock)
            raise
        try:
            self._journal.begin(self._wanted_name)
            with self._journal.changing() as ledger:
                self._add(self._wanted, ledger)
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Take the lab away. Called by the end of the block."""
        try:
            _repair(self.state_dir)
        except (KeyboardInterrupt, SystemExit):  # an impatient user; it takes a moment only
            _repair(self.state_dir)
            raise
        finally:
            self._reap()
            self._journal.close()
            _disown(self.state_dir, self._lock)


def repair(state_dir: Path) -> bool:
    """Take away what a dead lab left behind; whether there was anything. Absent is fine.

    Raises :class:`LabBusy` if the lab is alive.
    """
    if not state_dir.exists():
        return False
    lock = _own(state_dir)
    try:
        return _repair(state_dir)
    finally:
        _disown(state_dir, lock)


@contextlib.contextmanager
def signals_unwind() -> Iterator[None]:
    """SIGTERM and SIGHUP raise SystemExit (128 + number) in the main thread meanwhile.

    So that ``with`` blocks are left in order, as they are at Ctrl-C. Main thread only.
    """

    def unwind(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, unwind) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _own(state_dir: Path) -> int:
    while True:
        try:
            state_dir.mkdir(parents=True, exist_ok=True)
            lock = take_lock(state_dir)
            break
        except PermissionError:
            remedy = "run this as root, or choose another state directory"
            raise NetnsError(f"cannot write to {state_dir}", remedy=remedy) from None
        except FileNotFoundError:
            continue  # a lab that ends has just removed the directory
    if lock is None:
        owner = peek(state_dir).owner
        who = f"process {owner.pid}" if owner else "another process"
        remedy = "wait for its end, end it, or choose another name or state directory"
        raise LabBusy(f"{who} runs a lab in {state_dir}", remedy=remedy)
    return lock


def _disown(state_dir: Path, lock: int) -> None:
    # The file first: who opens it later makes a new one, who has it open looks again.
    (state_dir / LOCK).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # there are files that are not the lab's
        state_dir.rmdir()
        if state_dir.parent == STATE:
            STATE.rmdir()
    os.close(lock)


def _repair(state_dir: Path) -> bool:
    """Called by the owner: kill and delete all that the journal tells of, then the journal."""
    if not (state_dir / JOURNAL).exists():
        return False
    with contextlib.closing(Journal(state_dir)) as journal:
        with contextlib.suppress(NetnsError):  # no room: then nobody else adds anything either
            journal.append("closing")
        # Attached processes may be in the middle of adding. The first kill ends those that belong
        # to the lab; the lock waits for others, and after it nobody adds any more.
        ending.kill(journal.ledger().namespaces, journal.ledger())
        with journal.changing() as ledger:
            ending.kill(ledger.namespaces, ledger)
            if ledger.boot == boot_id():
                ending.give_back(journal, ledger.cards)
            ending.delete(ledger.namespaces)
    shutil.rmtree(state_dir / SCRATCH, ignore_errors=True)
    (state_dir / JOURNAL).unlink()
    return True


def _refuse_if_closing(ledger: Ledger) -> None:
    if ledger.closing:
        raise LabGone(f"lab {ledger.name} is being torn down")


def _refuse_stranger(namespace_name: str) -> None:
    if namespace.exists(namespace_name):
        remedy = f"choose another name for the lab, or: ip netns delete {namespace_name}"
        raise NetnsError(f"network namespace {namespace_name} exists already", remedy=remedy)

"""Watches where packets are lost in a lab: looks at the counters of all hosts, and drops.

A look takes milliseconds, and whoever marks an event must not wait for it; so a thread of its own
looks. It sleeps until it is asked, or a packet is dropped.
"""

import contextlib
import queue
import select
import socket
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kproxy import errors
from kproxy.kernel.counters import conntrack, drops, icmp, interfaces, proc, rules
from kproxy.kernel.ipvs.client import IPVS
from kproxy.kernel.ipvs.types import ServiceKey, ServiceTraffic
from kproxy.lab.hopcounts import HostCounters, Snapshot
from kproxy.lab.hopscene import Scene, hosts
from netns import namespace
from netns.errors import NetnsError
from netns.journal import namespace_name
from netns.lab import AttachedLab

_READ_AGAIN = 0.05
"""Seconds between two readings of drops: not every packet dropped costs a wake-up."""
_READINGS = 3
_PATIENCE = 60.0
_LOCALLY_ADMINISTERED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What was seen of a trial. ``clock_ns``: what makes the drops' times monotonic.

    ``answers``: ICMP errors, each with the host that it came to.
    ``blind``: why drops were not told of, in words; "" if all were.
    """

    snapshots: tuple[Snapshot, ...]
    drops: tuple[drops.Drop, ...]
    answers: tuple[tuple[str, icmp.IcmpError], ...]
    clock_ns: int
    blind: str


class Hops:
    """Watches a lab from entering to leaving; between :meth:`begin` and :meth:`end` for a trial.

    ``senders``: the places of origin by host; ``routers``: hosts with addresses of others;
    ``skip``: hosts that no measured packet passes.
    """

    def __init__(
        self,
        lab: AttachedLab,
        *,
        senders: Mapping[str, str],
        routers: Collection[str],
        skip: Collection[str] = (),
        monitor: bool = True,
    ) -> None:
        self._lab = lab
        self._skip = skip
        self.scene = Scene(dict(senders), frozenset(routers))
        self._wanted = monitor
        self.blind = "" if monitor else "not asked for"
        self._monitor: drops.DropMonitor | None = None
        self._looks: list[Snapshot] = []
        self._drops: list[drops.Drop] = []
        self._asked: queue.SimpleQueue[threading.Event | None] = queue.SimpleQueue()

    def __enter__(self) -> "Hops":
        with contextlib.ExitStack() as stack:
            if self._wanted:
                try:
                    self._monitor = stack.enter_context(drops.DropMonitor())
                except (errors.Unsupported, errors.KernelError) as error:
                    self.blind = str(error)
            self._errors = [(host, stack.enter_context(one)) for host, one in self._listeners()]
            self._wake, self._waker = socket.socketpair()
            stack.callback(self._wake.close)
            stack.callback(self._waker.close)
            self._thread = threading.Thread(target=self._run, name="hops", daemon=True)
            self._thread.start()
            stack.callback(self._stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def begin(self) -> None:
        """Forget what was seen, and look at all counters; returns when that is done."""
        self._look_now()
        self._missed = self._missed_now()
        self._clock_ns = time.monotonic_ns() - time.time_ns()
        for _, one in self._errors:
            one.read()
        self._drops.clear()
        del self._looks[:-1]

    def mark(self) -> None:
        """Ask for a look; returns at once."""
        self._ask(threading.Event())

    def end(self) -> Observed:
        """Look for the last time; return what was seen since :meth:`begin`."""
        self._look_now()
        missed = self._missed_now() - self._missed
        blind = self.blind or (f"{missed:,} drops were not told of" if missed else "")
        return Observed(
            snapshots=tuple(self._looks),
            drops=tuple(self._drops),
            answers=tuple((host, error) for host, one in self._errors for error in one.read()),
            clock_ns=self._clock_ns,
            blind=blind,
        )

    def _listeners(self) -> Iterator[tuple[str, icmp.IcmpErrors]]:
        name = self._lab.name
        for host in self.scene.senders:
            with namespace.entered(namespace_name(name, host)):
                listener = icmp.IcmpErrors()
            yield host, listener

    def _missed_now(self) -> int:
        return 0 if self._monitor is None else self._monitor.missed()

    def _look_now(self) -> None:
        done = threading.Event()
        self._ask(done)
        if not done.wait(_PATIENCE):
            raise errors.MeasurementError(f"the counters were not read within {_PATIENCE:g} s")

    def _ask(self, done: threading.Event | None) -> None:
        self._asked.put(done)
        self._waker.send(b"x")

    def _stop(self) -> None:
        self._ask(None)
        self._thread.join()

    def _run(self) -> None:
        """Look when asked to; read the drops before they are too many."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        monitor = self._monitor
        if monitor is not None:
            poll.register(monitor.fileno(), select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if self._wake.fileno() in ready:
                self._wake.recv(1)
                done = self._asked.get()
                if done is None:
                    return
                self._look()
                if monitor is not None:
                    self._drops += filter(self._may_be_ours, monitor.read())
                done.set()
            elif monitor is not None:
                self._drops += filter(self._may_be_ours, monitor.read())
                # More may come at once; who asks is heard meanwhile.
                select.select([self._wake], [], [], _READ_AGAIN)

    def _may_be_ours(self, drop: drops.Drop) -> bool:
        """Whether a frame is between interfaces of a lab, for all that is known by now.

        The monitor tells of the whole machine; what its own network drops is not kept.
        """
        ends = drop.frame[6:12], drop.frame[:6]
        return any(
            mac and (mac[0] & _LOCALLY_ADMINISTERED or self.scene.host_of_mac(mac.hex(":")))
            for mac in ends
        )

    def _look(self) -> None:
        began = time.monotonic_ns()
        topology = self._lab.topology
        self.scene.learn(topology)
        name, found = self._lab.name, {}
        last = self._looks[-1].hosts if self._looks else {}
        for host in hosts(topology, self._skip):
            # One that is being taken away is not there any more.
            with (
                contextlib.suppress(NetnsError),
                namespace.entered(namespace_name(name, host)),
            ):
                counters = _read_again() or last.get(host)
                if counters is not None:
                    found[host] = counters
        self._looks.append(Snapshot(began, time.monotonic_ns(), found, proc.backlog_drops()))


def _read_again() -> HostCounters | None:
    """Return the counters of the current namespace; None if they cannot be had just now.

    What is read in several steps, such as a table of rules, may have changed between them.
    """
    for _ in range(_READINGS):
        with contextlib.suppress(errors.KproxyError, OSError):
            return read()
    return None


def read() -> HostCounters:
    """Return the counters of the current namespace. KernelError, OSError."""
    return HostCounters(
        protocols=proc.protocols(),
        interfaces=interfaces.interfaces(),
        queues=interfaces.queues(),
        conntrack=conntrack.conntrack(),
        rules=rules.rules(),
        services=_services(),
    )


def _services() -> Mapping[ServiceKey, ServiceTraffic]:
    # To ask for IPVS would load it where nobody uses it.
    if not Path("/proc/thread-self/net/ip_vs").exists():
        return {}
    with IPVS() as client:
        return client.traffic()

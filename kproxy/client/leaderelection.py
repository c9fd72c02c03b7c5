"""Leader election by a Lease: of several replicas one works, and never two at once.

The rules are those of Kubernetes' ``client-go``. The holder of a Lease renews it every ``retry``
seconds. The others look now and then; who has seen no renewal for as long as the Lease says, *by
his own clock since he saw the last one*, takes it, which the server lets only one of them do (it
checks the version that was read). Times written into a Lease are for people: nobody compares
them, so clocks may differ as they like. What must hold is that clocks run equally fast, and that
nobody but candidates writes the Lease.

Why there are never two leaders: who leads knows when he *sent* the last renewal that succeeded.
Others saw it later than that, so they wait until ``lease`` seconds after it at least. He himself
stops ``renew`` seconds after it, which leaves ``lease - renew`` seconds for what is under way.

One thing differs from ``client-go``: who waits also looks at the very moment at which the term
that he sees would end, rather than up to ``2.2 × retry`` seconds later. So a leader that dies is
replaced within ``lease + 2.2 × retry`` seconds.
"""

import math
import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from kproxy import errors, logs, rfc3339
from kproxy.api import catalog, kinds

Object = dict[str, Any]

JITTER = 1.2
"""Who waits for a Lease looks again after ``retry`` to ``retry × (1 + JITTER)`` seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Times of an election in seconds; the defaults are those of production Kubernetes."""

    lease: float = 15.0
    """So long after a renewal others leave the holder alone."""
    renew: float = 10.0
    """So long after sending its last renewal the holder stops."""
    retry: float = 2.0
    """So often the holder renews, and others look."""

    def check(self) -> None:
        """Raise UsageError unless lease > renew > retry × 1.2, as ``client-go`` demands."""
        if self.retry <= 0:
            problem, remedy = "is not positive", "use a retry period above 0"
        elif self.renew <= self.retry * JITTER:
            problem = f"is too long for a renew deadline of {self.renew:g} s"
            remedy = f"use a renew deadline above {self.retry * JITTER:g} s"
        elif self.lease <= self.renew:
            problem = f"does not fit a lease duration of {self.lease:g} s"
            remedy = f"use a lease duration above the renew deadline of {self.renew:g} s"
        else:
            return
        raise errors.UsageError(
            f"leader election: a retry period of {self.retry:g} s {problem}", remedy=remedy
        )


class Role(Enum):
    """What an elector is."""

    WAITING = "waiting"
    LEADING = "leading"
    ENDED = "ended"
    """It led once and must not again: whatever it knows may be old."""


class Elector:
    """The state of one candidate. Told the time (seconds, monotonic), and what the server says.

    A try begins with :meth:`begin` at the time :attr:`due`. It ends with exactly one of
    :meth:`written`, :meth:`failed`, and :meth:`read` where that returns None. ``lot`` draws
    numbers from 0 to 1; ``stamp`` is the time of day as the Lease shows it.
    """

    def __init__(
        self, identity: str, terms: Terms, lot: Callable[[], float], *, now: float = 0.0
    ) -> None:
        self.identity = identity
        self.due = now
        self.until = -math.inf
        """When leading ends, unless a renewal succeeds before."""
        self._terms = terms
        self._lot = lot
        self._role = Role.WAITING
        self._seen: Object | None = None
        self._seen_at = -math.inf
        self._current = False
        """Whether what was seen last is what we wrote last, so that it need not be read again."""

    def role(self, now: float) -> Role:
        """Return what this is now; a term that is over ends it."""
        if self._role is Role.LEADING and now >= self.until:
            self._role = Role.ENDED
        return self._role

    def leads(self, now: float) -> bool:
        """Return whether this candidate may work now."""
        return self.role(now) is Role.LEADING

    @property
    def holder(self) -> str:
        """Return who held the Lease when it was seen last; empty: nobody."""
        return _spec(self._seen).get("holderIdentity") or ""

    def begin(self, now: float, stamp: str) -> Object | None:
        """Begin a try: return the Lease to write at once, or None: read it first."""
        if self.leads(now) and self._current and self._seen is not None:
            return self._claim(self._seen, stamp)
        return None

    def read(self, lease: Object | None, now: float, stamp: str) -> Object | None:
        """Take the Lease as it is (None: there is none); return what to write, or None.

        None: somebody else holds it, and the try is over.
        """
        if lease is None:
            # Whoever removed it, its holder may believe in it until the end of its term.
            if not self.leads(now) and now < self._ends():
                self.due = min(self._later(now), self._ends())
                return None
            return self._claim({}, stamp)
        if self._seen is None or _record(lease) != _record(self._seen):
            self._seen_at = now
        self._seen = lease
        if self.holder == self.identity:
            return self._claim(lease, stamp)
        if self.role(now) is Role.LEADING:
            # Somebody has taken or removed what we held: we may know less than we think.
            self._role = Role.ENDED
        if self.holder and now < self._ends():
            self.due = min(self._later(now), self._ends())
            return None
        return self._claim(lease, stamp)

    def written(self, lease: Object, *, sent: float, now: float) -> None:
        """Take note that a write, sent at ``sent``, succeeded; ``lease`` is the answer."""
        self._seen, self._seen_at, self._current = lease, now, True
        if self.role(now) is Role.WAITING:
            self._role = Role.LEADING
        # Other than for ours, the server's time counts for others: it wrote after this was sent.
        self.until = max(self.until, sent + self._terms.renew)
        self.role(now)
        self.due = now + self._terms.retry

    def failed(self, now: float) -> None:
        """Take note that a try has failed, or that nobody knows what became of it."""
        self._current = False
        leading = self.role(now) is Role.LEADING
        self.due = now + self._terms.retry if leading else self._later(now)

    def release(self, now: float, stamp: str) -> Object | None:
        """End leading; return the Lease to write so that others need not wait. None: not ours."""
        leading, seen = self.leads(now), self._seen
        self._role = Role.ENDED
        if not leading or not self._current or seen is None:
            return None
        spec = {
            **_spec(seen),
            "holderIdentity": "",
            "leaseDurationSeconds": 1,
            "acquireTime": stamp,
            "renewTime": stamp,
        }
        return {**seen, "spec": spec}

    def _ends(self) -> float:
        """Return when the term that was seen last ends, as far as others may know."""
        lasts = _spec(self._seen).get("leaseDurationSeconds")
        # Who writes nonsense is left alone for as long as we would want to be.
        return self._seen_at + (lasts if isinstance(lasts, int | float) else self._terms.lease)

    def _later(self, now: float) -> float:
        return now + self._terms.retry * (1 + JITTER * self._lot())

    def _claim(self, old: Object, stamp: str) -> Object | None:
        """Return the Lease as it should be; who has ended claims nothing any more."""
        if self._role is Role.ENDED:
            return None
        before = _spec(old)
        ours = before.get("holderIdentity") == self.identity
        transitions = int(before.get("leaseTransitions") or 0)
        if old and not ours:
            transitions += 1
        spec = {
            **before,
            "holderIdentity": self.identity,
            "leaseDurationSeconds": math.ceil(self._terms.lease),
            "acquireTime": before.get("acquireTime") if ours else stamp,
            "renewTime": stamp,
            "leaseTransitions": transitions,
        }
        return {**old, "spec": spec}


def _spec(lease: Object | None) -> Object:
    return (lease or {}).get("spec") or {}


def _record(lease: Object) -> tuple[str, Object]:
    """Return what a holder changes when it renews."""
    return str((lease.get("metadata") or {}).get("uid", "")), _spec(lease)


class Leases(Protocol):
    """Reads and writes of the API; :class:`kproxy.client.objects.ObjectClient` fulfils it.

    Its requests must give up after ``renew / 2`` seconds.
    """

    def get(self, kind: kinds.Kind, namespace: str, name: str) -> Object | None:
        """Return an object as it is now; None if there is none."""
        ...

    def create(self, kind: kinds.Kind, obj: Object) -> Object:
        """Create an object. Raises Conflict if there is one of that name."""
        ...

    def update(self, kind: kinds.Kind, obj: Object) -> Object:
        """Replace an object. Raises Conflict if it has changed."""
        ...


def unique_identity() -> str:
    """Return an identity that no other process has, nor a later one of this name."""
    return f"{os.uname().nodename}_{uuid.uuid4()}"


class LeaderElection:
    """Runs an :class:`Elector` in threads.

    ``on_started`` is called once when this becomes leader, ``on_lost`` once when it no longer
    is: by then nothing more may be written, so most programs end there. Neither is called
    after :meth:`stop`.
    """

    def __init__(
        self,
        leases: Leases,
        elector: Elector,
        *,
        namespace: str,
        name: str,
        log: logs.Log,
        on_started: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._leases = leases
        self._elector = elector
        self._of = {"namespace": namespace, "name": name}
        self._log = log
        self._on_started = on_started
        self._on_lost = on_lost
        self._changed = threading.Condition()
        self._stopping = False
        self._led = False
        self._threads = [
            threading.Thread(target=self._run, name="election", daemon=True),
            threading.Thread(target=self._watch_term, name="term", daemon=True),
        ]

    def start(self) -> None:
        """Begin to stand for election."""
        for thread in self._threads:
            thread.start()

    def leads(self) -> bool:
        """Return whether this process may work at this moment."""
        with self._changed:
            return self._elector.leads(time.monotonic())

    def stop(self) -> None:
        """End it, and release the Lease if it is ours; all work must have ended before."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        # The one that makes requests first: until then the term has to be watched.
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        lease = self._elector.release(time.monotonic(), rfc3339.microtime(time.time()))
        if lease is None:
            return
        try:
            self._leases.update(catalog.LEASE, lease)
            self._log.info("leadership released", lease=self._of["name"])
        except errors.KproxyError as error:
            self._log.warning("lease not released", lease=self._of["name"], error=str(error))

    def _run(self) -> None:
        while self._wait_until_due():
            try:
                self._try()
            except errors.KproxyError as error:
                with self._changed:
                    self._elector.failed(time.monotonic())
                level = self._log.debug if _refused(error) else self._log.warning
                level("lease not obtained", lease=self._of["name"], error=str(error))
            except Exception as error:
                # What a server may answer that is no Lease at all must not end the candidate.
                with self._changed:
                    self._elector.failed(time.monotonic())
                self._log.error("election broke", lease=self._of["name"], error=repr(error))
            self._tell_start()

    def _wait_until_due(self) -> bool:
        """Wait for the next try; return False if there is none."""
        with self._changed:
            while not self._stopping:
                now = time.monotonic()
                if self._elector.role(now) is Role.ENDED:
                    self._changed.notify_all()
                    return False
                if now >= self._elector.due:
                    return True
                self._changed.wait(self._elector.due - now)
            return False

    def _try(self) -> None:
        with self._changed:
            wanted = self._elector.begin(time.monotonic(), rfc3339.microtime(time.time()))
        if wanted is None:
            found = self._leases.get(catalog.LEASE, self._of["namespace"], self._of["name"])
            with self._changed:
                before = self._elector.holder
                wanted = self._elector.read(
                    found, time.monotonic(), rfc3339.microtime(time.time())
                )
                holder = self._elector.holder
            if holder != before:
                self._log.info("leader seen", lease=self._of["name"], holder=holder)
            if wanted is None:
                return
        sent = time.monotonic()
        if "metadata" in wanted:
            answer = self._leases.update(catalog.LEASE, wanted)
        else:
            answer = self._leases.create(catalog.LEASE, {**wanted, "metadata": self._of})
        with self._changed:
            self._elector.written(answer, sent=sent, now=time.monotonic())
            self._changed.notify_all()

    def _tell_start(self) -> None:
        with self._changed:
            if self._led or self._stopping or not self._elector.leads(time.monotonic()):
                return
            self._led = True
        self._log.info("leading", lease=self._of["name"], identity=self._elector.identity)
        self._on_started()

    def _watch_term(self) -> None:
        """Tell the loss at the moment it happens, whatever the other thread is waiting for."""
        with self._changed:
            while not self._stopping:
                now = time.monotonic()
                role = self._elector.role(now)
                if role is Role.ENDED:
                    break
                self._changed.wait(self._elector.until - now if role is Role.LEADING else None)
            else:
                return
        self._log.error("leadership lost", lease=self._of["name"])
        self._on_lost()


def _refused(error: errors.KproxyError) -> bool:
    """Return whether this is only that another candidate was quicker."""
    return isinstance(error, errors.Conflict)

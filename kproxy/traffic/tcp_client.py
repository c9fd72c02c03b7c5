"""The TCP client: established request/response flows, and new connections at a rate.

    python -m kproxy.traffic.tcp_client [--once PROFILE]

A process that is told over a pipe what to do (see ``control``). An established connection has
one request every interval; one that is not answered in time, or whose connection breaks, has
failed, and the connection is made again at the next interval. A new connection is made, has one
request answered, and is closed by the client. Everything that ends is one record. Bulk is an
established connection whose requests are long and whose answers are short. All of it goes over
TCP, or over SCTP where the kernel has that.

Nothing here blocks: one epoll, and a heap of deadlines.
"""

import heapq
import select
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from kproxy.traffic import control, profile, recordfile, records, schedule, tcp_exchange

#: After a stall at most this much of the plan is made up for; the rest is "not started".
CATCH_UP_NS = control.SECOND
FOR_EVER_NS = 86_400 * control.SECOND
_OUTCOME = {name: number for number, name in enumerate(records.OUTCOMES)}


class Kept:
    """A connection that is kept open, with a request every interval."""

    def __init__(self, run: "Run", target: profile.Established, connection: int) -> None:
        self.run = run
        self.interval = int(target.interval_s * control.SECOND)
        self.exchange = tcp_exchange.Exchange(run, target, connection, self._ended)
        self.establishments = 0
        self.requests = 0
        self.request_start = 0
        self.tick_at = run.t0 + connection * self.interval // target.connections
        run.at(self.tick_at, self.tick)

    def tick(self, now: int, number: int) -> None:
        """Send the next request, or connect; do nothing while one is waiting."""
        missed = max(0, now - self.tick_at) // self.interval
        self.tick_at += (missed + 1) * self.interval
        self.run.at(self.tick_at, self.tick)
        if self.exchange.waiting:
            return
        if self.exchange.sock is None:
            self.exchange.connect(now)
        else:
            self._request(now)

    def _request(self, now: int) -> None:
        self.request_start = now
        self.requests += 1
        self.exchange.request(now, self.requests - 1)

    def _ended(self, exchange: tcp_exchange.Exchange, outcome: str) -> None:
        now = time.monotonic_ns()
        if outcome == "connected" or not exchange.connected:
            good = "ok" if outcome == "connected" else outcome
            self.run.note(
                records.KIND_ESTABLISH, exchange, good, self.establishments, exchange.start, now
            )
            self.establishments += outcome == "connected" or self.establishments > 0
            if outcome == "connected":
                self._request(now)
        else:
            # A connection that breaks while idle counts as a request that failed at that time.
            start = self.request_start or now
            self.run.note(records.KIND_REQUEST, exchange, outcome, self.requests - 1, start, now)
            self.request_start = 0

    def stop(self, now: int) -> None:
        """End: what is waiting is unfinished."""
        if self.exchange.waiting and self.exchange.connected:
            self.run.note(
                records.KIND_REQUEST,
                self.exchange,
                "unfinished",
                self.requests - 1,
                self.request_start,
                now,
            )
        self.exchange.close()


class Fresh:
    """New connections to one target at a rate."""

    def __init__(self, run: "Run", target: profile.Connects) -> None:
        self.run = run
        self.target = target
        self.schedule = schedule.Schedule.at_rate(run.t0, target.rate_per_s)
        self.next = 0
        self.open: set[tcp_exchange.Exchange] = set()
        run.at(self.schedule.due(0), self.tick)

    def tick(self, now: int, number: int) -> None:
        """Begin the connection that is due; after a stall the next ones are due at once."""
        while self.schedule.due(self.next) < now - CATCH_UP_NS:
            self.next += 1
            self.run.not_started += 1
        exchange = tcp_exchange.Exchange(self.run, self.target, self.next, self._ended)
        self.open.add(exchange)
        self.next += 1
        self.run.at(self.schedule.due(self.next), self.tick)
        exchange.connect(now)

    def _ended(self, exchange: tcp_exchange.Exchange, outcome: str) -> None:
        if outcome == "connected":
            exchange.request(exchange.connected, 0)
            return
        self._note(exchange, outcome)
        exchange.close()
        self.open.discard(exchange)

    def _note(self, exchange: tcp_exchange.Exchange, outcome: str) -> None:
        now = time.monotonic_ns()
        self.run.note(records.KIND_CONNECT, exchange, outcome, 0, exchange.start, now)

    def stop(self, now: int) -> None:
        """End: connections that are still open are unfinished."""
        for exchange in self.open:
            self._note(exchange, "unfinished")
            exchange.close()


class Run:
    """One run of a profile: its sockets, its deadlines, its records."""

    def __init__(self, wanted: profile.TcpProfile) -> None:
        self.wanted = wanted
        self.trial = wanted.trial
        self._epoll = select.epoll()
        self.fds = (self._epoll.fileno(),)
        self.writer = recordfile.RecordWriter(
            wanted.record, recordfile.KIND_TCP, records.TCP.size, wanted.capacity, "tcp_client"
        )
        self.outcomes: Counter[str] = Counter()
        self.not_started = 0
        self._watched: dict[int, tcp_exchange.Exchange] = {}
        self._deadlines: list[tuple[int, int, Callable[[int, int], None]]] = []
        self._number = 0
        self.t0 = time.monotonic_ns()
        self.ends = (
            None
            if wanted.duration_s is None
            else self.t0 + int(wanted.duration_s * control.SECOND)
        )
        self._parts: list[Kept | Fresh] = [
            Kept(self, target, number)
            for target in wanted.established
            for number in range(target.connections)
        ]
        self._parts.extend(Fresh(self, target) for target in wanted.connects)

    def at(self, deadline: int, action: Callable[[int, int], None]) -> int:
        """Call ``action(now, number)`` when ``deadline`` has come; returns that number."""
        self._number += 1
        heapq.heappush(self._deadlines, (deadline, self._number, action))
        return self._number

    def watch(self, exchange: tcp_exchange.Exchange) -> None:
        """Wait for a connecting socket."""
        assert exchange.sock is not None
        self._watched[exchange.sock.fileno()] = exchange
        self._epoll.register(exchange.sock, select.EPOLLIN | select.EPOLLOUT)

    def readable_only(self, exchange: tcp_exchange.Exchange) -> None:
        """Wait no longer for a socket to be writable."""
        assert exchange.sock is not None
        self._epoll.modify(exchange.sock, select.EPOLLIN)

    def writable_too(self, exchange: tcp_exchange.Exchange) -> None:
        """Wait for a socket to be writable, too."""
        assert exchange.sock is not None
        self._epoll.modify(exchange.sock, select.EPOLLIN | select.EPOLLOUT)

    def unwatch(self, exchange: tcp_exchange.Exchange) -> None:
        """Forget a socket that is about to be closed."""
        assert exchange.sock is not None
        if self._watched.pop(exchange.sock.fileno(), None) is not None:
            with suppress(OSError):
                self._epoll.unregister(exchange.sock)

    def note(
        self,
        kind: int,
        exchange: tcp_exchange.Exchange,
        outcome: str,
        seq: int,
        start: int,
        end: int,
    ) -> None:
        """Write one record."""
        self.outcomes[outcome] += 1
        record = records.TCP.pack(
            kind,
            _OUTCOME[outcome],
            0,
            exchange.target.target,
            exchange.connection,
            seq,
            start,
            exchange.connected,
            end,
            exchange.pod.encode()[:55],
        )
        self.writer.append(record, 1)

    def deadline(self) -> int:
        """Return when :meth:`step` has something to do next."""
        soonest = self._deadlines[0][0] if self._deadlines else self.t0 + FOR_EVER_NS
        return soonest if self.ends is None else min(soonest, self.ends)

    @property
    def sent(self) -> int:
        """How many requests and connections have ended."""
        return self.writer.count

    @property
    def endless(self) -> bool:
        """Whether the run goes on until it is closed."""
        return self.ends is None

    @property
    def finished(self) -> bool:
        """Whether the profile's duration is over."""
        return self.ends is not None and time.monotonic_ns() >= self.ends

    def step(self) -> None:
        """Handle events of sockets, then the deadlines that have come."""
        for fd, _ in self._epoll.poll(0):
            if (exchange := self._watched.get(fd)) is not None:
                exchange.event(time.monotonic_ns())
        now = time.monotonic_ns()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, number, action = heapq.heappop(self._deadlines)
            action(now, number)

    def close(self) -> dict[str, Any]:
        """End the run; return its report."""
        now = time.monotonic_ns()
        for part in self._parts:
            part.stop(now)
        self._epoll.close()
        self.writer.close()
        return {
            "trial": self.wanted.trial,
            "t0_ns": self.t0,
            "seconds": (now - self.t0) / control.SECOND,
            "outcomes": dict(self.outcomes),
            "not_started": self.not_started,
        }


def open_run(path: Path) -> Run:
    """Read a profile and begin its run."""
    return Run(profile.read_tcp(path))


if __name__ == "__main__":
    sys.exit(control.main("tcp_client", open_run, sys.argv[1:]))

"""What became of a trial's traffic: the records that generators and pods left, accounted for.

Record files grow from trial to trial; what was read is not read again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kproxy.lab import generators
from kproxy.lab.losswatch import LossWatch
from kproxy.traffic import accounting, measurement, records, resultset, tcp_accounting
from netns.kernels import base


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What one client sent in a trial, and its generators' own reports."""

    place: str
    started: generators.Started
    udp: dict[str, Any] | None
    tcp: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """When it was watched, and what is late. Nanoseconds; see :class:`accounting.Plan`."""

    fault_ns: int | None
    until_ns: int
    tmax_ns: int


class Accounts:
    """The accounts of a lab's trials. ``places``: the number of the vantage point of each."""

    def __init__(self, directory: Path, places: Mapping[str, int], udp_pps: float) -> None:
        self._directory = directory
        self._place_of = {number: place for place, number in places.items()}
        self._udp_pps = udp_pps
        self._records_read: dict[Path, int] = {}
        self._drops_read: dict[Path, int] = {}

    def served(self, trial: int) -> dict[str, set[str]]:
        """Return the places from which each pod has had packets in this trial up to now."""
        found: dict[str, set[str]] = {}
        for path in self._files():
            start = self._records_read.get(path, 0)
            packets, state = records.received_array(path, trial, start=start)
            numbers = np.unique(generators.origin(packets["flow"]))
            found.setdefault(state.pod, set()).update(self._place_of[int(n)] for n in numbers)
        return found

    def account(
        self, trial: int, sent: list[Sent], window: Window, watch: LossWatch | None = None
    ) -> list[resultset.Measurement]:
        """Return a measurement for every place and kind of traffic. Once for each trial."""
        received, receivers = self._received(trial)
        found: list[resultset.Measurement] = []
        for one in sent:
            if one.started.udp_record and one.udp is not None:
                plan = accounting.Plan(
                    rate_pps=self._udp_pps,
                    flows=len(one.started.services),
                    watched_until_ns=window.until_ns,
                    fault_ns=window.fault_ns,
                    tmax_ns=window.tmax_ns,
                    services=one.started.services,
                )
                packets = records.sent_array(one.started.udp_record)
                arrived = received[one.place]
                if watch is not None:
                    arrived = watch.take(one.place, packets, arrived, plan)
                account = accounting.account(packets, arrived, plan)
                found.append(
                    measurement.udp(
                        account,
                        node=one.place,
                        report=one.udp,
                        receivers=receivers,
                        timed=base.clock() is not base.Clock.VIRTUAL,
                    )
                )
            if one.started.tcp_record:
                everything = records.read_tcp(one.started.tcp_record)
                if watch is not None:
                    watch.take_tcp(one.place, everything)
                found += _tcp(everything, one.place, window.fault_ns)
        return found if watch is None else watch.explain(trial, found)

    def _files(self) -> list[Path]:
        return sorted(self._directory.glob("*.received"))

    def _received(
        self, trial: int
    ) -> tuple[dict[str, dict[str, NDArray[Any]]], list[records.ReceiverState]]:
        """Read all pods' records of a trial, also of pods that are gone, by place of origin."""
        by_place: dict[str, dict[str, NDArray[Any]]] = {
            place: {} for place in self._place_of.values()
        }
        states = []
        for path in self._files():
            start = self._records_read.get(path, 0)
            packets, state = records.received_array(path, trial, start=start)
            self._records_read[path] = state.records
            # The kernel counts a socket's drops since it was opened.
            dropped = state.drops - self._drops_read.get(path, 0)
            self._drops_read[path] = state.drops
            states.append(state._replace(drops=max(0, dropped)))
            origins = generators.origin(packets["flow"])
            for number, place in self._place_of.items():
                mine = packets[origins == number]
                before = by_place[place].get(state.pod)
                by_place[place][state.pod] = (
                    mine if before is None else np.concatenate([before, mine])
                )
        return by_place, states


def _tcp(
    everything: list[records.TcpRecord], place: str, fault_ns: int | None
) -> list[resultset.Measurement]:
    return [
        measurement.tcp(
            tcp_accounting.account(everything, kind, fault_ns=fault_ns),
            node=place,
            kind=kind,
            fault_ns=fault_ns,
            timed=base.clock() is not base.Clock.VIRTUAL,
        )
        for kind in ("request", "connect")
    ]

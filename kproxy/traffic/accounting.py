"""From records of packets to numbers: loss, duplicates, reordering, outages. Pure.

The definitions are in ``docs/measuring.md``, each with its RFC. In short: a packet is *lost* if
it was sent and did not arrive within Tmax (RFC 7680); a packet that was never sent is not lost;
packets sent in the last Tmax of the time that was watched are set aside (RFC 4656). All times are
nanoseconds of one clock.

Records are structured numpy arrays: of sent packets with the fields ``flow``, ``seq``, ``ns`` and
``status``, of received ones with ``flow``, ``seq`` and ``received_ns``. Nothing here loops over
packets, and :class:`Accountant` takes a trial in parts, so its length does not decide how much
memory is used. :mod:`kproxy.traffic.matching` has what is done to one part.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kproxy.traffic import matching, records
from kproxy.traffic.matching import Part

DEFAULT_TMAX_NS = 2_000_000_000
LEAST_STEP_NS = 10_000_000
MOST_BINS = 2048
_STEPS = (1, 2, 5)

Array = NDArray[Any]

_FLOW = np.dtype(
    [
        *((name, "i8") for name in ("flow", "sent", "lost", "late", "duplicated", "reordered")),
        *((name, "i8") for name in ("not_sent", "failed", "discarded", "outside_fault", "gap")),
        *((name, "i4") for name in ("pod_before", "pod_after")),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the sender was to do, and when the receivers were last known to listen.

    ``fault_ns`` is None for a trial without a fault. Packets sent after
    ``watched_until_ns - tmax_ns`` are set aside. ``services`` names the service of each flow.
    """

    rate_pps: float
    flows: int
    watched_until_ns: int
    fault_ns: int | None = None
    tmax_ns: int = DEFAULT_TMAX_NS
    services: Mapping[int, str] = field(default_factory=dict)

    @property
    def interval_ns(self) -> float:
        """The planned time between two packets of one flow."""
        return self.flows * 1e9 / self.rate_pps


@dataclass(frozen=True, slots=True, kw_only=True)
class Good:
    """A packet beside a loss that arrived: when it was sent, and when it came."""

    seq: int
    ns: int
    received_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """The impairment of one flow, from its first lost packet to its last.

    ``before`` is the last good packet before it and ``after`` the first one behind it; None: there
    was none. ``span`` counts the packets from the first lost to the last lost one.
    """

    lost: int
    span: int
    first_lost_ns: int
    last_lost_ns: int
    before: Good | None
    after: Good | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowAccount:
    """Everything about one flow. ``lost`` includes ``late``; ``pod_*`` are "" if nobody answered.

    ``outside_fault`` counts the losses that the fault cannot explain: packets sent more than Tmax
    before it, and all of them in a trial without a fault.
    """

    flow: int
    sent: int
    received: int
    lost: int
    late: int
    duplicated: int
    reordered: int
    not_sent: int
    failed: int
    discarded: int
    outside_fault: int
    loss_periods: int
    largest_gap_ns: int
    pod_before: str
    pod_after: str
    outage: Outage | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """All flows of one sender in one trial. ``strangers`` arrived without having been sent.

    ``periods`` has a row for each loss period (fields of :data:`matching.PERIOD`), by flow and
    time. ``sent_bins`` and ``lost_bins`` have a row for each of ``flows`` and a column for each
    ``step_ns`` from ``start_ns`` on, by time of sending. ``delays_us`` counts the packets that
    arrived in time by their delay in whole microseconds.
    """

    plan: Plan
    flows: tuple[FlowAccount, ...]
    strangers: int
    periods: Array
    start_ns: int
    step_ns: int
    sent_bins: Array
    lost_bins: Array
    delays_us: Array

    def total(self, name: str) -> int:
        """Return the sum of one counter over the flows."""
        return sum(int(getattr(flow, name)) for flow in self.flows)

    @property
    def affected(self) -> tuple[FlowAccount, ...]:
        """The flows that lost packets."""
        return tuple(flow for flow in self.flows if flow.outage is not None)


def account(sent: Array, received: Mapping[str, Array], plan: Plan) -> Account:
    """Account for a trial that fits into memory; ``received``: what came to each pod, in order."""
    accountant = Accountant(plan)
    accountant.add(sent, received)
    return accountant.result()


class Accountant:
    """Accounts for a trial in parts that follow each other in time."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._rows: dict[int, int] = {}
        self._flows = np.zeros(0, _FLOW)
        self._counted = np.zeros(0, "i8")
        """How many packets of each flow have been judged up to now."""
        self._passed = np.zeros(0, "i8")
        """The greatest sequence number of each flow up to now."""
        self._tails = np.zeros(0, matching.PACKET)
        """The last of them; ``row`` is -1 where there was none yet."""
        self._pods: list[str] = []
        self._begins: list[Array] = []
        self._ends: list[Array] = []
        self._overtakable = np.zeros(0, matching.PACKET)
        self._strangers = 0
        self._start_ns = 0
        self._step_ns = 0
        self._sent_bins = np.zeros((0, 0), "u4")
        self._lost_bins = np.zeros((0, 0), "u4")
        self._delays = np.zeros(plan.tmax_ns // 1000 + 2, "u4")

    def add(self, sent: Array, received: Mapping[str, Array]) -> None:
        """Account for some packets: those sent after the ones before, and all their arrivals.

        Within a flow ``seq`` ascends. Arrivals of packets of earlier parts count as late, and
        whatever else arrives that was not sent among the strangers.
        """
        if not len(sent):
            self._strangers += sum(len(arrived) for arrived in received.values())
            return
        rows = self._rows_of(sent["flow"])
        part = matching.match(sent, rows, self._numbered(received), self._passed)
        np.maximum.at(self._passed, rows, sent["seq"].astype("i8"))
        self._strangers += part.strangers
        self._add("duplicated", part.duplicates)
        self._add("late", part.belated)
        self._reorder(part)
        for status, name in (
            (records.STATUS_NOT_SENT, "not_sent"),
            (records.STATUS_FAILED, "failed"),
        ):
            self._add(name, rows[sent["status"] == status])
        judged = part.packets["ns"] <= self._plan.watched_until_ns - self._plan.tmax_ns
        self._add("discarded", part.packets["row"][~judged])
        self._judge(part.packets[judged])

    def result(self) -> Account:
        """Return the account of everything that was added."""
        self._widen_bins()
        order = np.argsort(self._flows["flow"])
        periods = matching.periods(self._begins, self._ends, self._counted, self._tails)
        grouped = _by_row(periods)
        flows = [self._flow(int(row), grouped.get(int(row))) for row in order]
        periods["flow"] = self._flows["flow"][periods["row"]]
        return Account(
            plan=self._plan,
            flows=tuple(flows),
            strangers=self._strangers,
            periods=periods[np.lexsort((periods["first_ns"], periods["flow"]))],
            start_ns=self._start_ns,
            step_ns=self._step_ns,
            sent_bins=self._sent_bins[order],
            lost_bins=self._lost_bins[order],
            delays_us=self._delays,
        )

    def _numbered(self, received: Mapping[str, Array]) -> Iterator[tuple[int, Array, Array]]:
        """Yield the number of each pod, what it received, and the rows of that (-1: no such)."""
        for pod, arrived in received.items():
            if pod not in self._pods:
                self._pods.append(pod)
            flows, inverse = np.unique(arrived["flow"], return_inverse=True)
            rows = np.array([self._rows.get(int(flow), -1) for flow in flows], "i8")
            yield self._pods.index(pod), arrived, rows[inverse]

    def _rows_of(self, flows: Array) -> Array:
        """Return the row of each packet's flow; flows that are new get one."""
        distinct, inverse = np.unique(flows, return_inverse=True)
        for flow in distinct.tolist():
            self._rows.setdefault(flow, len(self._rows))
        new = len(self._rows) - len(self._flows)
        if new:
            more = np.zeros(new, _FLOW)
            more["flow"] = list(self._rows)[-new:]
            more["pod_before"] = more["pod_after"] = -1
            self._flows = np.concatenate([self._flows, more])
            self._counted = np.concatenate([self._counted, np.zeros(new, "i8")])
            self._passed = np.concatenate([self._passed, np.full(new, -1, "i8")])
            tails = np.zeros(new, matching.PACKET)
            tails["row"] = -1
            self._tails = np.concatenate([self._tails, tails])
        rows: Array = np.array([self._rows[flow] for flow in distinct.tolist()], "i8")[inverse]
        return rows

    def _add(self, name: str, rows: Array) -> None:
        self._flows[name] += np.bincount(rows, minlength=len(self._flows))

    def _reorder(self, part: Part) -> None:
        """Count what arrived after a later packet of its flow (RFC 4737, 3.3), also of parts."""
        arrived = part.packets[part.packets["received_ns"] >= 0]
        self._add("reordered", arrived["row"][matching.overtaken(arrived)])
        waiting = self._overtakable
        if len(arrived):
            earliest = np.full(len(self._flows), np.iinfo("i8").max)
            np.minimum.at(earliest, arrived["row"], arrived["received_ns"])
            late = waiting["received_ns"] > earliest[waiting["row"]]
            self._add("reordered", waiting["row"][late])
            waiting = np.concatenate([waiting[~late], arrived[~matching.overtaken(arrived)]])
        # What had arrived when the part's last packet was sent cannot be overtaken any more.
        last = part.packets["ns"].max(initial=0)
        self._overtakable = waiting[waiting["received_ns"] > last]

    def _judge(self, packets: Array) -> None:
        """Account for packets that are to be judged, sorted by row and sequence number."""
        if not len(packets):
            return
        tmax, fault = self._plan.tmax_ns, self._plan.fault_ns
        bad = matching.bad(packets, tmax)
        row, ns = packets["row"], packets["ns"]
        self._add("sent", row)
        self._add("lost", row[bad])
        self._add("late", row[bad & (packets["received_ns"] >= 0)])
        outside = bad if fault is None else bad & (ns < fault - tmax)
        self._add("outside_fault", row[outside])
        good = packets[~bad]
        np.add.at(self._delays, np.maximum(0, good["received_ns"] - good["ns"]) // 1000, 1)
        self._note_pods(packets[packets["received_ns"] >= 0])
        self._fill_bins(packets, bad)
        edges = matching.edges(packets, self._tails, self._counted, tmax)
        self._begins.append(edges.begins)
        self._ends.append(edges.ends)
        np.maximum.at(self._flows["gap"], edges.gap_rows, edges.gaps)
        self._counted += np.bincount(row, minlength=len(self._counted))
        self._tails[row] = packets  # of several with one row the last one stays

    def _note_pods(self, arrived: Array) -> None:
        fault = self._plan.fault_ns
        self._flows["pod_after"][arrived["row"]] = arrived["pod"]
        before = arrived if fault is None else arrived[arrived["ns"] < fault]
        self._flows["pod_before"][before["row"]] = before["pod"]

    def _fill_bins(self, packets: Array, bad: Array) -> None:
        ns = packets["ns"]
        if not self._step_ns:
            self._lay_bins(int(ns.min()))
        self._widen_bins()
        bins = self._sent_bins.shape[1]
        column = np.clip((ns - self._start_ns) // self._step_ns, 0, bins - 1)
        np.add.at(self._sent_bins, (packets["row"], column), 1)
        np.add.at(self._lost_bins, (packets["row"][bad], column[bad]), 1)

    def _widen_bins(self) -> None:
        """Have a row of bins for every flow."""
        more = np.zeros((len(self._flows) - len(self._sent_bins), self._sent_bins.shape[1]), "u4")
        self._sent_bins = np.concatenate([self._sent_bins, more])
        self._lost_bins = np.concatenate([self._lost_bins, more])

    def _lay_bins(self, first_ns: int) -> None:
        """Choose the sampling interval: at least a flow's (RFC 6412), and not too many of them."""
        zero = first_ns if self._plan.fault_ns is None else self._plan.fault_ns
        end = self._plan.watched_until_ns - self._plan.tmax_ns
        least = max(LEAST_STEP_NS, self._plan.interval_ns, (end - first_ns) / MOST_BINS)
        self._step_ns = sampling_interval(least)
        self._start_ns = zero + (first_ns - zero) // self._step_ns * self._step_ns
        bins = (end - self._start_ns) // self._step_ns + 1
        self._sent_bins = np.zeros((0, bins), "u4")
        self._lost_bins = np.zeros((0, bins), "u4")

    def _flow(self, row: int, periods: Array | None) -> FlowAccount:
        one = self._flows[row]
        count = {name: int(one[name]) for name in one.dtype.names if not name.startswith("pod")}
        gap = count.pop("gap")
        return FlowAccount(
            **count,
            received=count["sent"] - count["lost"],
            largest_gap_ns=gap,
            loss_periods=0 if periods is None else len(periods),
            pod_before=self._pod(one["pod_before"]),
            pod_after=self._pod(one["pod_after"]),
            outage=None if periods is None else _outage(periods),
        )

    def _pod(self, number: int) -> str:
        return self._pods[number] if number >= 0 else ""


def sampling_interval(least_ns: float) -> int:
    """Return the smallest 1, 2 or 5 times a power of ten that is not less, in nanoseconds."""
    power = 1
    while True:
        for digit in _STEPS:
            if digit * power >= least_ns:
                return digit * power
        power *= 10


def _by_row(periods: Array) -> dict[int, Array]:
    if not len(periods):
        return {}
    rows, starts = np.unique(periods["row"], return_index=True)
    return dict(zip(rows.tolist(), np.split(periods, starts[1:]), strict=True))


def _outage(periods: Array) -> Outage:
    """Return the outage of one flow from its loss periods, which are in the order of time."""
    first, last = periods[0], periods[-1]
    return Outage(
        lost=int(periods["lost"].sum()),
        span=int(last["ordinal"] + last["lost"] - first["ordinal"]),
        first_lost_ns=int(first["first_ns"]),
        last_lost_ns=int(last["last_ns"]),
        before=_good(first, "before"),
        after=_good(last, "after"),
    )


def _good(period: Any, which: str) -> Good | None:
    seq, ns, received = (int(period[f"{which}_{name}"]) for name in ("seq", "ns", "received_ns"))
    return None if received < 0 else Good(seq=seq, ns=ns, received_ns=received)

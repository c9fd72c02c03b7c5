"""The figures of one measurement as values: each with the interval in which the truth lies.

``docs/measuring.md`` has the definition of each with its RFC. Times are milliseconds; a field that
does not apply is None.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A time and what it is accurate to: the truth lies between ``low_ms`` and ``high_ms``."""

    ms: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistic:
    """Of several values of one measurement, for example of the flows of a service."""

    min: float
    median: float
    mean: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failover:
    """The failover time of the slowest flow by the three methods of RFC 6414, side by side.

    ``tbm_ms``: by time stamps in the packets, ``plbm_ms``: by the number of lost packets,
    ``tblm_ms``: by the tester's clock, from the fault to the arrival of the first good packet.
    ``agree``: whether there is a time that lies in all their intervals, for every affected flow.
    """

    tbm_ms: Figure
    plbm_ms: Figure
    tblm_ms: Figure
    agree: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence:
    """Rate-derived convergence (RFC 6412): seen at ``sampling_interval_ms``, after the fault.

    ``loss_begins_ms``: when the forwarding rate fell; ``first_route_ms``: when it first rose
    again; ``full_ms``: since when it was the offered load, for the rest of what was watched
    (``sustained_ms``).
    ``loss_derived_ms``: lost packets of all flows by their offered rate, an average.
    Without loss there is only the last one; the two before it and ``first_route_ms`` are None also
    where the rate did not recover.
    """

    sampling_interval_ms: float
    loss_begins_ms: Figure | None
    first_route_ms: Figure | None
    full_ms: Figure | None
    sustained_ms: float | None
    loss_derived_ms: Figure | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceResult:
    """One service in one measurement; a service is what a route is in RFC 6412.

    ``loss_derived_ms`` is of its affected flows, each a stream of its own: the route-specific
    loss-derived time. It is exact to ``accuracy_ms`` more or less.
    """

    service: str
    flows: int
    affected_flows: int
    offered_pps: float
    sent: int
    lost: int
    loss_derived_ms: Statistic | None
    accuracy_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LossPattern:
    """How the losses of all flows are spread over their packets (RFC 3357).

    ``periods``: runs of consecutive losses; ``lengths``: lost packets in each; ``distances``:
    packets of its flow from the last loss of one period to the first of the next; None for fewer
    than two. ``noticeable_rate``: the share of the losses that came no more than ``constraint``
    packets after the one before.
    """

    periods: int
    lengths: Statistic | None
    distances: Statistic | None
    noticeable_rate: float | None
    constraint: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """One-way delay of the packets that arrived in time (RFC 8219), each to ``accuracy_ms``.

    ``pdv_ms`` is the packet delay variation: ``p999_ms`` minus ``min_ms``.
    """

    min_ms: float
    p1_ms: float
    median_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    pdv_ms: float
    accuracy_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """Three instants of one clock, milliseconds after the fault.

    ``event_ms`` is the fault itself; ``programmed_ms``: the node's kernel had been told, by the
    end of the sync that did it; ``recovered_ms``: every affected flow had a good packet again.
    """

    event_ms: float
    programmed_ms: float | None
    recovered_ms: Figure | None

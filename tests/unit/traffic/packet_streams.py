"""Synthetic records of an isochronous stream, with an outage of known length."""

from kproxy.traffic import accounting, records

MS = 1_000_000
RATE = 1000
FLOWS = 16
START = 5_000 * MS


def sent(seconds: float, *, rate: int = RATE, flows: int = FLOWS) -> list[records.Sent]:
    return [
        records.Sent(records.STATUS_SENT, 0, k % flows, k // flows, START + k * 10**9 // rate)
        for k in range(round(seconds * rate))
    ]


def arriving(
    packets: list[records.Sent],
    *,
    outage: tuple[int, int] = (0, 0),
    flows: frozenset[int] = frozenset(range(FLOWS)),
    delay: int = MS // 10,
) -> list[records.Received]:
    """Everything arrives but what ``flows`` send during the outage (times in ns)."""
    begin, end = outage
    return [
        records.Received(p.flow, p.seq, p.ns, p.ns + delay, f"pod-{p.flow % 4}")
        for p in packets
        if p.status == records.STATUS_SENT and not (begin <= p.ns < end and p.flow in flows)
    ]


def plan(packets: list[records.Sent], fault: int | None = None) -> accounting.Plan:
    tmax = 1000 * MS
    return accounting.Plan(
        rate_pps=RATE,
        flows=FLOWS,
        watched_until_ns=packets[-1].ns + tmax,
        fault_ns=fault,
        tmax_ns=tmax,
    )

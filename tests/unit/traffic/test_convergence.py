"""Outages of known length: every method has the truth in its interval, or they say why not."""

import packet_streams as streams
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from kproxy.traffic import accounting, convergence, delay, lossperiods, records
from kproxy.traffic.figures import Figure

MS = streams.MS
INTERVAL = 16 * MS
ALL = frozenset(range(streams.FLOWS))
FAULT = streams.START + 500 * MS


def outage(
    length: int,
    *,
    begin: int = FAULT,
    fault: int = FAULT,
    flows: frozenset[int] = ALL,
    delay_ns: int = MS // 10,
    seconds: float = 2.8,
) -> accounting.Account:
    packets = streams.sent(seconds)
    received = streams.arriving(
        packets, outage=(begin, begin + length), flows=flows, delay=delay_ns
    )
    return streams.account(packets, received, streams.plan(packets, fault=fault))


def within(truth_ns: float, figure: Figure) -> bool:
    # Figures are rounded to microseconds.
    return figure.low_ms - 0.001 <= truth_ns / MS <= figure.high_ms + 0.001


@pytest.mark.parametrize("length_ms", [1, 10, 100, 1000])
@examples(10)
@given(
    phase=st.integers(0, INTERVAL - 1),
    affected=st.frozensets(st.integers(0, streams.FLOWS - 1), min_size=1),
    delay_ns=st.integers(0, 3 * MS),
)
def test_all_methods_have_the_truth_in_their_intervals(
    length_ms: int, phase: int, affected: frozenset[int], delay_ns: int
) -> None:
    """Wherever the outage begins between two packets: too short or too long, never wrong."""
    begin = FAULT + phase
    account = outage(length_ms * MS, begin=begin, fault=begin, flows=affected, delay_ns=delay_ns)
    found = convergence.failover(account)
    assert found is not None
    assert found.agree
    for figure in (found.tbm_ms, found.plbm_ms, found.tblm_ms):
        assert within(length_ms * MS, figure)
        assert figure.low_ms <= figure.ms <= figure.high_ms
    hit = account.affected
    if hit:
        # What is told is what packets can tell: never wider than two intervals and the delay.
        assert found.tbm_ms.high_ms - found.tbm_ms.low_ms <= 2 * INTERVAL / MS
        assert found.plbm_ms.high_ms - found.plbm_ms.low_ms <= 2 * INTERVAL / MS
        assert found.tblm_ms.high_ms - found.tblm_ms.low_ms <= (INTERVAL + delay_ns) / MS + 0.001


@examples(10)
@given(
    length=st.integers(MS, 1200 * MS),
    phase=st.integers(0, INTERVAL - 1),
    stall_at=st.integers(400, 2000),
    stall=st.integers(0, 200 * MS),
)
def test_a_sender_that_stalls_costs_accuracy_and_not_truth(
    length: int, phase: int, stall_at: int, stall: int
) -> None:
    packets = streams.sent(2.8)
    until = packets[stall_at].ns + stall
    packets = [p._replace(ns=max(p.ns, until)) if p.ns >= until - stall else p for p in packets]
    begin = FAULT + phase
    received = streams.arriving(packets, outage=(begin, begin + length))
    account = streams.account(packets, received, streams.plan(packets, fault=begin))
    for flow in account.affected:
        assert flow.outage is not None
        found = convergence.times(flow.outage, account.plan)
        for method in (found.tbm, found.plbm, found.tblm):
            assert method is not None
            assert method[1] <= length <= method[2]
        assert found.agree


def test_loss_in_two_pieces_is_shorter_by_its_packets_than_by_its_time() -> None:
    packets = streams.sent(2.8)
    received = [
        packet
        for packet in streams.arriving(packets, outage=(FAULT, FAULT + 100 * MS))
        if not FAULT + 500 * MS <= packet.sent_ns < FAULT + 600 * MS
    ]
    account = streams.account(packets, received, streams.plan(packets, fault=FAULT))
    found = convergence.failover(account)
    assert found is not None
    assert found.plbm_ms.high_ms < found.tbm_ms.low_ms
    assert not found.agree


@pytest.mark.parametrize("shift", [-300 * MS, 300 * MS])
def test_loss_that_does_not_begin_with_the_event_is_told_by_the_testers_clock(shift: int) -> None:
    """Later than the event: TBLM is longer than the others. Before it: shorter."""
    found = convergence.failover(outage(400 * MS, begin=FAULT + shift))
    assert found is not None
    assert not found.agree
    if shift > 0:
        assert found.tblm_ms.low_ms > found.tbm_ms.high_ms
    else:
        assert found.tblm_ms.high_ms < found.tbm_ms.low_ms


def test_without_loss_an_outage_may_have_fallen_between_two_packets() -> None:
    found = convergence.failover(outage(0))
    assert found is not None
    for figure in (found.tbm_ms, found.plbm_ms, found.tblm_ms):
        assert (figure.ms, figure.low_ms, figure.high_ms) == (0, 0, 16)


def test_a_flow_that_does_not_recover_has_no_failover_but_what_it_lost() -> None:
    account = outage(10**12, flows=frozenset({5}))
    assert convergence.failover(account) is None
    assert convergence.recovered(account) is None
    (flow,) = account.affected
    assert flow.outage is not None
    found = convergence.times(flow.outage, account.plan)
    assert (found.tbm, found.tblm, found.in_one_piece) == (None, None, None)
    assert found.plbm[0] == flow.lost * INTERVAL
    rate = convergence.rate_derived(account)
    assert rate is not None
    assert rate.loss_begins_ms is not None
    assert (rate.first_route_ms, rate.full_ms, rate.sustained_ms) == (None, None, None)


def test_reset_time_counts_arrivals() -> None:
    account = outage(100 * MS, delay_ns=2 * MS)
    (slowest, *_) = sorted(account.affected, key=lambda flow: -flow.lost)
    assert slowest.outage is not None
    found = convergence.reset(slowest.outage)
    assert found is not None
    assert found.ms == slowest.lost * 16 + 16
    assert within(100 * MS, found)
    assert convergence.reset_ns(slowest.outage) == convergence.failover_ns(slowest.outage)


def test_recovered_is_when_the_last_flow_is() -> None:
    packets = streams.sent(2.8)
    early, late = frozenset(range(8)), frozenset(range(8, 16))
    ends = {True: FAULT + 100 * MS, False: FAULT + 300 * MS}
    received = [
        packet
        for packet in streams.arriving(packets)
        if not FAULT <= packet.sent_ns < ends[packet.flow in early]
    ]
    account = streams.account(packets, received, streams.plan(packets, fault=FAULT))
    found = convergence.recovered(account)
    assert found is not None
    assert within(300 * MS, found)
    assert {flow.flow for flow in account.affected} == early | late


@examples(20)
@given(
    length=st.integers(50 * MS, 900 * MS),
    phase=st.integers(0, 40 * MS),
    flows=st.frozensets(st.integers(0, streams.FLOWS - 1), min_size=1),
)
def test_the_forwarding_rate_shows_when_it_fell_and_when_it_was_back(
    length: int, phase: int, flows: frozenset[int]
) -> None:
    account = outage(length, begin=FAULT + phase, flows=flows)
    found = convergence.rate_derived(account)
    assert found is not None
    assert found.sampling_interval_ms == 20  # no less than the 16 ms of a flow
    assert found.loss_begins_ms is not None
    assert found.full_ms is not None
    assert found.first_route_ms is not None
    assert within(phase, found.loss_begins_ms)
    assert within(phase + length, found.full_ms)
    assert within(phase + length, found.first_route_ms)
    assert found.sustained_ms is not None
    assert found.sustained_ms > 0


def test_the_first_route_converges_before_the_last() -> None:
    packets = streams.sent(2.8)
    received = [
        packet
        for packet in streams.arriving(packets)
        if not FAULT <= packet.sent_ns < FAULT + (200 + 50 * (packet.flow % 4)) * MS
    ]
    account = streams.account(packets, received, streams.plan(packets, fault=FAULT))
    found = convergence.rate_derived(account)
    assert found is not None
    assert found.first_route_ms is not None
    assert found.full_ms is not None
    assert within(200 * MS, found.first_route_ms)
    assert within(350 * MS, found.full_ms)


def test_other_flows_do_not_blur_the_rate() -> None:
    """A share of losses that varies with the phase of the packets is no convergence."""
    account = outage(400 * MS, begin=FAULT + 3 * MS, flows=frozenset({1, 6}))
    found = convergence.rate_derived(account)
    assert found is not None
    assert found.first_route_ms is not None
    assert within(403 * MS, found.first_route_ms)


def test_services_have_loss_derived_times_of_their_own() -> None:
    packets = streams.sent(2.8)
    hit = frozenset({0, 2, 4, 9})
    received = streams.arriving(packets, outage=(FAULT, FAULT + 320 * MS), flows=hit)
    names = {flow: "shop/dns" if flow < 8 else "shop/web" for flow in range(streams.FLOWS)}
    plan = accounting.Plan(
        rate_pps=streams.RATE,
        flows=streams.FLOWS,
        watched_until_ns=packets[-1].ns + 1000 * MS,
        fault_ns=FAULT,
        tmax_ns=1000 * MS,
        services=names,
    )
    dns, web = convergence.services(streams.account(packets, received, plan))
    assert (dns.service, dns.flows, dns.affected_flows, dns.lost) == ("shop/dns", 8, 3, 60)
    assert (web.service, web.affected_flows, web.lost) == ("shop/web", 1, 20)
    assert dns.offered_pps == web.offered_pps == 500
    for one in (dns, web):
        times = one.loss_derived_ms
        assert times is not None
        assert times.min == times.median == times.mean == times.max == 320
        assert one.accuracy_ms == 16


def lossy(lost: set[int], number: int = 400) -> accounting.Account:
    """Return the account of one flow that loses the packets with these numbers."""
    packets = [records.Sent(1, 0, 0, k, k * MS) for k in range(number)]
    received = [
        records.Received(0, p.seq, p.ns, p.ns + 1000, "p") for p in packets if p.seq not in lost
    ]
    plan = accounting.Plan(rate_pps=1000, flows=1, watched_until_ns=10**10)
    return streams.account(packets, received, plan)


def test_loss_periods_and_distances() -> None:
    found = lossperiods.pattern(lossy({10, 11, 12, 20, 200, 201}).periods)
    assert found.periods == 3
    assert found.lengths is not None
    assert (found.lengths.min, found.lengths.max, found.lengths.mean) == (1, 3, 2)
    assert found.distances is not None
    assert (found.distances.min, found.distances.max) == (8, 180)
    # 11, 12, 20 and 201 came no more than 99 packets after the loss before; 10 and 200 did not.
    assert found.noticeable_rate == round(4 / 6, 6)
    assert found.constraint == 99


@given(st.sets(st.integers(0, 60)))
def test_loss_periods_are_the_runs(lost: set[int]) -> None:
    account = lossy(lost, 61)
    periods = account.periods
    assert sum(periods["lost"]) == len(lost) == account.total("lost")
    assert {
        seq for one in periods for seq in range(int(one["first_seq"]), int(one["last_seq"]) + 1)
    } == lost
    assert account.flows[0].loss_periods == len([seq for seq in lost if seq - 1 not in lost])


def test_nothing_lost_has_no_pattern() -> None:
    found = lossperiods.pattern(lossy(set()).periods)
    assert (found.periods, found.lengths, found.distances) == (0, None, None)
    assert found.noticeable_rate is None


def test_delay_percentiles_and_variation() -> None:
    packets = [records.Sent(1, 0, 0, k, k * MS) for k in range(1000)]
    received = [
        records.Received(0, p.seq, p.ns, p.ns + 100_000 + p.seq * 1000, "p") for p in packets
    ]
    plan = accounting.Plan(rate_pps=1000, flows=1, watched_until_ns=10**10)
    found = delay.delay(streams.account(packets, received, plan).delays_us, 250)
    assert found is not None
    assert (found.min_ms, found.median_ms, found.p99_ms) == (0.1, 0.599, 1.089)
    assert (found.p1_ms, found.p999_ms, found.max_ms) == (0.109, 1.098, 1.099)
    assert found.pdv_ms == 0.998
    assert found.accuracy_ms == 0.001
    assert delay.delay(lossy(set(range(400))).delays_us, 0) is None

"""A drop rule that is there for a known time: every method finds it, within what it says."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import traffic_pair

from kproxy.traffic import accounting, convergence, measurement, records
from kproxy.traffic.figures import Figure
from netns.kernels import base
from netns.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.needs_tool("iptables")]

MS = 1_000_000
TMAX_NS = 1000 * MS


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with traffic_pair.pair(tmp_path) as found:
        yield found


@dataclasses.dataclass(frozen=True, slots=True)
class Outage:
    """When the rule came into force and went out of it: between these times."""

    begun_ns: tuple[int, int]
    ended_ns: tuple[int, int]

    @property
    def shortest_ns(self) -> int:
        return self.ended_ns[0] - self.begun_ns[1]

    @property
    def longest_ns(self) -> int:
        return self.ended_ns[1] - self.begun_ns[0]

    def may_be(self, figure: Figure) -> bool:
        """Tell whether an interval has a time in it that the outage may have lasted."""
        least, most = self.shortest_ns - 1000, self.longest_ns + 1000
        return figure.low_ms * MS <= most and figure.high_ms * MS >= least


def drop_for(lab: Lab, seconds: float) -> Outage:
    """Drop the probes of the pod for so long."""
    iptables = traffic_pair.iptables(lab)
    rule = ["INPUT", "-p", "udp", "--dport", str(traffic_pair.UDP_PORT), "-j", "DROP"]
    times = [time.monotonic_ns()]
    lab["pod"].run([iptables, "-I", *rule])
    times.append(time.monotonic_ns())
    time.sleep(seconds)  # the outage itself
    times.append(time.monotonic_ns())
    lab["pod"].run([iptables, "-D", *rule])
    times.append(time.monotonic_ns())
    return Outage((times[0], times[1]), (times[2], times[3]))


def measured(
    lab: Lab, seconds: float, phase: float
) -> tuple[Outage, accounting.Account, measurement.resultset.Measurement]:
    _, record = traffic_pair.responder(lab)
    sender = traffic_pair.Generator(lab, "udp_send")
    sender.start(traffic_pair.udp_profile(lab))
    time.sleep(0.3 + phase)  # packets before it; it begins anywhere between two of them
    outage = drop_for(lab, seconds)
    time.sleep(0.3)  # packets after it
    report = sender.tell("stop")["report"]
    time.sleep(TMAX_NS / 1e9)  # what has not come by then is lost
    plan = accounting.Plan(
        rate_pps=1000.0,
        flows=traffic_pair.FLOWS,
        watched_until_ns=time.monotonic_ns(),
        tmax_ns=TMAX_NS,
        fault_ns=outage.begun_ns[0],
    )
    received, state = records.received_array(record, 1)
    sent = records.sent_array(lab.scratch / "sent")
    account = accounting.account(sent, {state.pod: received}, plan)
    return outage, account, measurement.udp(account, node="hit", report=report, receivers=[state])


# So far into the interval of a flow (16 ms) the rule comes: the errors of both signs.
@pytest.mark.parametrize("phase_ms", [0.2, 7.5, 15.9])
@pytest.mark.parametrize("length_ms", [1, 10, 100, 1000])
def test_the_three_methods_agree_on_an_outage_of_known_length(
    lab: Lab, length_ms: int, phase_ms: float
) -> None:
    outage, account, found = measured(lab, length_ms / 1000, phase_ms / 1000)
    assert outage.shortest_ns >= length_ms * MS
    if base.clock() is base.Clock.VIRTUAL:  # where changing rules takes next to no time
        assert outage.longest_ns <= length_ms * MS + MS // 2
    assert found.lost == account.total("lost")
    assert found.failover is not None
    assert found.failover.agree
    for method in (found.failover.tbm_ms, found.failover.plbm_ms, found.failover.tblm_ms):
        assert outage.may_be(method)
    for flow in account.affected:
        assert flow.outage is not None
        assert outage.may_be(convergence.figure(convergence.times(flow.outage, account.plan).plbm))
    assert found.convergence is not None
    if length_ms >= 100:  # longer than every flow's interval: all of them have lost something
        assert found.affected_flows == traffic_pair.FLOWS
        assert found.reset is not None
        assert outage.may_be(found.reset)
        assert found.convergence.full_ms is not None
        since = found.convergence.full_ms
        # The last probe that the rule met was sent up to a millisecond before it went.
        latest = (outage.ended_ns[1] - outage.begun_ns[0]) / MS
        assert since.low_ms <= latest <= since.high_ms + 20
    assert measurement.problems(found) == ()

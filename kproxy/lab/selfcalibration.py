"""Whether a machine holds the wanted rate on a lab's path, before anything is done to that.

RFC 2544's throughput, asked of the tester: half a second of all the traffic, and no packet lost,
not sent, or dropped. Where computing takes no time (virtual clock) there is nothing to be asked.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence

from kproxy.lab import generators, workload
from kproxy.lab.accounts import Accounts, Sent, Window
from kproxy.traffic import calibration, resultset

SECONDS = 0.5
LEAST_PACE = 0.95
"""Less is a sender that falls behind, and not one that was held up by the end of the attempt."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """The generators of a lab by their place, what they send to, and who accounts for it."""

    clients: Mapping[str, generators.Client]
    targets: Sequence[workload.Target]
    rates: generators.Rates
    accounts: Accounts
    tmax_s: float

    def attempt(self, rate: float, trial: int, first_port: int) -> calibration.Attempt:
        """Send at a rate from every place for half a second; ``trial`` is a number of its own."""
        rates = dataclasses.replace(self.rates, udp_pps=rate)
        started = {
            place: client.start(trial, self.targets, rates, first_port)
            for place, client in self.clients.items()
        }
        time.sleep(SECONDS)
        sent = []
        for place, begun in started.items():
            udp, tcp = self.clients[place].stop(begun)
            sent.append(Sent(place=place, started=begun, udp=udp, tcp=tcp))
        time.sleep(self.tmax_s)
        window = Window(
            fault_ns=None, until_ns=time.monotonic_ns(), tmax_ns=round(self.tmax_s * 1e9)
        )
        found = self.accounts.account(trial, sent, window)
        pace = min((one.udp["pace"] for one in sent if one.udp is not None), default=1.0)
        return judged(rate, [one for one in found if one.traffic == "udp"], pace)


def judged(
    rate: float, found: Sequence[resultset.Measurement], pace: float
) -> calibration.Attempt:
    """Return what measurements of UDP traffic say of a rate.

    ``pace``: the share of the rate that the slowest sender kept up with. One that falls behind
    leaves nothing out in so short a time: what it has not sent is still due.
    """
    lost, unsent, dropped, reached = 0, 0, 0, rate * min(1.0, pace)
    for one in found:
        lost += one.lost or 0
        if one.sender is None:
            continue
        missing = one.sender.not_sent + one.sender.failed
        unsent += missing
        dropped = max(dropped, one.sender.receiver_drops)  # all receivers', told with each place
        planned = (one.sent or 0) + (one.discarded or 0) + missing
        reached = min(reached, rate * (planned - missing - (one.lost or 0)) / max(1, planned))
    reasons = (
        (lost, "lost"),
        (unsent, "not sent"),
        (dropped, "dropped at receivers' sockets"),
    )
    why = ", ".join(f"{number:,} packets {what}" for number, what in reasons if number)
    if pace < LEAST_PACE:
        slow = f"a sender kept up with {100 * pace:.0f} % of it"
        why = f"{slow}, {why}" if why else slow
    return calibration.Attempt(
        offered_pps=rate,
        achieved_pps=reached,
        lost=lost + unsent,
        why=f"at {rate:,.0f} packets/s {why}" if why else "",
    )

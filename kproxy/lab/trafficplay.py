"""Declared traffic through the bench's virtual servers, one kind after the other."""

import dataclasses
import json
import sys
from dataclasses import dataclass
from typing import Any

from kproxy.errors import UsageError
from kproxy.lab import trafficbench
from kproxy.traffic import declared, frames, profile, records, streams, tcp_accounting

_NETWORK_AT = 14
_SPARE_RECORDS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What came of one kind of traffic. Packets: ``sent`` to ``reordered``; connections: the rest.

    ``sent`` and ``attempted`` are None where they do not apply; ``received`` is None for packets
    without a place for a probe, which nobody can count.
    """

    kind: declared.Kind
    offered: float
    sent: int | None = None
    received: int | None = None
    lost: int | None = None
    unexplained: int | None = None
    duplicated: int | None = None
    reordered: int | None = None
    attempted: int | None = None
    failed: int | None = None
    outcomes: dict[str, int] = dataclasses.field(default_factory=dict)
    reason: str = ""

    def text(self) -> str:
        """Return it in words."""
        if self.attempted is not None:
            found = ", ".join(f"{number:,} {name}" for name, number in self.outcomes.items())
            line = f"{self.kind}: {self.attempted:,} attempted, {self.failed:,} failed ({found})"
        elif self.received is None:
            line = f"{self.kind}: {self.sent:,} sent; without a probe in it nobody counts them"
        else:
            line = (
                f"{self.kind}: {self.sent:,} sent, {self.received:,} received, {self.lost:,} lost "
                f"({self.unexplained:,} unexplained), {self.duplicated:,} duplicated, "
                f"{self.reordered:,} reordered"
            )
        return f"{line}; NOT as it should be: {self.reason}" if self.reason else line


def play(
    bench: trafficbench.Bench, wanted: tuple[declared.Traffic, ...], seconds: float
) -> list[Played]:
    """Send each kind of traffic for so long. What names no target goes to the virtual server."""
    found = []
    for number, one in enumerate(wanted):
        if one.kind.protocol is None:
            found.append(_packets(bench, one, seconds, number))
        else:
            found.append(_connections(bench, one, seconds))
    return found


def _targeted(wanted: declared.Traffic) -> declared.Traffic:
    if wanted.to is not None or wanted.kind is declared.Kind.PACKET:
        return wanted
    udp = wanted.kind is declared.Kind.UDP
    port = trafficbench.PORT if udp else trafficbench.STREAM_PORT
    return dataclasses.replace(wanted, to=trafficbench.SERVICE, port=port)


def _packets(
    bench: trafficbench.Bench, wanted: declared.Traffic, seconds: float, number: int
) -> Played:
    sender = frames.Sender(
        source_mac=bench.source_mac, gateway_mac=bench.gateway_mac, addresses=(bench.address,)
    )
    stream = streams.udp(
        _targeted(wanted),
        sender,
        interface="eth0",
        record=bench.sent_record,
        seconds=seconds,
    )
    received = bench.records
    if wanted.kind is declared.Kind.PACKET and stream.flows[0].stamped:
        received = [bench.lab.scratch / f"{pod}.{number}" for pod in trafficbench.PODS]
        skip = stream.flows[0].header_at - _NETWORK_AT
        for pod, path in zip(trafficbench.PODS, received, strict=True):
            options = ["--sniff", f"eth0:{skip}", "--rate", str(max(1, round(wanted.rate)))]
            bench.respond(pod, path, 2 * stream.capacity + _SPARE_RECORDS, options)
    run = bench.stream(stream, received)
    total = run.account.total
    if not stream.flows[0].stamped:
        return Played(kind=wanted.kind, offered=wanted.rate, sent=total("sent"))
    return Played(
        kind=wanted.kind,
        offered=wanted.rate,
        sent=total("sent"),
        received=total("received"),
        lost=total("lost"),
        unexplained=run.unexplained,
        duplicated=total("duplicated"),
        reordered=total("reordered"),
        reason=run.why_not(),
    )


def _connections(bench: trafficbench.Bench, wanted: declared.Traffic, seconds: float) -> Played:
    if wanted.kind.protocol is profile.Protocol.SCTP and not bench.sctp:
        raise UsageError(f"{wanted.kind}: this kernel has no SCTP", remedy="take another kernel")
    record = bench.lab.scratch / "tcp"
    stream = streams.tcp([_targeted(wanted)], record=record, seconds=seconds)
    path = bench.lab.scratch / "tcp.json"
    path.write_text(stream.to_json())
    command = [sys.executable, "-m", "kproxy.traffic.tcp_client", "--once", str(path)]
    done = bench.lab[trafficbench.CLIENT].run(command, timeout=10 * seconds + 60)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])["report"]
    kind = "connect" if stream.connects else "request"
    account = tcp_accounting.account(records.read_tcp(record), kind)
    reasons = [f"{account.failed:,} failed"] if account.failed else []
    if report["not_started"]:
        reasons.append(f"{report['not_started']:,} could not be started in time")
    return Played(
        kind=wanted.kind,
        offered=wanted.rate,
        attempted=account.attempted,
        failed=account.failed,
        outcomes=dict(account.outcomes),
        reason="; ".join(reasons),
    )

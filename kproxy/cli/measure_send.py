"""``kproxy measure send``: packets to a receiver elsewhere, or probes to any server."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kproxy.cli import compare_result, measure_places, measure_table
from kproxy.cli.measure_attention import MARKS, Attention, keys_come, mark_signal
from kproxy.errors import UsageError
from kproxy.traffic.hwstamp import Stamps
from kproxy.traffic.remote.messages import DEFAULT_PORT
from kproxy.traffic.remote.terms import DEFAULT_TMAX_S, TCP_TMAX_S, Probe, Stream

if TYPE_CHECKING:
    from kproxy.traffic.remote.outcome import Outcome
    from kproxy.traffic.remote.terms import Taken

SMALLEST, LARGEST = 32, 65000
CALIBRATED_FROM_PPS = 2000.0
"""Every machine sends so fast; to find out whether it does would take longer than it is worth."""
DEFAULT_PORTS: dict[Probe | None, int] = {Probe.ICMP: 0, Probe.DNS: 53}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options, checked."""

    stream: Stream
    interface: str
    probe: Probe | None
    receiver: str
    token: str
    query: str
    timestamps: Stamps
    may_be_default: bool


def _profile(ctx: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """Take defaults of the other options from a file. UsageError names what it has too much."""
    if path is None:
        return None
    from kproxy.api import yamltext

    try:
        text = path.read_text()
    except OSError as error:
        raise UsageError(f"--profile {path}: {error.strerror}") from None
    values = yamltext.parse_one(text, str(path))
    known = {name.lstrip("-") for one in ctx.command.params for name in one.opts}
    for name in values:
        if name not in known - {"profile", "token", "help"}:
            raise UsageError(f"{path}: {name}: no such option", remedy="`kproxy measure send -h`")
    ctx.default_map = {name.replace("-", "_"): value for name, value in values.items()}
    return path


@click.command()
@click.option(
    "--profile", type=click.Path(path_type=Path), callback=_profile, is_eager=True,
    expose_value=False, metavar="FILE",
    help="YAML with these options (without dashes) as keys; the command line has precedence.",
)  # fmt: skip
@click.option("--to", required=True, metavar="ADDRESS:PORT", help="IPv6 as [ADDRESS]:PORT.")
@click.option("--interface", default="", metavar="DEVICE", help="By which device to send.")
@click.option(
    "--receiver", default="", metavar="HOST[:PORT]",
    help="Where `kproxy measure receive` is to be spoken to.",
)  # fmt: skip
@click.option(
    "--token", envvar="KPROXY_MEASURE_TOKEN", default="", metavar="TEXT|@FILE",
    help="What the receiver has printed.",
)  # fmt: skip
@click.option(
    "--probe", type=click.Choice([str(one) for one in Probe]),
    help="Without a receiver: what the server at --to answers.",
)  # fmt: skip
@click.option("--query", default="kubernetes.default.svc.cluster.local", show_default=True,
              metavar="NAME", help="What --probe dns asks for.")  # fmt: skip
@click.option(
    "--rate", default=1000.0, show_default=True, metavar="PPS", help="All flows together."
)
@click.option("--flows", type=click.IntRange(1, 20_000), default=16, show_default=True,
              help="They differ in their source ports.")  # fmt: skip
@click.option("--source-port", type=click.IntRange(1, 65535), default=40000, show_default=True,
              help="The first flow's, with a receiver.")  # fmt: skip
@click.option("--size", type=click.IntRange(SMALLEST, LARGEST), default=SMALLEST,
              show_default=True, help="Bytes of UDP payload.")  # fmt: skip
@click.option("--seconds", default=10.0, show_default=True, help="0: until Ctrl-C.")
@click.option("--tmax", type=float, help="Seconds after which a packet is lost (RFC 7680).  "
              f"[default: {DEFAULT_TMAX_S:g}; with --probe tcp {TCP_TMAX_S:g}]")  # fmt: skip
@click.option("--timestamps", type=click.Choice([str(one) for one in Stamps]), default="auto",
              show_default=True, help="By whom arrivals must be stamped at the --receiver, which "
              "decides; auto: any.")  # fmt: skip
@click.option("--mark-on", default="", metavar="SIGNAL",
              help=f"Mark a moment at this signal: {', '.join(MARKS)}. On a terminal any key "
              "does; q ends.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, file_okay=False),
              help="Directory for result.json; default: results/<time>.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print result.json instead of the table.")
@click.option("--yes-use-default-route", is_flag=True, help="Use the device of the default route.")
def send(
    mark_on: str,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Send packets to a Service or host, and account for each.

    With --receiver one way, by the records of both ends: frames leave by --interface, below this
    host's own rules, so send from a host whose gateway is the node to be measured. Without, by
    --probe: there and back, as this host's own programs send.

    Ctrl-C ends it early; the account is of what was sent until then. Exit code 0: nothing was
    lost; 1: packets were lost, or the run is not valid; 2: bad usage.
    """
    asked = _checked(**options)
    place = (out or Path("results")).absolute()
    compare_result.make(place)
    marking = mark_signal(mark_on) if mark_on else None
    live = sys.stderr.isatty()
    with Attention(marking, keys=live and keys_come(), live=live).watching() as attention:
        taken = _take(asked, attention)
    from kproxy.traffic.remote import outcome

    label = str(asked.probe) if asked.probe else "udp"
    found = outcome.outcome(taken, _place(), label)
    path = (place if out else compare_result.fresh(place)) / "result.json"
    _write(found, asked, taken, path)
    click.echo(
        path.read_text() if as_json else "\n".join(measure_table.lines(found)), nl=not as_json
    )
    click.echo(f"kproxy: written: {path}", err=True)
    return 1 if found.lost or found.problems else 0


def _checked(
    to: str,
    interface: str,
    receiver: str,
    token: str,
    probe: str | None,
    query: str,
    rate: float,
    flows: int,
    source_port: int,
    size: int,
    seconds: float,
    tmax: float | None,
    timestamps: str,
    yes_use_default_route: bool,
) -> Asked:
    kind = Probe(probe) if probe else None
    tmax = _tmax(kind) if tmax is None else tmax
    _check_ends(kind, interface, receiver, token)
    _check_numbers(rate, seconds, tmax)
    address, port = measure_places.target(to, DEFAULT_PORTS.get(kind))
    return Asked(
        stream=Stream(
            destination=address,
            port=port,
            rate_pps=rate,
            flows=1 if kind is Probe.ICMP else flows,
            seconds=seconds or None,
            payload_bytes=size,
            first_port=_first_port(source_port, flows if receiver else 0),
            tmax_s=tmax,
        ),
        interface=interface,
        probe=kind,
        receiver=receiver,
        token=measure_places.read_token(token),
        query=query,
        timestamps=_check_stamps(kind, Stamps(timestamps)),
        may_be_default=yes_use_default_route,
    )


def _tmax(kind: Probe | None) -> float:
    return TCP_TMAX_S if kind is Probe.TCP else DEFAULT_TMAX_S


def _first_port(first: int, flows: int) -> int:
    if first + flows > 65536:
        raise UsageError(
            f"--source-port {first}: {flows} flows end beyond port 65535",
            remedy="a smaller --source-port, or fewer --flows",
        )
    return first


def _check_numbers(rate: float, seconds: float, tmax: float) -> None:
    for name, value, low, high in (
        ("--rate", rate, 0.001, 10_000_000),
        ("--seconds", seconds, 0, 86_400),
        ("--tmax", tmax, 0.001, 600),
    ):
        if not math.isfinite(value) or not low <= value <= high:
            raise UsageError(f"{name} {value:g}: not from {low:g} to {high:,}")
    if seconds and round(seconds * rate) < 1:
        raise UsageError(f"--seconds {seconds:g} at --rate {rate:g}: that is not one packet")


def _check_ends(kind: Probe | None, interface: str, receiver: str, token: str) -> None:
    """Raise UsageError unless it is clear who answers, and how to come there."""
    if (kind is None) == (not receiver):
        raise UsageError(
            "give either --receiver or --probe",
            remedy="--receiver HOST where `kproxy measure receive` runs, or --probe tcp "
            "(dns, echo, icmp) for any server",
        )
    if receiver and not interface:
        raise UsageError("--receiver needs --interface", remedy="by which device are frames sent?")
    if receiver and not token:
        raise UsageError("--receiver needs --token", remedy="`kproxy measure receive` prints it")


def _check_stamps(kind: Probe | None, wanted: Stamps) -> Stamps:
    if kind is not None and wanted is Stamps.HARDWARE:
        raise UsageError(
            "--timestamps hardware: answers to --probe are stamped by the kernel",
            remedy="a --receiver whose card stamps arrivals, or --timestamps software",
        )
    return wanted


def _take(asked: Asked, attention: Attention) -> "Taken":
    from kproxy.kernel.links.cards import cards
    from kproxy.kernel.routes.client import Routes
    from kproxy.traffic.remote import interface, roundtrip

    with Routes() as routes:
        if asked.probe is not None:
            _check_probe(asked)
            if asked.interface:
                interface.checked(
                    asked.interface, cards(), routes, may_be_default=asked.may_be_default
                )
            return roundtrip.measure(
                asked.probe, asked.stream, asked.interface, asked.query, attention
            )
        card = interface.checked(
            asked.interface, cards(), routes, may_be_default=asked.may_be_default
        )
        interface.check_size(card, asked.stream.payload_bytes, asked.stream.destination)
        way = interface.way(card, asked.stream.destination, routes)
    return _one_way(asked, way, attention)


def _check_probe(asked: Asked) -> None:
    from kproxy.traffic.remote import roundtrip

    stream = asked.stream
    if stream.rate_pps > roundtrip.FASTEST_PPS:
        raise UsageError(
            f"--rate {stream.rate_pps:,.0f}: probes go up to {roundtrip.FASTEST_PPS:,.0f}",
            remedy="a lower rate, or a --receiver",
        )
    if (stream.packets or 0) > roundtrip.MOST_PACKETS:
        raise UsageError(
            f"--rate and --seconds: {stream.packets:,} probes are more than "
            f"{roundtrip.MOST_PACKETS:,}",
            remedy="a shorter run or a lower rate",
        )


def _one_way(asked: Asked, way: Any, attention: Attention) -> "Taken":
    from kproxy.traffic import frames
    from kproxy.traffic.remote import channel, sender, tester

    stream = asked.stream
    nobody = "00:00:00:00:00:00"  # what loopback has
    crafted = frames.probes(
        flows=stream.flows,
        first_port=stream.first_port,
        source_mac=way.source_mac or nobody,
        gateway_mac=way.next_hop_mac or nobody,
        source=way.source,
        destination=stream.destination,
        destination_port=stream.port,
        payload_bytes=stream.payload_bytes,
    )
    if stream.rate_pps >= CALIBRATED_FROM_PPS:
        tester.calibrate(crafted, stream.rate_pps).require(stream.rate_pps, "--rate")
    host, port = measure_places.split(asked.receiver, "--receiver", DEFAULT_PORT)
    with channel.connect(host, port) as line:
        joined = sender.Joined(line, asked.token)
        joined.require(asked.timestamps)
        return sender.one_way(stream, asked.interface, crafted, joined, attention)


def _place() -> str:
    import socket

    return socket.gethostname()


def _write(found: "Outcome", asked: Asked, taken: "Taken", path: Path) -> None:
    import dataclasses

    from kproxy.lab import facts
    from kproxy.traffic import resultset, summary

    stream = asked.stream
    trial = found.trial(f"to {stream.destination}")
    results = resultset.ResultSet(
        kernel=facts.kernel(),
        host=facts.host(),
        parameters={
            **facts.run(),
            "measure": {
                "to": str(stream.destination),
                "port": stream.port,
                "interface": asked.interface,
                "probe": str(asked.probe) if asked.probe else None,
                "rate_pps": stream.rate_pps,
                "flows": stream.flows,
                "seconds": stream.seconds,
                "payload_bytes": stream.payload_bytes,
                "tmax_s": stream.tmax_s,
                "receiver": {
                    name: taken.receiver.get(name) for name in ("name", "interface", "port")
                },
                "cut": found.cut,
                "clocks": dataclasses.asdict(found.clocks),
                "arrivals": dataclasses.asdict(found.arrivals) if found.arrivals else None,
                "round_trip": found.round_trip,
                "answers": found.outcomes,
            },
            "incomplete": [found.cut] if found.cut else [],
        },
        trials=(trial,),
        summary=summary.summarise([trial]),
    )
    resultset.write(results, path)

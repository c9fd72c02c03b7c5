"""``kproxy measure receive``: takes what a sender elsewhere sends, and hands its records over."""

import contextlib
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

import click

from kproxy.cli.measure_places import control_place, read_token
from kproxy.traffic import hwstamp
from kproxy.traffic.hwstamp import Stamps
from kproxy.traffic.remote import messages
from kproxy.traffic.remote.messages import DEFAULT_PORT

if TYPE_CHECKING:
    from kproxy.traffic.remote.receiver import Place


@click.command()
@click.option("--interface", default="", metavar="DEVICE", help="Receive only on this device.")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=5353, show_default=True,
    help="UDP port: the Service's target port, or that of --to.",
)  # fmt: skip
@click.option(
    "--control", default=f":{DEFAULT_PORT}", show_default=True, metavar="[ADDRESS]:PORT",
    help="Where senders come to; IPv6 in brackets. Best an address of another network than the "
    "one that is measured.",
)  # fmt: skip
@click.option(
    "--token", envvar="KPROXY_MEASURE_TOKEN", default="", metavar="TEXT|@FILE",
    help="What a sender must know.  [default: a fresh one, which is printed]",
)  # fmt: skip
@click.option("--name", default="", help="What to call this end in results.  [default: hostname]")
@click.option(
    "--most-packets", type=click.IntRange(1, 1 << 27), default=messages.MOST_PACKETS,
    show_default=True, help="Take no longer runs; 48 bytes of memory each.",
)  # fmt: skip
@click.option(
    "--timestamps", type=click.Choice([str(one) for one in Stamps]), default="software",
    show_default=True,
    help="By whom arrivals are stamped: the kernel (software), the card of --interface, or by it "
    "if it can (auto).",
)  # fmt: skip
@click.option("--once", is_flag=True, help="End after one run.")
@click.option("--yes-use-default-route", is_flag=True, help="Use the device of the default route.")
def receive(
    interface: str,
    port: int,
    control: str,
    token: str,
    name: str,
    most_packets: int,
    timestamps: str,
    once: bool,
    yes_use_default_route: bool,
) -> int:
    """Receive what `kproxy measure send` sends, until Ctrl-C.

    Prints the command for the other host, with the token that it needs. Exit code 0: ended by
    Ctrl-C, or after one run with --once; 2: bad usage.
    """
    from kproxy.kernel.links.cards import cards
    from kproxy.kernel.routes.client import Routes
    from kproxy.traffic.remote import channel
    from kproxy.traffic.remote.interface import checked
    from kproxy.traffic.remote.receiver import Place, Receiver

    secret = read_token(token) or secrets.token_urlsafe(9)
    host, control_port = control_place(control, "--control")
    if interface:
        with Routes() as routes:
            checked(interface, cards(), routes, may_be_default=yes_use_default_route)
    with (
        channel.listen(host, control_port) as listener,
        hwstamp.arrivals(Stamps(timestamps), interface, _tell) as card,
    ):
        place = Place(
            name=name or socket.gethostname(),
            port=port,
            interface=interface,
            most_packets=most_packets,
            card=card,
        )
        receiver = Receiver(place, secret, listener, _tell, _shown())
        control_port = listener.getsockname()[1]
        _introduce(place, f"{host or 'THIS-HOST'}:{control_port}", "…" if token else secret)
        signal.signal(signal.SIGTERM, _end)
        with contextlib.suppress(KeyboardInterrupt):
            receiver.serve(once=once)
    return 0


def _introduce(place: "Place", control: str, token: str) -> None:
    _tell(
        f"{place.name} receives UDP port {place.port}"
        f"{f' on {place.interface}' if place.interface else ''}"
        f"{', with stamps of its card' if place.card else ''}"
    )
    _tell(
        f"on the other host: kproxy measure send --interface DEVICE --to ADDRESS:{place.port} "
        f"--receiver {control} --token {token}"
    )


def _tell(text: str) -> None:
    click.echo(f"kproxy: {text}", err=True)


def _shown() -> Callable[[int], None]:
    """Return what shows the packets so far: nothing unless somebody looks."""
    if not sys.stderr.isatty():
        return lambda packets: None
    return lambda packets: click.echo(f"\r\x1b[K{packets:,} packets\r", nl=False, err=True)


def _end(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt

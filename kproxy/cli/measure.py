"""``kproxy measure``: the generator and the recorder between any two hosts, without a lab."""

import click

from kproxy.cli.main import LazyGroup

COMMANDS = {
    "receive": "kproxy.cli.measure_receive:receive",
    "send": "kproxy.cli.measure_send:send",
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def measure() -> None:
    """Measure loss and delay between two hosts, or from here to any Service.

    On one host `kproxy measure receive`, on the other `kproxy measure send --to SERVICE:PORT
    --interface DEVICE --receiver HOST`: every packet is accounted for, one way. Without a
    receiver: `kproxy measure send --to SERVICE:PORT --probe tcp` (or dns, echo, icmp).
    """

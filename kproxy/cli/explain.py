"""``kproxy explain``: what becomes of a packet to an address and port, and why."""

import json
import shutil
import sys
from collections.abc import Iterable

import click

from kproxy.api import addresses
from kproxy.cli.inspect_source import (
    Asked,
    Gathered,
    failing_as_usage,
    gather,
    source_options,
    tell_problems,
    warn,
)
from kproxy.desired.model import Address, Family, ServiceState
from kproxy.errors import KernelError, Unsupported, UsageError
from kproxy.inspect import answers, jsonable, kernel, lookup, text
from kproxy.inspect.answers import Agreement
from kproxy.inspect.kernel import Comparison
from kproxy.inspect.world import World


@click.command()
@click.argument("target", metavar="ADDRESS:PORT[/PROTOCOL]")
@source_options
@click.option(
    "--from", "source", default="", metavar="ADDRESS", help="Who connects [typical clients]."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def explain(target: str, asked: Asked, source: str, as_json: bool) -> int:
    """Explain what becomes of a connection to an address and port, and why.

    ADDRESS is a ClusterIP, an external IP, a load balancer's, or a node's (with a node port);
    IPv6 in brackets. Says which service it is, which endpoints with which probability, who is
    masqueraded, refused or dropped and why, and whether the kernel holds what that needs.

    Exit code 0: the address belongs to a service; 1: to none; 2: bad usage, or something cannot
    be read.
    """
    wanted = lookup.parse_target(target)
    client = _client(source, six=":" in wanted.address)
    with failing_as_usage():
        gathered = gather(asked)
    family = Family.IPV6 if ":" in wanted.address else Family.IPV4
    side = next(one for one in gathered.sides if one.world.family is family)
    found = answers.explain(side, wanted, client, _asker(gathered))
    warn(gathered)
    tell_problems(gathered)
    if as_json:
        click.echo(json.dumps(jsonable.answer(found), indent=2))
    else:
        lines: Iterable[str] = text.answer(found)
        if sys.stdout.isatty():
            lines = text.fitted(lines, shutil.get_terminal_size().columns)
        click.echo("\n".join(lines))
    return 0 if found.matches else 1


def _client(given: str, *, six: bool) -> Address | None:
    if not given:
        return None
    parsed = addresses.parse_address(given)
    if parsed is None:
        raise UsageError(f"--from: {given!r} is not an IP address")
    if (parsed.version == 6) != six:
        raise UsageError(f"--from: {given} and the address asked for are of different families")
    return Address(parsed.text)


def _asker(gathered: Gathered) -> answers.Ask:
    """Return what asks the kernel for a service port, once for all of them."""
    known: dict[Family, Comparison] = {}

    def compared(world: World) -> Comparison:
        settings = gathered.settings
        if world.family not in known:
            known[world.family] = kernel.compare(settings.mode, world.state, settings.options)
        return known[world.family]

    def ask(world: World, served: ServiceState) -> Agreement:
        if not gathered.where.here:
            return Agreement(unasked=f"this machine is not {world.node.name}")
        if not kernel.is_root():
            return Agreement(unasked="that needs root")
        if gathered.mode_from == "default":
            return Agreement(unasked=f"it holds nothing of mode {world.mode}")
        try:
            found = compared(world)
        except (KernelError, Unsupported) as error:
            return Agreement(unasked=f"it cannot be read: {error.message}")
        return Agreement(differences=answers.concerning(found.differences, served))

    return ask

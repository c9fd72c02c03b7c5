"""The state of a node as tables for a terminal: one row for each service port.

What names or addresses are in is always a ``Text``: in a bare string rich takes ``[fd00::1]`` for
markup, and leaves it out.
"""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from kproxy.api.addresses import with_port
from kproxy.desired.model import ServicePort

from .kernel import Holdings
from .text import SHOWN_MAX
from .views import EndpointView, ServiceView, policies, reached_by
from .world import World


def services_table(world: World, services: Sequence[ServiceView]) -> Table:
    """Return the table of service ports in one family."""
    noun = "port" if len(services) == 1 else "ports"
    zone = f", zone {world.node.zone}" if world.node.zone else ""
    title = f"{world.family}: {len(services)} service {noun} on {world.node.name}{zone}"
    title = f"{title}, mode {world.mode}"
    table = Table(title=Text(title, style="italic"), title_justify="left", show_lines=True)
    table.add_column("service port", overflow="fold")
    table.add_column("reached by", overflow="fold")
    table.add_column("endpoints", overflow="fold")
    for one in services:
        service = one.state.service
        table.add_row(
            _service(service),
            Text("\n".join(reached_by(service))),
            _endpoints(one),
        )
    return table


def _service(service: ServicePort) -> Text:
    """Return its name, and what is not as it usually is."""
    special = [Text(line, style="cyan") for line in policies(service)]
    return Text("\n").join([Text(str(service.name)), *special])


def _endpoints(view: ServiceView) -> Text:
    used = [one for one in view.endpoints if one.used]
    others = [one for one in view.endpoints if not one.used]
    lines = [_endpoint(one) for one in (*used[:SHOWN_MAX], *others[:SHOWN_MAX])]
    left = len(view.endpoints) - len(lines)
    if left:
        lines.append(Text(f"… and {left} more (--json has all)"))
    lines += [Text(note, style="yellow") for note in view.notes]
    return Text("\n").join(lines)


def _endpoint(view: EndpointView) -> Text:
    text = with_port(view.endpoint.address, view.endpoint.port)
    text += " here" if view.endpoint.local else ""
    style = "green" if view.used else "dim"
    if view.why:
        text += f", {view.why}" if view.used else f" not used: {view.why}"
    return Text(text, style=style)


def virtual_servers_table(held: Holdings) -> Table:
    """Return the kernel's virtual servers and their real servers."""
    table = Table(title="Virtual servers in the kernel", title_justify="left", show_lines=True)
    for name in ("virtual server", "scheduler", "real server"):
        table.add_column(name, overflow="fold")
    for name in ("weight", "active", "inactive"):
        table.add_column(name, justify="right")
    for server in held.virtual_servers:
        real = server.real_servers
        table.add_row(
            Text(server.place),
            server.scheduler,
            Text("\n".join(one.place for one in real) or "none"),
            "\n".join(str(one.weight) for one in real),
            "\n".join(str(one.active) for one in real),
            "\n".join(str(one.inactive) for one in real),
        )
    return table


def counts_table(mode: str, held: Holdings) -> Table:
    """Return how much of a mode the kernel holds."""
    table = Table(title=f"In the kernel, mode {mode}", title_justify="left")
    table.add_column("kind")
    table.add_column("count", justify="right")
    for kind, count in held.counts:
        table.add_row(kind, f"{count:,}")
    return table

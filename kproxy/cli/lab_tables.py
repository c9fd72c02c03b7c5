"""A lab's picture as tables for a terminal."""

from collections.abc import Iterator
from datetime import datetime

from rich import box
from rich.table import Table
from rich.text import Text

from kproxy.lab.door.directory import Owner
from kproxy.lab.whole.monitors import Alert
from kproxy.lab.whole.picture import Picture, ProcessPicture

NONE = "–"
_GOOD = ("Running", "Succeeded")


def is_well(picture: Picture) -> bool:
    """Return whether everything that should run does and answers, and all nodes are ready."""
    return (
        not picture.api
        and all(one.pid for one in picture.control_plane)
        and all(one.ready for one in picture.nodes)
        and not any(one.trouble or one.down for one in picture.monitors)
    )


def parts(picture: Picture, owner: Owner | None) -> Iterator[Table | Text]:
    """Yield what is to be printed, from top to bottom."""
    yield Text(" · ".join(_headline(picture, owner)))
    if picture.api:
        yield Text(f"The API does not answer: {picture.api}", style="bold red")
    yield _hosts(picture)
    if picture.nodes:
        yield _nodes(picture)
    if picture.pods:
        yield _pods(picture)
    if picture.services:
        yield _services(picture)
    if picture.monitors:
        yield _monitors(picture)


def process_text(one: ProcessPicture) -> str:
    """Return a process in a word: its role, * if it leads, how often it was started again."""
    if not one.pid:
        return f"{one.role} down"
    again = f" ({one.starts - 1} restarts)" if one.starts > 1 else ""
    return f"{one.role}{'*' if one.leads else ''}{again}".replace("(1 restarts)", "(1 restart)")


def _headline(picture: Picture, owner: Owner | None) -> Iterator[str]:
    yield f"lab {picture.name}"
    yield f"mode {picture.mode}"
    yield "+".join(picture.families)
    yield f"store {picture.store}"
    yield f"security {picture.security}"
    yield f"profile {picture.profile}"
    if owner is not None:
        since = datetime.fromtimestamp(owner.began).strftime("%H:%M:%S")
        yield f"{owner.kernel}, {owner.clock} clock, since {since}"
    yield f"API {picture.api_url}"
    if version := picture.versions.get("kubernetes"):
        yield f"Kubernetes {version}"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _hosts(picture: Picture) -> Table:
    table = _table("Hosts (* leads)", "HOST", "ADDRESSES", "LINK", "RUNS")
    for host in picture.hosts:
        runs = Text()
        for one in picture.control_plane:
            if one.host == host.name:
                runs.append(", " if runs else "")
                style = "red" if not one.pid else "bold" if one.leads else ""
                runs.append(process_text(one), style)
        link = Text(host.link or NONE) if host.plugged else Text("unplugged", "red")
        table.add_row(host.name, "\n".join(host.addresses), link, runs or Text(NONE))
    return table


def _monitors(picture: Picture) -> Table:
    table = _table("Monitoring", "HOST", "TARGETS", "NOT UP", "ALERTS FIRING", "PEERS")
    for one in picture.monitors:
        if one.trouble:
            table.add_row(one.host, Text("\n".join(one.trouble), "red"))
            continue
        down = [f"{each.job} {each.instance}" for each in one.down]
        down += [f"{one.unknown} not asked yet"] if one.unknown else []
        alerts = sorted(_alert(each) for each in one.alerts if each.name != "Watchdog")
        up = one.targets - len(one.down) - one.unknown
        table.add_row(
            one.host,
            f"{up}/{one.targets} up",
            Text("\n".join(down) or NONE, "red" if one.down else ""),
            Text("\n".join(alerts) or NONE, "yellow" if alerts else ""),
            str(one.peers),
        )
    return table


def _alert(one: Alert) -> str:
    about = [
        one.labels[label] for label in ("node", "namespace", "service") if label in one.labels
    ]
    return " ".join((one.name, *about))


def _nodes(picture: Picture) -> Table:
    table = _table("Nodes", "NODE", "STATUS", "ZONE", "TAINTS", "PODS")
    for node in picture.nodes:
        ready = Text("Ready", "green") if node.ready else Text("NotReady", "red")
        taints = "\n".join(node.taints) or NONE
        table.add_row(node.name, ready, node.zone or NONE, taints, str(node.pods))
    return table


def _pods(picture: Picture) -> Table:
    table = _table("Pods", "POD", "READY", "STATUS", "RESTARTS", "ADDRESSES", "NODE")
    for pod in picture.pods:
        table.add_row(
            f"{pod.namespace}/{pod.name}",
            f"{pod.ready}/{pod.containers}",
            Text(pod.phase, "" if pod.phase in _GOOD else "yellow"),
            str(pod.restarts),
            "\n".join(pod.addresses) or NONE,
            pod.node or NONE,
        )
    return table


def _services(picture: Picture) -> Table:
    table = _table("Services", "SERVICE", "TYPE", "ADDRESSES", "PORTS", "ENDPOINTS")
    for one in picture.services:
        addresses, ports = "\n".join(one.addresses) or NONE, ", ".join(one.ports) or NONE
        name = f"{one.namespace}/{one.name}"
        table.add_row(name, one.type, addresses, ports, str(one.endpoints))
    return table

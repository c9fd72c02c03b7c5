"""``kproxy node``: look after the node that this is, its proxy and its kernel."""

import dataclasses
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from kproxy.agent import nodelock
from kproxy.agent import resync as proxyresync
from kproxy.api import core, discovery
from kproxy.backends.base import Difference
from kproxy.cli.inspect_source import (
    DEEDS,
    Asked,
    configured,
    failing_as_usage,
    gather,
    source_options,
)
from kproxy.errors import UsageError
from kproxy.inspect import kernel
from kproxy.kernel.conntrack.client import Conntrack
from kproxy.kernel.counters.conntrack import conntrack as conntrack_table
from kproxy.monitoring.nodecare import flows, kill, process, seen, weights
from kproxy.monitoring.nodecare import look as looking
from kproxy.monitoring.nodecare import resync as resyncing
from kproxy.monitoring.nodecare.seen import Care, Look, Place, Wanted

F = TypeVar("F", bound=Callable[..., Any])

UNDER_WAY_S = 0.3
"""A packet is on its way through the rules for far less."""

_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_dry_run = click.option(
    "--dry-run", is_flag=True, help="Look, say what would be done, do nothing."
)


@click.group()
@click.option(
    "--within",
    type=click.IntRange(1),
    metavar="SECONDS",
    help="End, whatever happens, after this.",
)
def node(within: int | None) -> None:
    """Look after this node: what is wrong with its proxy and its kernel, and prepared repairs.

    To be run as root where the node's network is: on the node itself, or in the pod of its proxy.
    Every repair looks first, says what is wrong and how that is known, repairs only that, and
    looks again. Without options the flags of the proxy that runs here are used; what should be in
    the kernel is asked of the API server.

    Exit code 0: nothing (more) is wrong; 1: something is; 2: it could not be found out.
    """
    if within is not None:
        # Who has asked by way of a container runtime has gone by then, and would not be missed.
        signal.alarm(within)


@node.command()
@source_options
@_json
def look(asked: Asked, as_json: bool) -> int:
    """Look at everything and repair nothing.

    The proxy's process (running, stopped, zombie), its health checks and last sync, the kernel
    against the API server, stuck weights of IPVS, UDP flows to endpoints that are gone.
    """
    kernel.require_root()
    here = _Here(asked)
    doors = looking.Doors(
        place=here.place(),
        ask=here.wanted,
        differ=here.differences,
        conntrack=Conntrack(),
        table=conntrack_table,
    )
    settings = here.settings
    found = looking.look(doors, settings.node, settings.mode, resync=proxyresync.SIGNAL)
    click.echo(seen.encode(found).decode() if as_json else "\n".join(_look_lines(found)))
    return 0 if found.healthy else 1


@node.command()
@source_options
@_dry_run
@_json
def resync(asked: Asked, dry_run: bool, as_json: bool) -> int:
    """Let the running proxy read the kernel anew and put it right at once.

    Costs nothing: what is right stays. For rules that a stranger has changed or removed. A proxy
    that is stopped cannot be asked, nor can kube-proxy: restart those.
    """
    here = _started(asked)
    return _end(
        lambda: resyncing.resync(
            here.place(),
            here.wanted,
            here.differences,
            number=proxyresync.SIGNAL,
            dry_run=dry_run,
        ),
        as_json=as_json,
    )


@node.command("heal-weights")
@source_options
@_dry_run
@_json
def heal_weights(asked: Asked, dry_run: bool, as_json: bool) -> int:
    """Give real servers of IPVS their weight that are wanted and have weight 0.

    Those that are not wanted any more keep it: they drain.
    """
    here = _started(asked)
    return _end(lambda: weights.heal(here.wanted, dry_run=dry_run), as_json=as_json)


@node.command("clean-conntrack")
@source_options
@_dry_run
@_json
def clean_conntrack(asked: Asked, dry_run: bool, as_json: bool) -> int:
    """Forget tracked UDP flows whose service leads them to an endpoint that is gone.

    Their next packet takes a new way. Flows to endpoints that serve are never touched.
    """
    here = _started(asked)
    return _end(
        lambda: flows.clean(
            Conntrack(), here.wanted, dry_run=dry_run, pause=lambda: time.sleep(UNDER_WAY_S)
        ),
        as_json=as_json,
    )


@node.command("restart-proxy")
@_dry_run
@_json
@click.option(
    "--node", "name", default="", metavar="NAME", help="Name of the node, for the answer."
)
def restart_proxy(dry_run: bool, as_json: bool, name: str) -> int:
    """Kill the proxy's process (SIGKILL), so that its kubelet starts the container again.

    For one that hangs while no controller could replace its pod. The kernel keeps all rules;
    changes wait until the new process has synced.
    """
    kernel.require_root()
    return _end(lambda: kill.kill(nodelock.NAME, name, dry_run=dry_run), as_json=as_json)


class _Here:
    """What is asked about this node: its settings once, objects each time.

    Raises UsageError for settings that cannot be read.
    """

    def __init__(self, asked: Asked) -> None:
        asked = _as_the_proxy(asked)
        settings, _ = configured(asked, need_mode=True)
        self.settings = settings
        self._asked = dataclasses.replace(asked, mode=settings.mode)

    def place(self) -> Place:
        """Return where the proxy is to be found."""
        settings = self.settings
        return Place(lock=nodelock.NAME, healthz=settings.healthz, metrics=settings.metrics)

    def wanted(self) -> Wanted:
        """Ask the API server. Raises KproxyError."""
        gathered = gather(self._asked)
        if not gathered.where.here:
            raise UsageError(
                f"this is not node {self.settings.node}: none of its addresses is here",
                remedy="run it on that node, or give --node",
            )
        return Wanted(
            node=self.settings.node,
            mode=self.settings.mode,
            states=[side.world.state for side in gathered.sides],
            options=self.settings.options,
            newest={
                "services": _newest(gathered.objects.services),
                "endpointslices": _newest(gathered.objects.slices),
            },
        )

    def differences(self, wanted: Wanted) -> Mapping[str, Sequence[Difference]]:
        """Compare the kernel. Raises KproxyError."""
        return {
            state.family: kernel.compare(wanted.mode, state, wanted.options).differences
            for state in wanted.states
        }


def _newest(objects: Sequence[core.Service] | Sequence[discovery.EndpointSlice]) -> int:
    versions = (one.metadata.resource_version for one in objects)
    return max((int(text) for text in versions if text.isdigit()), default=0)


def _as_the_proxy(asked: Asked) -> Asked:
    """Take the flags of the proxy that runs here, where none are given."""
    if asked.flags or asked.config or asked.files:
        return asked
    one = process.find(nodelock.NAME)
    if one is None:
        return asked
    at = one.command.index("proxy") + 1 if "proxy" in one.command else 1
    deeds = {f"--{name.replace('_', '-')}" for name in DEEDS}
    flags = tuple(word for word in one.command[at:] if word.partition("=")[0] not in deeds)
    return dataclasses.replace(asked, flags=flags)


def _started(asked: Asked) -> _Here:
    kernel.require_root()
    return _Here(asked)


def _end(care: Callable[[], Care], *, as_json: bool) -> int:
    with failing_as_usage():
        done = care()
    click.echo(seen.encode(done).decode() if as_json else "\n".join(_care_lines(done)))
    return 0 if done.good else 1


def _care_lines(done: Care) -> list[str]:
    if not done.found and not done.refused:
        return [f"{done.care}: nothing to do on {done.node or 'this node'}"]
    word = "would be done" if done.dry_run else "done"
    lines = [f"wrong: {text}" for text in done.found]
    lines += [f"{word}: {text}" for text in done.done]
    lines += [f"still wrong: {text}" for text in done.left]
    if done.refused:
        lines.append(f"refused: {done.refused}" if not done.done else f"no cure: {done.refused}")
    return lines


def _look_lines(found: Look) -> list[str]:
    proxy = found.proxy
    about = f"process {proxy['pid']}, {proxy['state']}" if proxy["found"] else "none"
    lines = [f"node {found.node}, mode {found.mode}, proxy: {about}"]
    lines += [f"/{path}: {text.splitlines()[0]}" for path, text in found.answers.items()]
    parts: dict[str, Mapping[str, float | None]] = {
        "sync": found.sync,
        "drift": found.drift,
        "conntrack": found.conntrack,
    }
    if found.mode == weights.IPVS:
        parts["weights"] = found.weights
    for title, numbers in parts.items():
        known = [f"{name} {value:g}" for name, value in numbers.items() if value is not None]
        lines.append(f"{title}: {', '.join(known) or 'not known'}")
    lines += [f"not known: {part}: {why}" for part, why in found.unknown.items()]
    for one in found.troubles:
        cure = f" (cure: {one.cure})" if one.cure else ""
        lines.append(f"wrong: {one.what}: {one.evidence}{cure}")
    return lines if found.troubles or found.unknown else [*lines, "nothing is wrong"]

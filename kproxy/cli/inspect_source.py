"""What ``state``, ``diff`` and ``explain`` have in common: whose state, and where it is read."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from kproxy.agent.settings import Settings, from_config
from kproxy.api import flags as kube_flags
from kproxy.api.config import KubeProxyConfiguration
from kproxy.backends.base import BACKENDS, Options
from kproxy.cli import nodeproxy
from kproxy.client.rest import Rest
from kproxy.errors import InvalidObject, KproxyError, UsageError
from kproxy.inspect import assemble, kernel, objects
from kproxy.inspect.assemble import Side, Whereabouts
from kproxy.inspect.objects import Objects

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_MODE = "iptables"

DEEDS = ("cleanup", "cleanup_except", "init_only", "write_config_to", "help", "version")
"""What the proxy's flags may ask for instead of a proxy."""

PROBLEMS_MAX = 5
"""So many problems of objects are told beside an answer that is not about them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options of a command, as given."""

    kubeconfig: str
    master: str
    files: tuple[Path, ...]
    node: str
    mode: str
    config: str
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """All that a command works on."""

    settings: Settings
    objects: Objects
    where: Whereabouts
    sides: Sequence[Side]
    mode_from: str
    """How the mode is known: ``given``, ``kernel`` or ``default``."""

    @property
    def problems(self) -> list[InvalidObject]:
        """Return what is wrong in the objects."""
        found = [*self.objects.problems]
        for side in self.sides:
            found += side.problems
        return found


def source_options(command: F) -> F:
    """Add the options that say whose state is meant, and hand them on as ``asked``."""

    @functools.wraps(command)
    def with_asked(
        *,
        kubeconfig: str,
        master: str,
        files: tuple[Path, ...],
        node: str,
        mode: str,
        config: str,
        flags: tuple[str, ...],
        **others: Any,
    ) -> Any:
        asked = Asked(
            kubeconfig=kubeconfig,
            master=master,
            files=files,
            node=node,
            mode=mode,
            config=config,
            flags=flags,
        )
        return command(asked=asked, **others)

    wrapped: Any = with_asked
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]  # options keep the type


_OPTIONS = (
    click.option("--kubeconfig", default="", metavar="FILE", help="Ask this API server."),
    click.option("--master", default="", metavar="URL", help="Ask the API server of this URL."),
    click.option(
        "--objects",
        "files",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Read what kubectl get -o json (or yaml) wrote, and ask no API server. Repeatable.",
    ),
    click.option("--node", default="", metavar="NAME", help="Name of the node [this machine]."),
    click.option(
        "--mode",
        default="",
        type=click.Choice(["", *BACKENDS]),
        metavar=f"[{'|'.join(BACKENDS)}]",
        help="The proxy's mode [that whose rules are in the kernel].",
    ),
    click.option("--config", default="", metavar="FILE", help="The proxy's configuration file."),
    click.argument("flags", nargs=-1, metavar="[-- FLAGS OF THE PROXY]"),
)


def gather(asked: Asked, *, need_mode: bool = False) -> Gathered:
    """Read objects and settings, and put together what is wanted.

    ``need_mode``: raise UsageError where the mode is neither given nor seen in the kernel.
    """
    options = _flags(asked)
    settings, mode_from = configured(asked, need_mode=need_mode)
    found = _objects(asked, options.master, settings.configuration, settings.node)
    where = assemble.whereabouts(found.node)
    return Gathered(
        settings=settings,
        objects=found,
        where=where,
        sides=assemble.sides(found, settings, where.own),
        mode_from=mode_from,
    )


def configured(asked: Asked, *, need_mode: bool = False) -> tuple[Settings, str]:
    """Return the settings of the proxy that is asked about, and how its mode is known.

    Asks no API server. ``need_mode`` as for :func:`gather`.
    """
    config, mode_from = _configuration(asked, _flags(asked), need_mode=need_mode)
    return from_config(config), mode_from


def _flags(asked: Asked, mode: str = "") -> kube_flags.Options:
    """Return what the flags of the proxy say, with the options of ours that are such flags."""
    words = [*asked.flags]
    ours = {
        "config": asked.config,
        "hostname-override": asked.node,
        "master": asked.master,
        "proxy-mode": mode,
    }
    words += [f"--{name}={value}" for name, value in ours.items() if value]
    options = kube_flags.parse_flags(words)
    for name in DEEDS:
        if getattr(options, name):
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag}: this command only reads", remedy=f"kproxy proxy {flag}")
    return options


def _configuration(
    asked: Asked, options: kube_flags.Options, *, need_mode: bool
) -> tuple[KubeProxyConfiguration, str]:
    file = nodeproxy.read_config(options.config_file)
    mode, mode_from = asked.mode, "given"
    if not mode and not options.fields.get("proxy-mode") and not (file or {}).get("mode"):
        mode, mode_from = _mode_of_kernel(need_mode=need_mode)
    if mode:
        if file is not None:
            file = {**file, "mode": mode}
        options = _flags(asked, mode)
    return kube_flags.resolve(options, file).config, mode_from


def _mode_of_kernel(*, need_mode: bool) -> tuple[str, str]:
    if need_mode:
        kernel.require_root()
    elif not kernel.is_root():
        return DEFAULT_MODE, "default"
    found = kernel.detect_mode(Options())
    if found:
        return found, "kernel"
    if need_mode:
        raise click.UsageError("no mode has left anything in this kernel: give --mode")
    return DEFAULT_MODE, "default"


def _objects(asked: Asked, master: str, config: KubeProxyConfiguration, node: str) -> Objects:
    if asked.files:
        if asked.kubeconfig or asked.master:
            raise click.UsageError("--objects excludes --kubeconfig and --master")
        return objects.from_files(asked.files, node)
    path = asked.kubeconfig or config.client_connection.kubeconfig
    access = nodeproxy.api_access(path, master)
    with Rest(access, agent="kproxy-inspect") as rest:
        return objects.from_api(rest, access.server, node)


@contextlib.contextmanager
def failing_as_usage() -> Iterator[None]:
    """Turn whatever keeps a command from its answer into UsageError, whose exit code is 2.

    For commands whose exit code 1 is an answer.
    """
    try:
        yield
    except UsageError:
        raise
    except KproxyError as error:
        raise UsageError(error.message, remedy=error.remedy) from error


def warn(gathered: Gathered) -> None:
    """Tell on stderr what makes an answer less certain."""
    settings, found = gathered.settings, gathered.objects
    if gathered.mode_from == "default":
        seen = "none is in the kernel" if kernel.is_root() else "only root sees the kernel's"
        click.echo(
            f"kproxy: mode {settings.mode} is assumed: none is given, {seen}",
            err=True,
        )
    if found.node is None:
        click.echo(
            f"kproxy: {found.source} has no Node {settings.node}: its zone is not known",
            err=True,
        )
    if not gathered.where.here:
        click.echo(
            f"kproxy: this machine has no address of Node {settings.node}: its Node object is "
            "believed",
            err=True,
        )


def tell_problems(gathered: Gathered) -> None:
    """Tell on stderr what is wrong in the objects: an answer may be about one that is left out."""
    for problem in gathered.problems[:PROBLEMS_MAX]:
        click.echo(f"kproxy: problem: {problem}", err=True)
    if (more := len(gathered.problems) - PROBLEMS_MAX) > 0:
        click.echo(f"kproxy: … and {more} more problems (kproxy state has all)", err=True)

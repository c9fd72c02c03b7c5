"""``kproxy trace``: the way of one packet to a Service and back, hop by hop."""

import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import click

from kproxy.cli.lab_option import place_options
from kproxy.cli.measure_places import target as parsed_target
from kproxy.errors import UsageError
from kproxy.kernel.inet import IPAddress, Protocol


@click.command()
@click.argument("target", metavar="ADDRESS:PORT[/PROTOCOL]")
@click.option("--from", "source", default="", metavar="PLACE",
              help="Who sends: a network namespace (name, path, pid:NUMBER), or with --lab a host "
              "or a pod as NAMESPACE/NAME.  [default: here]")  # fmt: skip
@click.option("--lab", "in_lab", is_flag=True, help="In a lab (--name chooses which).")
@click.option("--request", default="", metavar="TEXT",
              help="Over TCP also send this line, and show what is answered.")  # fmt: skip
@click.option("--timeout", default=2.0, show_default=True, help="Seconds to wait for the answer.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--prefix", default="", hidden=True)  # of the names of a lab's namespaces
@place_options
def trace(
    target: str,
    source: str,
    in_lab: bool,
    request: str,
    timeout: float,
    as_json: bool,
    prefix: str,
    name: str | None,
    place: Path,
) -> int:
    """Send one marked packet to ADDRESS:PORT and show each hop, there and back.

    Shows sockets, rules, virtual servers, tracked connections, routes and devices of all network
    namespaces of this machine, in order, with the times at which devices had it. PROTOCOL is tcp
    (a connection is opened; the default) or udp. Needs root. Leaves nothing behind.

    Exit code 0: it was answered; 1: refused, or lost: then the last line says where; 2: bad usage.
    """
    address, port, protocol = _parsed(target)
    if not 0.05 <= timeout <= 60:
        raise UsageError(f"--timeout {timeout:g}: not from 0.05 to 60 seconds")
    if request and protocol is not Protocol.TCP:
        raise UsageError("--request goes over TCP", remedy="write ADDRESS:PORT/tcp")
    if in_lab:
        return _inside(target, source, request, timeout, as_json, name, place)
    from kproxy.trace import places, run, text

    origin = places.find(prefix + source) if source else places.here()
    origin = places.Place(origin.name.removeprefix(prefix) or origin.name, origin.path)
    asked = run.Asked(
        protocol=protocol,
        target=address,
        port=port,
        origin=origin,
        others=places.every(prefix),
        timeout_s=timeout,
        request=_line(request),
    )
    with _ended_in_order():
        found = run.trace(asked)
    if as_json:
        click.echo(json.dumps(text.jsonable(found), indent=2))
    else:
        click.echo("\n".join(text.lines(found)))
    return 0 if found.answered else 1


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """End as after Ctrl-C when told to end: the kernel's drop monitor is to be switched off."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {one: signal.signal(one, end) for one in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _line(request: str) -> bytes:
    """Return what is sent: the text, and the end of its line if that is missing."""
    end = "" if not request or request.endswith("\n") else "\n"
    return f"{request}{end}".encode()


def _parsed(target: str) -> tuple[IPAddress, int, Protocol]:
    words, _, protocol = target.partition("/")
    address, port = parsed_target(words, option="target")
    if protocol.lower() not in ("", "tcp", "udp"):
        raise UsageError(f"{target}: protocol {protocol!r} cannot be traced", remedy="tcp or udp")
    return address, port, Protocol(protocol.lower() or "tcp")


def _inside(
    target: str,
    source: str,
    request: str,
    timeout: float,
    as_json: bool,
    name: str | None,
    place: Path,
) -> int:
    """Do the same on the lab's kernel, where its hosts and pods are namespaces."""
    from kproxy.cli.lab_commands import enter
    from kproxy.cli.lab_option import find

    directory = find(place, name)
    prefix = f"{directory.name}-"
    words = [sys.executable, "-m", "kproxy", "trace", target, "--prefix", prefix]
    # A pod's namespace is called after both its names.
    words += ["--from", source.replace("/", "-")] if source else []
    words += ["--timeout", f"{timeout:g}"]
    words += ["--request", request] if request else []
    return enter(directory, "", [*words, *(["--json"] if as_json else [])])

"""``kproxy lab dashboard``: a live page of a lab, for as long as one looks."""

import contextlib
import secrets
import sys
import threading
from pathlib import Path

import click

from kproxy import errors
from kproxy.cli.lab_option import find, place_options
from kproxy.lab.dashboard import page
from kproxy.lab.dashboard.server import Desk, Server
from kproxy.lab.door import messages
from kproxy.lab.door.conversation import Conversation
from netns.lab import signals_unwind

INSIDE = [sys.executable, "-m", "kproxy.lab.dashboard.inside"]
_TOKEN_BYTES = 24


@click.command()
@click.option(
    "--listen",
    default="127.0.0.1:0",
    show_default=True,
    metavar="HOST:PORT",
    help="Where the page is served; port 0 is any free one.",
)
@click.option("--allow-faults", is_flag=True, help="Give the page buttons that break things.")
@place_options
def dashboard(listen: str, allow_faults: bool, name: str | None, place: Path) -> int:
    """Serve a live page of a lab until Ctrl-C, and print its URL.

    Hosts, processes, pods, who leads, packet rates; with monitoring also losses, latency and
    alerts. With --allow-faults its buttons kill, hang, unplug and switch off. Whoever has the URL
    may do what the page may: it has a token in it.

    Exit code 0: ended by Ctrl-C; 1: the lab has ended meanwhile; 2: bad usage, no such lab.
    """
    host, port = _address(listen)
    directory = find(place, name)
    words = [*INSIDE, *(["--allow-faults"] if allow_faults else [])]
    start = messages.Start(host="", argv=words)
    why: list[str] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(signals_unwind())
        conversation = stack.enter_context(contextlib.closing(Conversation(directory, start)))

        def ended(text: str) -> None:
            if not why:
                why.append(text)
                # From a thread of its own: who says this is still to answer its browser.
                threading.Thread(target=server.shutdown, daemon=True).start()

        desk = Desk(conversation, allow=allow_faults, ended=ended)
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        server = Server(host, port, page.html(directory.name), desk, token)
        stack.enter_context(server)
        _tell(server, desk, directory.name)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    if why:
        raise errors.KproxyError(why[0])
    return 0


def _tell(server: Server, desk: Desk, name: str) -> None:
    if not server.loopback:
        click.echo(
            "kproxy: warning: others can reach this page, and its token goes over the network "
            "in clear text",
            err=True,
        )
    faults = "with buttons for faults" if desk.allow else "--allow-faults gives it buttons"
    click.echo(f"kproxy: lab {name}, {faults}; Ctrl-C ends it", err=True)
    click.echo(server.url)


def _address(text: str) -> tuple[str, int]:
    """Return host and port. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise errors.UsageError(f"--listen {text!r}", remedy="use HOST:PORT, as in 127.0.0.1:8080")
    return host.strip("[]"), int(port)

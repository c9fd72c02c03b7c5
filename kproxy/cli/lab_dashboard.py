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
_WHY_SECONDS = 5.0


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
    with contextlib.ExitStack() as stack:
        stack.enter_context(signals_unwind())
        conversation = stack.enter_context(contextlib.closing(Conversation(directory, start)))
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        desk = Desk(conversation, allow=allow_faults)
        server = Server(host, port, page.html(directory.name), desk, token)
        stack.enter_context(server)
        _tell(server, directory.name)
        with contextlib.suppress(KeyboardInterrupt):
            _serve(server, conversation)
            conversation.ask(b"{}", _WHY_SECONDS)  # raises: it tells why
            raise errors.KproxyError(f"nobody in lab {directory.name} answers any more")
    return 0


def _serve(server: Server, conversation: Conversation) -> None:
    """Serve until the lab is gone."""

    def watch() -> None:
        conversation.wait_end()
        server.shutdown()

    threading.Thread(target=watch, name="end", daemon=True).start()
    server.serve_forever()


def _tell(server: Server, name: str) -> None:
    if not server.loopback:
        click.echo(
            "kproxy: warning: others can reach this page, and its token goes over the network "
            "in clear text",
            err=True,
        )
    faults = "with buttons for faults" if server.desk.allow else "--allow-faults gives it buttons"
    click.echo(f"kproxy: lab {name}, {faults}; Ctrl-C ends it", err=True)
    click.echo(server.url)


def _address(text: str) -> tuple[str, int]:
    """Return host and port. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise errors.UsageError(f"--listen {text!r}", remedy="use HOST:PORT, as in 127.0.0.1:8080")
    return host.strip("[]"), int(port)

"""Stands for the people that alerts reach, and for the switch that misses a dead man.

    python -m kproxy.lab.pager --bind-address HOST:PORT

What Alertmanager posts to ``/humans`` becomes a line of the log for each alert: ``told`` with
``alert``, ``status`` (firing, resolved), ``labels``, ``starts_at``, and ``sender``, the address of
the Alertmanager. What it posts to ``/dead-man`` says that the way from Prometheus to here is open.
When that has not come for ``--dead-man-after``, the line ``dead man's switch`` says ``silent``,
and later ``back``.

It lives outside of what it watches: on no host of Prometheus, nor of the cluster.
"""

import argparse
import http.server
import json
import os
import select
import signal
import socketserver
import sys
import threading
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, ClassVar

from kproxy import errors, logs
from kproxy.api.durations import Duration
from kproxy.exhaustion import PatientServer

HUMANS_PATH, DEAD_MAN_PATH = "/humans", "/dead-man"
PATIENCE_S = 10.0
LARGEST_BODY = 4 * 1024 * 1024
ENDS = (signal.SIGTERM, signal.SIGINT)
TOLD, SWITCH = "told", "dead man's switch"
"""The messages of the lines."""


class Switch:
    """Tells when nothing has been heard for too long. ``first``: so long after the start."""

    def __init__(self, log: logs.Log, after: float, first: float) -> None:
        self._log = log
        self._after = after
        self._heard = threading.Condition()
        self._due = time.monotonic() + first
        self._silent = False

    def heard(self) -> None:
        """Note that somebody is alive; from any thread."""
        with self._heard:
            self._due = time.monotonic() + self._after
            if self._silent:
                self._silent = False
                self._log.info(SWITCH, state="back")
            self._heard.notify()

    def watch(self) -> None:
        """Wait for silence, for ever."""
        with self._heard:
            while True:
                left = self._due - time.monotonic()
                if left <= 0 and not self._silent:
                    self._silent = True
                    self._log.warning(SWITCH, state="silent", after_s=float(self._after))
                self._heard.wait(None if self._silent else max(left, 0.0))


class Server(PatientServer, http.server.ThreadingHTTPServer):
    """Takes notifications."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], log: logs.Log, switch: Switch) -> None:
        self.log = log
        self.switch = switch
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        super().__init__(address, _Handler)

    def serve(self) -> None:
        """Answer until :meth:`stop`; wakes only when somebody comes."""
        poll = select.poll()
        for descriptor in (self.fileno(), self._wake):
            poll.register(descriptor, select.POLLIN)
        while all(descriptor != self._wake for descriptor, _ in poll.poll()):
            self.handle_request()
        self.server_close()
        os.close(self._wake)

    def stop(self) -> None:
        """Make :meth:`serve` return."""
        os.eventfd_write(self._wake, 1)

    def server_bind(self) -> None:
        """Bind without the name look-up of the standard library, which may wait for DNS."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout: ClassVar[float] = PATIENCE_S
    server: Server

    def do_POST(self) -> None:
        """Take a notification of Alertmanager's version 4; other fields are ignored."""
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > LARGEST_BODY:
            self._answer(HTTPStatus.LENGTH_REQUIRED)
            return
        try:
            notification = json.loads(self.rfile.read(int(length)))
            alerts = [_line(one) for one in notification["alerts"]]
        except (ValueError, KeyError, TypeError, AttributeError):
            self._answer(HTTPStatus.BAD_REQUEST)
            return
        if self.path == DEAD_MAN_PATH:
            self.server.switch.heard()
        elif self.path == HUMANS_PATH:
            for alert in alerts:
                self.server.log.info(TOLD, **alert, sender=self.client_address[0])
        else:
            self._answer(HTTPStatus.NOT_FOUND)
            return
        self._answer(HTTPStatus.OK)

    def _answer(self, status: HTTPStatus) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if status is HTTPStatus.LENGTH_REQUIRED:  # its body is still on its way
            self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  its name there
        """Say nothing: what matters has lines of its own."""


def _line(alert: dict[str, Any]) -> dict[str, Any]:
    labels = dict(alert["labels"])
    return {
        "alert": str(labels.pop("alertname", "")),
        "status": str(alert["status"]),
        "labels": labels,
        "starts_at": str(alert.get("startsAt", "")),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Listen until SIGTERM or SIGINT; return the exit code: 2 if it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m kproxy.lab.pager")
    parser.add_argument("--bind-address", required=True, metavar="HOST:PORT")
    for name, seconds in (("after", 240.0), ("first", 600.0)):
        default = Duration(seconds)
        option = f"--dead-man-{name}"
        parser.add_argument(option, type=Duration.parse, default=default, metavar=default.text)
    options = parser.parse_args(arguments)
    log = logs.Log("pager")
    switch = Switch(log, options.dead_man_after, options.dead_man_first)
    host, _, port = options.bind_address.rpartition(":")
    try:
        server = Server((host, int(port)), log, switch)
    except (OSError, ValueError) as error:
        told = errors.UsageError(f"cannot listen at {options.bind_address!r}: {error}")
        log.error("cannot start", error=str(told))
        return 2
    # Blocked before any thread starts, so that they all leave them to sigwait.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    threading.Thread(target=switch.watch, name="switch", daemon=True).start()
    serving = threading.Thread(target=server.serve, name="server")
    serving.start()
    log.info("started", address=options.bind_address)
    signal.sigwait(ENDS)
    server.stop()
    serving.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())

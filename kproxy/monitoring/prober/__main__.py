"""The prober of one node: loss and latency of every Service, as a pod there sees them.

    python -m kproxy.monitoring.prober [--kubeconfig FILE] [--node NAME] [--period 1s] …

It follows the Services, connects to each of their TCP ports, and sends datagrams to the UDP ports
of those that send them back (:mod:`.targets` says which). What it counts is at port 9815. It needs
no privileges, and of the API nothing but Services.
"""

import argparse
import contextlib
import os
import resource
import signal
import sys
from collections.abc import Sequence

from kproxy import errors, logs
from kproxy.api.core import Service
from kproxy.api.durations import Duration
from kproxy.client.informer import Change, Informer
from kproxy.client.rest import Rest
from kproxy.monitoring import process

from .loop import Loop, Terms
from .metrics import ProbeMetrics
from .targets import Target, targets

NAME = "kproxy-prober"
ADDRESS = "0.0.0.0:9815"
OTHER_FILES = 64
"""Descriptors that are no probes': the API, who asks for metrics, what Python opens."""
LEAST_TARGETS = 64
"""With room for fewer (and fewer than are asked for) it does not start."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Probe until SIGTERM or SIGINT; return the exit code: 2 if it cannot start."""
    options = _options(arguments)
    return process.main(NAME, lambda log: _run(options, log))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m kproxy.monitoring.prober")
    process.add_options(parser, ADDRESS)
    add, terms = parser.add_argument, Terms()
    add(
        "--node",
        default=os.environ.get("NODE_NAME") or os.uname().nodename,
        metavar="NAME",
        help="the label node of all that is counted; default: $NODE_NAME, or the host's name",
    )
    period, timeout = Duration(terms.period), Duration(terms.timeout)
    add("--period", type=process.duration, default=period, metavar="1s", help="between probes")
    add(
        "--timeout",
        type=process.duration,
        default=timeout,
        metavar="1s",
        help="without an answer for so long a probe is lost; at most the period",
    )
    add("--flows", type=_count, default=1, metavar="1", help="lasting UDP flows to each port")
    add("--max-targets", type=_count, default=terms.most, metavar=str(terms.most))
    return parser.parse_args(arguments)


class Follower:
    """Turns Services into targets. Its methods are for the informer's thread."""

    def __init__(self, loop: Loop, flows: int, log: logs.Log) -> None:
        self._loop = loop
        self._flows = flows
        self._log = log
        self._found: dict[tuple[str, str], list[Target]] = {}

    def on_services(self, changes: Sequence[Change[Service]]) -> None:
        """Take changes; a Service that cannot be understood is not probed, and told of."""
        for old, new in changes:
            either = new or old
            assert either is not None
            key = either.metadata.namespace, either.metadata.name
            self._found.pop(key, None)
            if new is not None:
                try:
                    self._found[key] = list(targets(new, self._flows))
                except errors.InvalidObject as error:
                    self.on_problem(error)
        self._loop.follow(target for found in self._found.values() for target in found)

    def on_problem(self, error: errors.KproxyError) -> None:
        """Tell of what went wrong."""
        self._log.warning("problem", error=str(error))


def _run(options: argparse.Namespace, log: logs.Log) -> int:
    if options.timeout > options.period:
        raise errors.UsageError(
            f"--timeout {options.timeout.text} is longer than --period {options.period.text}",
            remedy="a target has one probe under way: choose a longer period",
        )
    client = Rest(process.access(options), agent=NAME)
    metrics = ProbeMetrics(options.node)
    most = _most_targets(options.max_targets)
    loop = Loop(metrics, Terms(period=options.period, timeout=options.timeout, most=most))
    follower = Follower(loop, options.flows, log)
    informer = Informer(
        client, Service, on_changes=follower.on_services, on_problem=follower.on_problem
    )
    for number in process.ENDS:
        signal.signal(number, lambda *_: loop.stop())
    # Who starts us may wait for them with sigwait, and a mask is inherited.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, process.ENDS)
    with process.server(options, metrics.registry, client, [informer]) as health:
        log.info("started", port=health.port, node=options.node, most=most)
        informer.start()
        loop.run()
        informer.stop()
    client.close()
    log.info("stopped")
    return 0


def _most_targets(asked: int) -> int:
    """Return how many targets may be probed: a socket each. Raises UsageError for too few."""
    allowed = _descriptors()
    least = min(asked, LEAST_TARGETS)
    if allowed < OTHER_FILES + least:
        raise errors.UsageError(
            f"only {allowed} open files are allowed (RLIMIT_NOFILE): too few for {least} targets",
            remedy=f"allow at least {OTHER_FILES + least}, for example by ulimit -n",
        )
    return min(asked, allowed - OTHER_FILES)


def _descriptors() -> int:
    """Allow as many descriptors as the machine lets us have; return how many those are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft >= 0 else sys.maxsize


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())

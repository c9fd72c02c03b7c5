"""``python -m kproxy.monitoring.remediation``: the receiver without the whole command line."""

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from kproxy.errors import InvalidObject, KproxyError, UsageError
from kproxy.logs import Log

from . import service, settings


def main(arguments: Sequence[str]) -> int:
    """Serve until a signal comes. 0: ended by it; 1: it could not go on; 2: bad input."""
    parser = argparse.ArgumentParser(prog="kproxy-remediation", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument("--dry-run", action="store_true", help="check, but run no action")
    options = parser.parse_args(arguments)
    try:
        serve(options.config, dry_run=options.dry_run)
    except (UsageError, InvalidObject) as error:
        print(f"kproxy-remediation: {error}", file=sys.stderr)
        return 2
    except KproxyError as error:
        print(f"kproxy-remediation: {error}", file=sys.stderr)
        return 1
    return 0


def serve(config: Path, *, dry_run: bool) -> None:
    """Serve what a configuration file says until SIGTERM or SIGINT. Raises KproxyError."""
    read = settings.load(config)
    if dry_run:
        read = msgspec.structs.replace(read, dry_run=True)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    log = Log("remediation")
    failed = threading.Event()

    def fail() -> None:
        failed.set()
        ended.set()

    with service.running(read, log, fail):
        ended.wait()
    if failed.is_set():
        raise KproxyError(
            "the worker has failed: start it again", remedy="and report the traceback"
        )
    log.info("ended")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

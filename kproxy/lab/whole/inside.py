"""What ``kproxy lab`` asks of a running lab, answered on the lab's own kernel.

    python -m kproxy.lab.whole.inside status
    python -m kproxy.lab.whole.inside apply < objects.json
    python -m kproxy.lab.whole.inside logs [--follow] [--tail N] [--raw] [NAME…]

The state directory is in the environment (the door puts it there). Answers are JSON on standard
output, but for logs, which people read. Exit code 0; 1: it could not be answered, 2: there is no
such log, in words on standard error.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from kproxy import errors
from kproxy.lab import clusterfile
from kproxy.lab.door.server import STATE_VARIABLE
from kproxy.lab.site import Site
from kproxy.lab.whole import logtext, picture
from kproxy.lab.whole.api import Object
from kproxy.lab.whole.cluster import WholeCluster
from kproxy.lab.whole.places import SITE_FILE
from netns.errors import NetnsError
from netns.lab import Lab


@contextmanager
def attached() -> Iterator[WholeCluster]:
    """Look at the lab whose state directory is in the environment."""
    with Lab.attach(Path(os.environ[STATE_VARIABLE])) as lab:
        site = Site(clusterfile.load(lab.scratch / SITE_FILE))
        with closing(WholeCluster(lab, site)) as cluster:
            yield cluster


def _status(cluster: WholeCluster, options: argparse.Namespace) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(picture.take(cluster)))


def _apply(cluster: WholeCluster, options: argparse.Namespace) -> None:
    objects = msgspec.json.decode(sys.stdin.buffer.read(), type=list[Object])
    sys.stdout.buffer.write(msgspec.json.encode(cluster.api.apply_all(objects)))


def _logs(cluster: WholeCluster, options: argparse.Namespace) -> None:
    directory = cluster.places.files.logs
    logtext.show(
        directory, options.names, follow=options.follow, tail=options.tail, raw=options.raw
    )


def main(arguments: list[str]) -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kproxy.lab.whole.inside")
    verbs = parser.add_subparsers(required=True)
    verbs.add_parser("status").set_defaults(run=_status)
    verbs.add_parser("apply").set_defaults(run=_apply)
    logs = verbs.add_parser("logs")
    logs.set_defaults(run=_logs)
    logs.add_argument("--follow", action="store_true")
    logs.add_argument("--raw", action="store_true")
    logs.add_argument("--tail", type=int, default=-1)
    logs.add_argument("names", nargs="*")
    options = parser.parse_args(arguments)
    try:
        with attached() as cluster:
            options.run(cluster, options)
    except (errors.KproxyError, NetnsError) as error:
        print(f"kproxy: {error}" if options.run is _logs else error, file=sys.stderr)
        return 2 if isinstance(error, errors.UsageError) else 1
    except (BrokenPipeError, KeyboardInterrupt):  # the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

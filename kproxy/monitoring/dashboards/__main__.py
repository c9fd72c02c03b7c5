"""Writes the dashboards' files, asks all their queries, or checks them by Grafana's schema.

    python -m kproxy.monitoring.dashboards write [--check]
    python -m kproxy.monitoring.dashboards check --prometheus HOST:PORT [--last SECONDS]
                                                 [--rate-interval DURATION]
    python -m kproxy.monitoring.dashboards schema

Exit code 0; 1: a file is not as it would be written, a query has no data, Grafana's schema is not
kept or its compiler takes too long; 2: bad usage, nobody answers, or the schema cannot be had.
"""

import argparse
import sys
import time

from kproxy import errors
from kproxy.monitoring.promclient import Prometheus

from . import checking, reading
from .boards import DIRECTORY


def _write(options: argparse.Namespace) -> int:
    from . import grafana  # needs a library that only developers have

    stale = []
    documents = grafana.documents()
    for name, text in documents.items():
        path = DIRECTORY / name
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not options.check:
                DIRECTORY.mkdir(exist_ok=True)
                path.write_text(text)
    for path in DIRECTORY.glob("*.json"):
        if path.name not in documents:
            stale.append(path.name)
            if not options.check:
                path.unlink()
    if stale:
        print("not as written" if options.check else "written:", *stale, file=sys.stderr)
    return 1 if stale and options.check else 0


def _check(options: argparse.Namespace) -> int:
    host, colon, port = options.prometheus.rpartition(":")
    if not colon or not port.isdecimal():
        raise errors.UsageError(f"--prometheus {options.prometheus!r}", remedy="use HOST:PORT")
    now = time.time()
    span = checking.Span(start=now - options.last, end=now, rate_interval=options.rate_interval)
    boards = reading.kept(DIRECTORY)
    found = list(checking.check(Prometheus(host, int(port)), boards, span))
    empty = [one for one in found if not one.lines]
    for one in empty:
        words = one.wrong or "no data"
        print(f"{one.board}: {one.asked.panel} ({one.asked.ref}): {words}\n    {one.expr}")
    print(
        f"{len(boards)} dashboards, {len(found)} queries, {len(empty)} without data",
        file=sys.stderr,
    )
    return 1 if empty or not found else 0


def _schema(options: argparse.Namespace) -> int:
    from . import schema

    texts = {path.name: path.read_text() for path in sorted(DIRECTORY.glob("*.json"))}
    found = schema.problems(texts)
    print(*found, sep="\n", end="\n" if found else "")
    print(f"{len(texts)} dashboards, {len(found)} against Grafana's schema", file=sys.stderr)
    return 1 if found else 0


def main(arguments: list[str]) -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kproxy.monitoring.dashboards")
    verbs = parser.add_subparsers(required=True)
    write = verbs.add_parser("write", help="write the files")
    write.add_argument("--check", action="store_true", help="write nothing, compare")
    write.set_defaults(run=_write)
    check = verbs.add_parser("check", help="ask all queries of a Prometheus")
    check.add_argument("--prometheus", required=True, metavar="HOST:PORT")
    check.add_argument("--last", type=float, default=600.0, metavar="SECONDS")
    check.add_argument("--rate-interval", default="2m", metavar="DURATION")
    check.set_defaults(run=_check)
    schema = verbs.add_parser("schema", help="compare with Grafana's own schema (needs npm)")
    schema.set_defaults(run=_schema)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except errors.KproxyError as error:
        print(f"kproxy: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The page's other end, beside a lab's hosts on the lab's kernel: looks, and does what is ordered.

    python -m kproxy.lab.dashboard.inside [--allow-faults]

A question is a line of JSON on standard input, its answer one on standard output
(:mod:`messages`). Ends with its input. The state directory is in the environment (the door puts
it there).
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from kproxy import errors
from kproxy.lab import clusterfile
from kproxy.lab.dashboard import faults
from kproxy.lab.dashboard.looking import Looker
from kproxy.lab.dashboard.messages import Answer, Question
from kproxy.lab.dashboard.prometheus import Prometheus
from kproxy.lab.door.server import STATE_VARIABLE
from kproxy.lab.site import Site
from kproxy.lab.whole.api import Api
from kproxy.lab.whole.cluster import WholeCluster
from kproxy.lab.whole.monitoringtargets import PROMETHEUS_PORT
from kproxy.lab.whole.places import SITE_FILE
from netns.errors import NetnsError
from netns.lab import Lab

API_TIMEOUT = 3.0
"""Whoever looks on does not want to wait for an API that is cut off."""


class WatchedCluster(WholeCluster):
    """A cluster whose API is asked with little patience."""

    @property
    def api(self) -> Api:
        """The API, as for :class:`WholeCluster`."""
        if self._api is None:
            self._api = Api(self.lab, self.places, timeout=API_TIMEOUT)
        return self._api


@contextlib.contextmanager
def attached() -> Iterator[WatchedCluster]:
    """Look at the lab whose state directory is in the environment."""
    with Lab.attach(Path(os.environ[STATE_VARIABLE])) as lab:
        site = Site(clusterfile.load(lab.scratch / SITE_FILE))
        with closing(WatchedCluster(lab, site)) as cluster:
            yield cluster


class Attendant:
    """Answers questions; ``allow``: orders, too."""

    def __init__(self, cluster: WholeCluster, *, allow: bool) -> None:
        self._cluster = cluster
        self._allow = allow
        self._looker = Looker(cluster, _prometheus(cluster), faults=allow)

    def answer(self, line: bytes) -> Answer:
        """Return the answer to a question; whatever goes wrong is told in it."""
        try:
            question = msgspec.json.decode(line, type=Question)
            if question.order is None:
                return Answer(view=self._looker.look())
            if not self._allow:
                return Answer(error="no faults: `kproxy lab dashboard --allow-faults` allows them")
            happened = faults.do(self._cluster, question.order)
        except (errors.KproxyError, NetnsError) as error:
            return Answer(error=str(error))
        except msgspec.DecodeError as error:
            return Answer(error=f"not understood: {error}")
        self._looker.note(happened)
        return Answer(done=f"{happened.about}: {happened.text}")


def _prometheus(cluster: WholeCluster) -> Prometheus:
    """Return the lab's Prometheus; a lab without monitoring has none."""
    site = cluster.site
    addresses = [str(site.lan_address(host)) for host in site.monitors]
    return Prometheus(cluster.lab, addresses, PROMETHEUS_PORT)


def main(arguments: list[str]) -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kproxy.lab.dashboard.inside")
    parser.add_argument("--allow-faults", action="store_true")
    options = parser.parse_args(arguments)
    try:
        with attached() as cluster:
            attendant = Attendant(cluster, allow=options.allow_faults)
            for line in sys.stdin.buffer:
                sys.stdout.buffer.write(msgspec.json.encode(attendant.answer(line)) + b"\n")
                sys.stdout.buffer.flush()
    except (errors.KproxyError, NetnsError) as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

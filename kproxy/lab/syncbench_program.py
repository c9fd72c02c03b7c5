"""One process that measures programming alone: from a finished State to the last acknowledgement.

    python -m kproxy.lab.syncbench_program --mode MODE --kubeconfig FILE --runs N

It lists the objects, builds the State as the proxy does, lets the backend write it into a fresh
network namespace, then do nothing, then look for drift; then the peers of
:mod:`kproxy.lab.syncbench_peers` make or read the very same objects. The answer is one line of
JSON on standard output: a :class:`Programming`.

The garbage collector is treated as the proxy treats it: off until the first sync, then what is
there is set apart. All namespaces are kept until the process ends, so that none is taken down
while another one is measured.
"""

import argparse
import contextlib
import gc
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from kproxy.api import core, discovery
from kproxy.backends import base
from kproxy.client.kubeconfig import load_kubeconfig
from kproxy.client.rest import Rest
from kproxy.desired.build import NodeSettings, StateBuilder
from kproxy.desired.model import Family, Prefix
from kproxy.errors import KproxyError, MeasurementError, Unsupported
from kproxy.kernel import inet
from kproxy.kernel.nft.client import Nft
from kproxy.kernel.nft.types import AddTable, DelTable
from kproxy.lab import freshnet, syncbench_peers
from kproxy.lab.benchcluster import CLUSTER_CIDR


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What one sync cost. ``seconds``: one for each time it was done; ``writes``: at most."""

    seconds: list[float]
    writes: int
    cpu_seconds: float
    """Of this process and the tools it ran, for one sync on average."""
    rss_mb: float


class Programming(msgspec.Struct, frozen=True, kw_only=True):
    """What :func:`main` prints. ``list_seconds``: fetching and decoding all objects, alone."""

    list_seconds: float
    steps: dict[str, Step]
    peers: dict[str, list[syncbench_peers.Peer]]
    """By step."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure once, print, and return the exit code."""
    parser = argparse.ArgumentParser(prog="kproxy.lab.syncbench_program")
    parser.add_argument("--mode", required=True)
    parser.add_argument("--kubeconfig", required=True, type=Path)
    parser.add_argument("--runs", default=3, type=int)
    options = parser.parse_args(arguments)
    gc.disable()
    try:
        found = measure(options.mode, options.kubeconfig, options.runs)
    except KproxyError as error:
        print(json.dumps({"error": str(error)}))
        return 1
    print(msgspec.json.encode(found).decode())
    return 0


def measure(mode: str, kubeconfig: Path, runs: int) -> Programming:
    """Measure programming and its peers. Raises KproxyError."""
    builder = StateBuilder(
        NodeSettings(family=Family.IPV4, node="node1", cluster_cidrs=(Prefix(CLUSTER_CIDR),))
    )
    list_seconds = _list(builder, kubeconfig)
    state = builder.build()
    freshnet.enter_fresh()
    freshnet.hold()
    backend = base.loader(mode)(Family.IPV4, base.Options())
    backend.reread()
    steps = {"cold": _step(lambda: backend.sync(state), 1)}
    gc.freeze()
    gc.enable()

    def resync() -> base.SyncResult:
        backend.reread()
        return backend.sync(builder.build())

    steps["noop"] = _step(lambda: backend.sync(builder.build()), runs)
    steps["resync"] = _step(resync, runs, before=_change_elsewhere)
    backend.close()
    peers = syncbench_peers.measure(mode, state, runs)
    return Programming(list_seconds=list_seconds, steps=steps, peers=peers)


def _list(builder: StateBuilder, kubeconfig: Path) -> float:
    with Rest(load_kubeconfig(kubeconfig), agent="kproxy-bench") as rest:
        begin = time.monotonic()
        slices = rest.list(discovery.EndpointSlice).items
        services = rest.list(core.Service).items
        seconds = time.monotonic() - begin
    builder.on_slices((None, one) for one in slices)
    builder.on_services((None, one) for one in services)
    return seconds


def _change_elsewhere() -> None:
    """Change nf_tables, but nothing of the proxy's.

    Its own mode has nothing to read while nobody has; on a node somebody always has.
    """
    with contextlib.suppress(Unsupported), Nft(inet.Family.IPV4, "kproxy-bench") as other:
        other.run([AddTable()])
        other.run([DelTable()])


def _step(
    sync: Callable[[], base.SyncResult], times: int, before: Callable[[], None] = lambda: None
) -> Step:
    """Time a sync; ``before`` is called before each, outside of what is measured."""
    seconds, writes, cpu = [], 0, 0.0
    for _ in range(times):
        before()
        used, begin = _cpu(), time.monotonic()
        result = sync()
        seconds.append(time.monotonic() - begin)
        cpu += _cpu() - used
        # The most: one that writes where nothing has changed must not hide behind the others.
        writes = max(writes, result.writes)
        for failure in result.failures:
            raise MeasurementError(f"a sync failed: {failure}")
    return Step(seconds=seconds, writes=writes, cpu_seconds=cpu / times, rss_mb=_rss_mb())


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


if __name__ == "__main__":
    sys.exit(main())

"""What Prometheus expects of every process: ``process_*``, and ``kubernetes_build_info``."""

import functools
import os
import platform
import resource
from collections.abc import Iterator
from pathlib import Path

from kproxy.exposition import Family, Kind, Sample

KUBERNETES = ("1", "36")
"""The version of Kubernetes whose behaviour this is."""

_ANY = 1 << 64
_PAGE = resource.getpagesize()
_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc/self")


def collect() -> Iterator[Family]:
    """Yield what the kernel knows of this process."""
    fields = (_PROC / "stat").read_text().rpartition(")")[2].split()
    user, system, started, virtual, resident = (int(fields[at]) for at in (11, 12, 19, 20, 21))
    booted = _boot_time()
    for name, kind, words, value in (
        ("cpu_seconds_total", Kind.COUNTER, "CPU time used.", (user + system) / _TICKS),
        ("resident_memory_bytes", Kind.GAUGE, "Memory in use.", resident * _PAGE),
        ("virtual_memory_bytes", Kind.GAUGE, "Address space in use.", virtual),
        (
            "virtual_memory_max_bytes",
            Kind.GAUGE,
            "Address space that may be used; 2^64: any.",
            resource.getrlimit(resource.RLIMIT_AS)[0] % _ANY,  # where -1 is any
        ),
        (
            "start_time_seconds",
            Kind.GAUGE,
            "When the process started, in seconds since 1970.",
            booted + started / _TICKS,
        ),
        ("open_fds", Kind.GAUGE, "Open files.", sum(1 for _ in (_PROC / "fd").iterdir())),
        (
            "max_fds",
            Kind.GAUGE,
            "Files that may be open.",
            resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        ),
    ):
        yield Family(f"process_{name}", kind, words, [Sample({}, value)])
    yield from _network()
    yield _build_info()


def _network() -> Iterator[Family]:
    """Yield what passed the network namespace: of a process alone the kernel does not know it."""
    lines = (_PROC / "net/netstat").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("IpExt:"))
    counted = dict(zip(names, values, strict=True))
    for way, field in (("receive", "InOctets"), ("transmit", "OutOctets")):
        yield Family(
            f"process_network_{way}_bytes_total",
            Kind.COUNTER,
            "Bytes of IP packets in the process' network namespace, whoever they were for.",
            [Sample({}, int(counted[field]))],
        )


@functools.cache
def _boot_time() -> int:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return int(line.split()[1])
    return 0


@functools.cache
def _build_info() -> Family:
    from importlib import metadata  # which drags in half the standard library

    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    major, minor = KUBERNETES
    labels = {
        "major": major,
        "minor": minor,
        "git_version": f"kproxy-{metadata.version('kproxy')}",
        "git_commit": "",
        "git_tree_state": "",
        "build_date": "",
        "go_version": "",
        "compiler": platform.python_implementation().lower(),
        "platform": f"{platform.system().lower()}/{machine}",
    }
    words = "Always 1; the version of Kubernetes that this program is made for, and its own."
    return Family("kubernetes_build_info", Kind.GAUGE, words, [Sample(labels, 1)])

"""Skip the tests that cannot run on this machine, with the name of what is missing.

Tests marked ``kernel`` or ``lab`` change namespaces and rules, so they are skipped without root
(inside a user namespace one is root). The markers ``needs_module`` and ``needs_tool`` name a
feature of the kernel and a program; ``scripts/test`` shows the reasons of all skips at its end.
"""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import examples
import hypothesis
import pytest

from netns.kernels import base, probe

NATIVE_TIER = "KPROXY_NATIVE_TIER_PASSED"
"""Set by tests/tiers.py for the tiers that follow."""

# The same examples in every run; no durations are asserted; nothing is written, for an embedded
# kernel sees the checkout read-only.
hypothesis.settings.register_profile(
    "house",
    database=None,
    deadline=None,
    derandomize=True,
    max_examples=examples.number(examples.MOST),
)
hypothesis.settings.load_profile("house")

# Where a kernel shows a feature, however it came by it: a feature that is built in may have no
# module, and a module that is loaded may have no file. What is in no such place is tried.
SIGNS = {
    "ip_vs": Path("/proc/net/ip_vs"),
    "ip6_tables": Path("/proc/net/ip6_tables_names"),
    "ip_tables": Path("/proc/net/ip_tables_names"),
    "nf_conntrack": Path("/proc/sys/net/netfilter/nf_conntrack_max"),
}


PURE = (Path("tests/unit"), Path("tests/flows"))
"""Directories of tests that may run beside each other, in several processes."""
MOST_WORKERS = 4


@pytest.hookimpl
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Use all CPUs for the unit tier as a whole; 0, one process, for everything else.

    One process more than there are CPUs, since tests wait for a part of their time. Other tests
    change the one network namespace that they all run in.
    """
    wanted = {Path(os.path.relpath(text, config.rootpath)) for text in config.args}
    if not wanted <= set(PURE):
        return 0
    return min(len(os.sched_getaffinity(0)) + 1, MOST_WORKERS)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose machine lacks what it needs."""
    needs_root = any(item.get_closest_marker(each) for each in ("kernel", "lab"))
    if needs_root and os.geteuid() != 0:
        pytest.skip("needs root")
    passed = base.inside_guest() and os.environ.get(NATIVE_TIER)
    if passed and item.get_closest_marker("once") is not None:
        pytest.skip("passed on this machine's own kernel")
    for marker in item.iter_markers("needs_tool"):
        for tool in marker.args:
            if shutil.which(tool) is None:
                pytest.skip(f"needs the program {tool}")
    for marker in item.iter_markers("needs_module"):
        for module in marker.args:
            if not kernel_has(module):
                pytest.skip(f"needs a kernel with {module}")


@cache
def kernel_has(module: str) -> bool:
    """Tell whether the running kernel has this module, loading it if it can be loaded."""
    if SIGNS.get(module, Path("/sys/module") / module).exists():
        return True
    if module in probe.FEATURES and probe.probe([module]) == {module: ""}:
        return True
    modprobe = shutil.which("modprobe", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if modprobe is None:
        return False
    return subprocess.run([modprobe, "-q", module], check=False).returncode == 0

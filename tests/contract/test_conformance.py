"""Packets fare as with kube-proxy: its recorded behaviour, in every scenario and mode.

The suite is a checkout of its own: beside this one, or where KPROXY_CONFORMANCE says. Both
variants of iptables are tried: their kernels' rule engines are two programs.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kproxy.kernel.inet import Family
from kproxy.kernel.iptables import nftprobe
from netns.kernels import base

ROOT = Path(__file__).resolve().parents[2]
SUITE = Path(os.environ.get("KPROXY_CONFORMANCE", ROOT.parent / "shared" / "conformance"))

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.slow,
    pytest.mark.needs_tool("ip"),
    pytest.mark.skipif(
        not (SUITE / "conform").is_dir(),
        reason=f"no conformance suite in {SUITE}; the variable KPROXY_CONFORMANCE names it",
    ),
]

PROXY = (
    f"{sys.executable} -m kproxy proxy --proxy-mode {{mode}} --kubeconfig {{kubeconfig}}"
    " --hostname-override {node} --config {config}"
)


def scenarios(mode: str) -> int:
    """Return in how many scenarios kube-proxy was recorded in a mode."""
    return len(list((SUITE / "expected").glob(f"*.{mode}.json")))


def differences(mode: str, *options: str) -> list[str]:
    """Return what the suite finds different from kube-proxy, and its summary."""
    # In an embedded kernel there is one CPU. Elsewhere a scenario waits for most of its time.
    jobs = 1 if base.inside_guest() else 3 * len(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "conform", "check", "--mode", mode, "--jobs", str(jobs)]
    done = subprocess.run(
        [*command, *options, "--proxy", PROXY],
        cwd=SUITE,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return (done.stdout + done.stderr).splitlines()


def check(mode: str, *options: str) -> None:
    """Compare a mode with kube-proxy."""
    count = scenarios(mode)
    assert count > 40
    assert differences(mode, *options) == [f"{count} passed, 0 failed"]


@pytest.mark.once
@pytest.mark.needs_tool("iptables-legacy-save")
@pytest.mark.needs_module("ip_tables")
def test_iptables_legacy() -> None:
    check("iptables", "--iptables", "legacy")


@pytest.mark.once
@pytest.mark.needs_tool("iptables-nft-save")
def test_iptables_nft() -> None:
    if not nftprobe.supports(Family.IPV4):
        pytest.skip("needs a kernel whose nf_tables has the family ip")
    check("iptables", "--iptables", "nft")


@pytest.mark.needs_tool("ipvsadm", "iptables-legacy-save")
@pytest.mark.needs_module("ip_vs", "dummy", "ip_set")
def test_ipvs() -> None:
    check("ipvs", "--iptables", "legacy")


@pytest.mark.once
@pytest.mark.needs_tool("nft")
def test_nftables() -> None:
    if not nftprobe.supports(Family.IPV4):
        pytest.skip("needs a kernel whose nf_tables has the family ip")
    check("nftables")

"""Packets fare as with kube-proxy: its recorded behaviour, for all that this version does.

The suite is a checkout of its own: beside this one, or where KPROXY_CONFORMANCE says.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kproxy.kernel.inet import Family
from kproxy.kernel.iptables import nftprobe

ROOT = Path(__file__).resolve().parents[2]
SUITE = Path(os.environ.get("KPROXY_CONFORMANCE", ROOT.parent / "shared" / "conformance"))

pytestmark = [
    pytest.mark.lab,
    pytest.mark.slow,
    pytest.mark.needs_tool("ip", "iptables-legacy-save"),
    pytest.mark.skipif(
        not (SUITE / "conform").is_dir(),
        reason=f"no conformance suite in {SUITE}; the variable KPROXY_CONFORMANCE names it",
    ),
]

COVERED = (
    "00-empty",
    "01-clusterip-tcp-udp",
    "02-named-ports-two-slices",
    "19-itp-local",
    "21-no-endpoints-clusterip",
    "23-no-slice-at-all",
    "24-one-not-ready",
    "25-one-terminating-serving",
    "27-all-terminating-not-serving",
    "29-ipv6-clusterip",
    "32-headless-and-externalname-ignored",
    "33-service-proxy-name-ignored",
    "35-five-endpoints",
    "38-topology-zone-hints",
    "40-prefer-same-node-hints",
    "41-two-namespaces-same-name",
    "43-node-local-hostnetwork-endpoint",
    "52-hostnetwork-on-both-nodes",
    "q1-endpoint-add-remove",
    "q2-endpoint-ready-notready-ready",
    "q3-service-delete",
    "q5-port-change",
    "q7-udp-endpoint-replaced",
    "q10-restart-unchanged",
    "q19-target-port-change",
    "q21-tcp-udp-same-port",
)
"""Scenarios that ask for ClusterIPs only. The others need node ports, external or load balancer
addresses, client affinity or health check node ports."""

IPVS_ONLY = ("v5-ipvs-wrr", "v7-ipvs-timeouts")

PROXY = (
    f"{sys.executable} -m kproxy proxy --proxy-mode {{mode}} --kubeconfig {{kubeconfig}}"
    " --hostname-override {node} --config {config}"
)


def differences(mode: str, *scenarios: str, tools: str = "legacy") -> list[str]:
    """Return what the suite finds different from kube-proxy, and its summary."""
    command = [sys.executable, "-m", "conform", "check", "--mode", mode, "--iptables", tools]
    done = subprocess.run(
        [*command, "--proxy", PROXY, *scenarios],
        cwd=SUITE,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return (done.stdout + done.stderr).splitlines()


@pytest.mark.parametrize("tools", ["legacy", "nft"])
def test_iptables(tools: str) -> None:
    if tools == "nft" and not nftprobe.supports(Family.IPV4):
        pytest.skip("needs a kernel whose nf_tables has the family ip")
    found = differences("iptables", *COVERED, tools=tools)
    assert found == [f"{len(COVERED)} passed, 0 failed"]


@pytest.mark.needs_tool("ipvsadm")
@pytest.mark.needs_module("ip_vs", "dummy", "ip_set")
def test_ipvs() -> None:
    found = differences("ipvs", *COVERED, *IPVS_ONLY)
    assert found == [f"{len(COVERED) + len(IPVS_ONLY)} passed, 0 failed"]

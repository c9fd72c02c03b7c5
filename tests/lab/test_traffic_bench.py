"""The bench on a kernel with IPVS: it holds a rate, and says so when it does not."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from netns.kernels import base

pytestmark = [pytest.mark.lab, pytest.mark.needs_module("ip_vs")]
BENCH = [sys.executable, "-m", "kproxy", "bench", "traffic", "--kernel", "native", "--json"]


def test_a_held_rate_loses_nothing() -> None:
    done = subprocess.run([*BENCH, "--rate", "2000", "--seconds", "1"], stdout=subprocess.PIPE)
    found = json.loads(done.stdout)
    assert found["offered_pps"] == 2000.0
    assert found["sent"] == found["received"] == 2000
    assert found["lost"] == 0
    assert found["held"] is True
    assert done.returncode == 0


def test_a_rate_beyond_the_machine_is_not_held() -> None:
    done = subprocess.run(
        [*BENCH, "--rate", "2000000", "--seconds", "0.5"], stdout=subprocess.PIPE
    )
    found = json.loads(done.stdout)
    assert found["achieved_pps"] < 0.99 * found["offered_pps"]
    assert found["held"] is False
    assert "the sender reached" in found["reason"]
    assert done.returncode == 1


def test_the_highest_rate_is_found_beside_peers() -> None:
    done = subprocess.run([*BENCH, "--seconds", "1"], stdout=subprocess.PIPE)
    found = json.loads(done.stdout)
    assert found["pps"] == found["achieved_pps"]
    assert found["lost"] == sum(loss["packets"] for loss in found["losses"])
    if found["clock"] == "virtual":
        assert found["offered_pps"] == 20_000
        assert found["ratio"] is found["limit_pps"] is found["scapy_sendp_pps"] is None
    else:
        assert found["offered_pps"] <= found["calibrated_pps"]
        assert found["limit_pps"] > found["scapy_sendp_pps"] > 0
        assert found["ratio"] == pytest.approx(found["pps"] / found["scapy_sendp_pps"], rel=0.01)


DECLARED = """
traffic:
  - {kind: udp, rate: 2000, distribution: poisson, source-ports: fresh}
  - kind: packet
    packet: IP(dst='10.96.0.10')/TCP(dport=8080, flags='S')
    rate: 500
    source-ports: fresh
  - {kind: tcp-connections, rate: 50}
  - {kind: tcp-requests, rate: 10, connections: 4}
  - {kind: tcp-bulk, rate: 50, connections: 2}
"""


def test_declared_traffic_goes_through_the_virtual_servers(tmp_path: Path) -> None:
    path = tmp_path / "traffic.yaml"
    path.write_text(DECLARED)
    command = [*BENCH, "--seconds", "1", "--profile", str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE)
    poisson, syn, fresh, kept, bulk = json.loads(done.stdout)
    assert poisson["sent"] == poisson["received"] == 2000
    assert syn["sent"] == syn["received"] == 500
    for one in (poisson, syn):
        assert one["lost"] == one["unexplained"] == one["duplicated"] == 0
    for one in (fresh, kept, bulk):
        assert one["attempted"] > 10
        assert one["failed"] == 0


def test_the_fate_of_every_packet_can_be_kept(tmp_path: Path) -> None:
    path = tmp_path / "packets.npz"
    command = [*BENCH, "--rate", "2000", "--seconds", "1", "--packets", str(path)]
    subprocess.run(command, stdout=subprocess.PIPE)
    with np.load(path) as file:
        assert len(file["flow"]) == 2000
        assert set(file["copies"].tolist()) == {1}
        assert file["pods"].tolist() == ["pod1", "pod2"]
        assert set(file["pod"].tolist()) == {0, 1}


@pytest.mark.skipif(base.clock() is not base.Clock.VIRTUAL, reason="needs the virtual clock")
def test_a_virtual_minute_at_full_rate_is_counted_to_the_packet() -> None:
    done = subprocess.run(
        [*BENCH, "--rate", "20000", "--seconds", "60"], stdout=subprocess.PIPE, check=True
    )
    found = json.loads(done.stdout)
    assert found["clock"] == "virtual"
    assert found["sent"] == found["received"] == 1_200_000
    assert found["lost"] == found["duplicated"] == found["not_sent"] == found["failed"] == 0
    assert found["lateness_ms"]["max"] < 1
    assert found["delay_ms"] is None

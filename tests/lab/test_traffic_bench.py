"""The bench on a kernel with IPVS: it holds a rate, and says so when it does not."""

import json
import subprocess
import sys

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

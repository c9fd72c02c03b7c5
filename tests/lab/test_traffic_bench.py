"""The bench on a kernel with IPVS: it holds a rate, and says so when it does not."""

import json
import subprocess
import sys

import pytest

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

"""A virtual cable has no card that stamps: the kernel says so, and we say it in words."""

import subprocess

import fresh_netns
import pytest

from kproxy.errors import UsageError
from kproxy.traffic import hwstamp
from kproxy.traffic.hwstamp import Stamps

pytestmark = [pytest.mark.kernel, pytest.mark.needs_tool("ip")]


def test_stamps_of_a_card_are_refused_on_a_veth() -> None:
    told: list[str] = []
    with fresh_netns.fresh_namespace():
        words = ["ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"]
        subprocess.run(words, check=True)
        driver, ability = hwstamp.driver("v0"), hwstamp.ability("v0")
        with (
            pytest.raises(UsageError) as refused,
            hwstamp.arrivals(Stamps.HARDWARE, "v0", told.append),
        ):
            raise AssertionError
        with hwstamp.arrivals(Stamps.AUTO, "v0", told.append) as clock:
            assert clock is None
        with pytest.raises(OSError, match="not supported"):
            hwstamp.configure("v0", hwstamp.Config(0, 0, 1))
    software_receive = 1 << 3
    assert (driver, ability.clock, ability.filters) == ("veth", -1, 0)
    assert ability.flags & software_receive
    assert refused.value.message == (
        "--timestamps hardware: v0 (driver veth): it cannot stamp arrivals (no hardware-receive, "
        "hardware-raw-clock)"
    )
    assert "`ethtool -T v0`" in refused.value.remedy
    (sentence,) = told
    assert sentence.startswith("arrivals are stamped by the kernel: v0 (driver veth)")

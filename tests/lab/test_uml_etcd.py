"""etcd in virtual time: members that do not count the processor's cycles do the same twice."""

import sys

import etcd_members
import pytest
from uml_runner import Runner, wait_until_clean

from netns.kernels import base, registry

pytestmark = [
    pytest.mark.uml,
    pytest.mark.needs_tool("etcd"),
    pytest.mark.skipif(base.inside_guest(), reason="needs the host: boots embedded kernels"),
    pytest.mark.skipif(
        (kernel := registry.preferred()) is None or base.Clock.VIRTUAL not in kernel.clocks,
        reason="no kernel with a virtual clock: scripts/install --kernel",
    ),
]
OPTIONS = ("--clock", "virtual", "--memory", "1G")  # each member makes 128 MB of files beforehand


def test_members_write_and_elect_the_same_twice(tmp_path):
    runner = Runner(tmp_path / "state")
    told = []
    for _ in range(2):
        done = runner.run(sys.executable, etcd_members.__file__, options=OPTIONS)
        assert done.returncode == 0, done.stderr
        told.append(done.stdout)
    assert told[0].count(b"elected leader") > 2
    assert told[0] == told[1]
    assert wait_until_clean(runner) == []

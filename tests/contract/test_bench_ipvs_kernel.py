"""The bench of IPVS on a kernel: both ways make the same table, and no other is touched."""

import os
import signal
from pathlib import Path

import pytest

from kproxy.cli import bench_ipvs
from kproxy.errors import MeasurementError, Unsupported, UsageError
from kproxy.kernel.ipvs.client import IPVS

pytestmark = pytest.mark.kernel


def inode(path: str) -> int:
    return Path(path).stat().st_ino


@pytest.mark.needs_tool("ipvsadm")
@pytest.mark.needs_module("ip_vs")
@pytest.mark.parametrize(("services", "endpoints"), [(1, 0), (20, 3)])
def test_both_ways_make_the_same_table(namespace: None, services: int, endpoints: int) -> None:
    measured = bench_ipvs.measure(services, endpoints)
    assert (measured.services, measured.endpoints) == (services, endpoints)
    assert measured.seconds > 0
    assert measured.ratio == measured.seconds / measured.ipvsadm_seconds
    with IPVS() as ipvs:
        assert ipvs.dump() == {}


def test_the_action_runs_in_another_namespace(namespace: None) -> None:
    here = inode("/proc/thread-self/ns/net")
    there = bench_ipvs.in_fresh_namespace(lambda: inode("/proc/self/ns/net"))
    assert there != here
    assert inode("/proc/thread-self/ns/net") == here


def test_errors_come_back_from_the_child(namespace: None) -> None:
    def usage() -> float:
        raise UsageError("too much", remedy="take less")

    def surprise() -> float:
        raise RuntimeError("odd")

    def death() -> float:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0.0

    with pytest.raises(UsageError, match=r"too much \(take less\)"):
        bench_ipvs.in_fresh_namespace(usage)
    with pytest.raises(MeasurementError, match="RuntimeError: odd"):
        bench_ipvs.in_fresh_namespace(surprise)
    with pytest.raises(MeasurementError, match="status -9"):
        bench_ipvs.in_fresh_namespace(death)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_kernel_without_ipvs_is_said(namespace: None) -> None:
    with IPVS() as ipvs:
        if ipvs.supported() is None:
            pytest.skip("this kernel has IPVS")
    with pytest.raises(Unsupported, match="no IPVS"):
        bench_ipvs.in_fresh_namespace(lambda: bench_ipvs._ours(1, 1))

"""The bench of IPVS: what it refuses, what it programs, how it tells."""

import os

import pytest

from kproxy.cli import bench_ipvs
from kproxy.errors import MeasurementError, UsageError
from kproxy.kernel.ipvs.fake import FakeIPVS
from kproxy.kernel.ipvs.types import (
    AddDestination,
    AddService,
    DestinationConfig,
    ServiceConfig,
    SetDestination,
)

MEASURED = bench_ipvs.Measurement(services=10, endpoints=2, seconds=0.5, ipvsadm_seconds=10.0)


@pytest.fixture
def no_ipvsadm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)


@pytest.mark.parametrize(
    ("services", "endpoints", "named"),
    [
        (0, 10, "--services 0"),
        (-5, 10, "--services -5"),
        (1, -1, "--endpoints -1"),
        (1 << 20, 0, "--services 1048576"),
        (1000, 10_000, "--endpoints 10000"),
    ],
)
def test_impossible_sizes_are_refused_by_name(services: int, endpoints: int, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        bench_ipvs.check(services, endpoints)


def test_without_ipvsadm_there_is_nothing_to_compare_with(no_ipvsadm: None) -> None:
    with pytest.raises(UsageError, match=r"ipvsadm.*apt-get install"):
        bench_ipvs.check(1, 1)


def test_the_table_has_as_many_objects_as_asked_for_and_none_twice() -> None:
    table = bench_ipvs.table(50, 7)
    assert len({key for key, _ in table}) == 50
    assert len({at for _, servers in table for at in servers}) == 350
    addresses = {key.address for key, _ in table} | {at.address for _, s in table for at in s}
    assert len(addresses) == 400
    assert all(key.address in bench_ipvs.SERVICE_NETWORK for key, _ in table)


def test_the_largest_table_fits() -> None:
    last = bench_ipvs.POD_NETWORK.num_addresses - 1
    assert bench_ipvs.POD_NETWORK.network_address + last in bench_ipvs.POD_NETWORK


def test_json_has_exactly_these_names() -> None:
    assert bench_ipvs.as_object(MEASURED) == {
        "services": 10,
        "endpoints": 2,
        "seconds": 0.5,
        "ipvsadm_seconds": 10.0,
        "ratio": 0.05,
    }


def test_lines_for_a_reader() -> None:
    text = "\n".join(bench_ipvs.as_table(MEASURED))
    assert "30 objects" in text
    assert "ratio 0.050" in text
    assert "60" in text  # 30 objects in half a second


def test_a_wrong_table_is_no_measurement() -> None:
    wanted = bench_ipvs.table(3, 2)
    ipvs = FakeIPVS()
    for key, servers in wanted:
        ipvs.run([AddService(key, ServiceConfig("rr"))])
        ipvs.run([AddDestination(key, at, DestinationConfig(1)) for at in servers])
    bench_ipvs._verify(ipvs, wanted, "kproxy")
    key, servers = wanted[1]
    ipvs.run([SetDestination(key, servers[0], DestinationConfig(2))])
    with pytest.raises(MeasurementError, match=f"1 virtual services: {key}"):
        bench_ipvs._verify(ipvs, wanted, "kproxy")

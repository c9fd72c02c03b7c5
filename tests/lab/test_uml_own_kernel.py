"""What a kernel that was built here promises, it has: real boots of the one in the cache."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from uml_runner import Runner, wait_until_clean

from netns.kernels import base, configuration, probe, registry

BUILT = registry.built_kernels()
pytestmark = [
    pytest.mark.uml,
    pytest.mark.skipif(base.inside_guest(), reason="needs the host: boots embedded kernels"),
    pytest.mark.skipif(not BUILT, reason="needs a kernel of our own: kproxy kernel build"),
]
PROBES = {
    base.Feature.NETEM: "netem",
    base.Feature.NFTABLES: "nftables",
    base.Feature.IPTABLES_NFT: "iptables-nft",
    base.Feature.IPTABLES_LEGACY: "iptables-legacy",
}
# Every scheduler of our fragment with both families and all protocols, where ipvsadm knows them.
IPVS = """
for scheduler in rr wrr lc wlc fo ovf lblc lblcr dh sh mh sed nq; do
    ipvsadm -A -t 10.0.0.1:80 -s $scheduler && ipvsadm -D -t 10.0.0.1:80 || exit 1
done
ipvsadm -A -u [fd00::1]:53 -s rr && ipvsadm -A --sctp-service 10.0.0.1:99 -s mh
"""
LINKS = """
set -e
ip netns add n
ip link add v0 type veth peer name v1 netns n
for kind in dummy bridge ifb; do ip link add name ${kind}9 type $kind; done
ip link add link v0 name macvlan0 type macvlan
ip link add name vxlan0 type vxlan id 7 dstport 4789 dev v0
tc qdisc add dev v0 ingress
tc filter add dev v0 parent ffff: matchall action mirred egress redirect dev ifb9
"""
SCTP = "import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)"
CONFIGURATION = "import gzip, sys; sys.stdout.write(gzip.open('/proc/config.gz', 'rt').read())"
SLEEP = """
import time
begin = time.monotonic_ns()
time.sleep(3)
print(time.monotonic_ns() - begin)
"""
RANDOM = "cat /proc/sys/kernel/random/uuid; head -c 64 /dev/urandom | od -An -tx1"


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    one = Runner(tmp_path / "state")
    yield one
    assert wait_until_clean(one) == []


def run(runner: Runner, *command: str, clock: str = "real", seed: int | None = None) -> str:
    """Run on our kernel; it has to end well. Returns standard output."""
    options = ["--kernel", BUILT[0].name, "--clock", clock]
    options += ["--seed", str(seed)] if seed is not None else []
    done = runner.run(*command, options=options)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_it_is_the_kernel_that_its_metadata_describe(runner: Runner) -> None:
    assert run(runner, "uname", "-r").strip() == BUILT[0].version
    options = configuration.parse(run(runner, sys.executable, "-c", CONFIGURATION))
    assert configuration.features(options) == BUILT[0].features
    assert BUILT[0].options.items() <= options.items()


def test_it_has_its_features_when_they_are_used(runner: Runner) -> None:
    wanted = {*PROBES.values(), "dummy", "veth", "bridge", "ipset", "conntrack"}
    code = f"from netns.kernels import probe; print(probe.probe({sorted(wanted)!r}))"
    found = eval(run(runner, sys.executable, "-c", code))
    assert found == dict.fromkeys(sorted(wanted), "")
    assert set(PROBES.values()) <= set(probe.FEATURES)
    assert set(PROBES) < set(BUILT[0].features)


@pytest.mark.needs_tool("ipvsadm")
def test_it_has_every_scheduler_protocol_and_family_of_ipvs(runner: Runner) -> None:
    run(runner, "sh", "-c", IPVS)


def test_it_has_the_links_of_a_lab_and_sctp(runner: Runner) -> None:
    run(runner, "sh", "-c", LINKS)
    run(runner, sys.executable, "-c", SCTP)


def test_in_virtual_time_a_sleep_takes_what_it_says(runner: Runner) -> None:
    slept = [int(run(runner, sys.executable, "-c", SLEEP, clock="virtual")) for _ in range(2)]
    assert slept[0] == slept[1]
    assert 3_000_000_000 <= slept[0] < 3_001_000_000


def test_a_seed_pins_the_random_numbers_of_the_kernel(runner: Runner) -> None:
    one, again, other = (
        run(runner, "sh", "-c", RANDOM, clock="virtual", seed=seed) for seed in (1, 1, 2)
    )
    assert one == again
    assert one != other

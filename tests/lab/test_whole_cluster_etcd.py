"""A whole cluster over three etcd members, dual stack; and what SIGKILL leaves of one: nothing."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kproxy.api import kinds
from kproxy.lab import clusterfile
from kproxy.lab.site import Site
from kproxy.lab.whole.cluster import WholeCluster
from kproxy.lab.whole.roles import Role
from netns import lab as labs
from netns.lab import Lab
from netns.process import ProcessId

pytestmark = [pytest.mark.lab, pytest.mark.needs_module("ip_vs")]
PATIENCE = 120.0
ETCD = "families: [IPv4, IPv6]\ncontrolPlane: {replicas: 2, store: etcd}\ndns: false\n"
OWNER = """
import sys
from pathlib import Path
from kproxy.lab import clusterfile
from kproxy.lab.site import Site
from kproxy.lab.whole.cluster import WholeCluster
from netns.lab import Lab
site = Site(clusterfile.parse("nodes: 1\\ndns: false", "lab.yaml"))
with Lab(site.topology(), name="death", state_dir=Path(sys.argv[1])) as lab:
    with WholeCluster(lab, site) as cluster:
        cluster.wait_ready(120)
        print(*[one.pid for one in cluster.processes.all()], flush=True)
        sys.stdin.read()
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeCluster]:
    site = Site(clusterfile.parse(ETCD, "lab.yaml"))
    state = tmp_path_factory.mktemp("etcd")
    with (
        Lab(site.topology(), name="etcds", state_dir=state) as lab,
        WholeCluster(lab, site) as made,
    ):
        made.wait_ready(PATIENCE)
        yield made


@pytest.mark.needs_tool("etcd")
def test_nodes_and_services_have_addresses_of_both_families(cluster: WholeCluster) -> None:
    for node in cluster.api.objects(kinds.NODE):
        addresses = [one["address"] for one in node["status"]["addresses"]]
        assert [":" in address for address in addresses[:2]] == [False, True]
        assert len(node["spec"]["podCIDRs"]) == 2


@pytest.mark.needs_tool("etcd")
def test_the_store_survives_its_leader_and_everybody_comes_back(cluster: WholeCluster) -> None:
    leader = cluster.leader(Role.ETCD)
    assert leader in cluster.site.etcd
    cluster.processes.bring_down(leader, Role.ETCD)
    cluster.wait_for(
        lambda: cluster.leader(Role.ETCD) not in ("", leader), PATIENCE, "another leader"
    )
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "meanwhile"}}
    cluster.wait_for(
        lambda: not cluster.api.apply(namespace).error, PATIENCE, "a write to be taken"
    )
    cluster.processes.bring_up(leader, Role.ETCD)
    wanted = {*cluster.wanted()}
    cluster.wait_for(
        lambda: wanted <= {(one.host, one.role) for one in cluster.processes.all()},
        PATIENCE,
        "everybody to run",
    )
    assert cluster.api.get(kinds.NAMESPACE, "", "meanwhile") is not None


def test_after_sigkill_of_its_owner_nothing_is_left_of_a_cluster(tmp_path: Path) -> None:
    before = {path.name for path in Path("/run/netns").glob("*")}
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path / "state")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(os.environ),
    )
    assert owner.stdout is not None
    identities = [ProcessId.of(int(word)) for word in owner.stdout.readline().split()]
    assert len(identities) > 5
    owner.kill()
    owner.communicate()
    assert labs.repair(tmp_path / "state")
    assert [one for one in identities if one and ProcessId.of(one.pid) == one] == []
    assert {path.name for path in Path("/run/netns").glob("*")} == before
    assert not (tmp_path / "state").exists()

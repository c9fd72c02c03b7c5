"""A whole cluster over three etcd members, dual stack."""

from collections.abc import Iterator

import pytest

from kproxy.api import kinds
from kproxy.lab import clusterfile
from kproxy.lab.site import Site
from kproxy.lab.whole.cluster import WholeCluster
from kproxy.lab.whole.roles import Role
from netns.lab import Lab

pytestmark = [
    pytest.mark.lab,
    pytest.mark.needs_module("ip_vs"),
    pytest.mark.needs_tool("etcd"),
]
PATIENCE = 120.0
FILE = "families: [IPv4, IPv6]\ncontrolPlane: {replicas: 2, store: etcd}\ndns: false\n"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeCluster]:
    site = Site(clusterfile.parse(FILE, "lab.yaml"))
    state = tmp_path_factory.mktemp("etcd")
    with (
        Lab(site.topology(), name="etcds", state_dir=state) as lab,
        WholeCluster(lab, site) as made,
    ):
        made.wait_ready(PATIENCE)
        yield made


def test_nodes_and_services_have_addresses_of_both_families(cluster: WholeCluster) -> None:
    for node in cluster.api.objects(kinds.NODE):
        addresses = [one["address"] for one in node["status"]["addresses"]]
        assert [":" in address for address in addresses[:2]] == [False, True]
        assert len(node["spec"]["podCIDRs"]) == 2


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

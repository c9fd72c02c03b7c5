"""The whole script of kubectl's commands on a whole cluster, with every kubectl that is there.

Controllers, kubelets, proxies and the balancer before two API servers take part.
"""

import sys
from collections.abc import Iterator

import kubectl_script
import pytest

from kproxy.lab import clusterfile
from kproxy.lab.site import ADMIN, Site
from kproxy.lab.whole.cluster import WholeCluster
from netns.lab import Lab

pytestmark = [
    pytest.mark.lab,
    pytest.mark.needs_module("ip_vs"),
    pytest.mark.needs_tool("kubectl"),
]
PATIENCE = 120.0
SCRIPT_SECONDS = 1200.0
LAB = """
name: kubectl
nodes: 2
controlPlane: {replicas: 2}
profile: lab
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeCluster]:
    site = Site(clusterfile.parse(LAB, "lab.yaml"))
    state = tmp_path_factory.mktemp("kubectl")
    with (
        Lab(site.topology(), name="kubectl", state_dir=state) as lab,
        WholeCluster(lab, site) as made,
    ):
        made.wait_ready(PATIENCE)
        yield made


@pytest.mark.parametrize("program", kubectl_script.programs())
def test_kubectl_does_what_its_users_expect(cluster: WholeCluster, program: str) -> None:
    done = cluster.lab.host(ADMIN).run(
        [sys.executable, kubectl_script.__file__, str(cluster.places.kubeconfig()), program],
        check=False,
        timeout=SCRIPT_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    count, words = done.stdout.split(" ", 1)
    assert (int(count) >= 85, words) == (True, "commands, all as expected\n")

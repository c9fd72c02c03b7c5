"""What SIGKILL of its owner leaves of a whole cluster: nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from netns import lab as labs
from netns.process import ProcessId

pytestmark = [pytest.mark.lab, pytest.mark.needs_module("ip_vs")]
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
    assert [one for one in identities if one and one.alive] == []
    assert {path.name for path in Path("/run/netns").glob("*")} == before
    assert not (tmp_path / "state").exists()

"""A transaction's order depends on the objects alone: two runs write the very same bytes.

Python's sets of strings have another order in every process, so each run is one.
"""

import os
import subprocess
import sys
from pathlib import Path

RUN = """
from fake_node import FakeNode
from kproxy.api import codec, core, discovery
from kproxy.desired.build import NodeSettings, StateBuilder
from kproxy.desired.model import Family
from kproxy.kernel.nft.types import AddChain, AddSet, Field, SetSpec
from kproxy.kernel.nft.wire import Packer

def service(number, **more):
    spec = {"clusterIP": f"10.96.0.{number}", "ports": [{"name": "p", "port": 80}], **more}
    metadata = {"name": f"s{number}", "namespace": "demo"}
    return codec.from_dict({"metadata": metadata, "spec": spec}, core.Service)

def piece(number, count):
    labels = {"kubernetes.io/service-name": f"s{number}"}
    pods = [{"addresses": [f"10.128.{number}.{at}"], "nodeName": "n1"} for at in range(1, count)]
    return codec.from_dict({
        "metadata": {"name": f"s{number}-a", "namespace": "demo", "labels": labels},
        "addressType": "IPv4", "ports": [{"name": "p", "port": 8080}], "endpoints": pods,
    }, discovery.EndpointSlice)

def sync(**more):
    builder.on_services((None, service(number, **more)) for number in range(1, 9))
    builder.on_slices((None, piece(number, number)) for number in range(1, 9))
    assert backend.sync(builder.build()).failures == ()

builder = StateBuilder(NodeSettings(family=Family.IPV4, node="n1"))
node = FakeNode()
backend = node.backend("nftables")
sync()
sync(sessionAffinity="ClientIP")

node.nft[Family.IPV4].run(
    [AddChain(f"c{n}") for n in range(5)]
    + [AddSet(f"s{n}", SetSpec((Field.PORT,))) for n in range(5)]
)
backend = node.backend("nftables")
sync(type="NodePort", ports=[{"name": "p", "port": 80, "nodePort": 30000}])
packer = Packer("kube-proxy")
for transaction in node.nft[Family.IPV4].written:
    for operation in transaction:
        print(*packer.pack(operation))
"""


def written(seed: int) -> str:
    """Return what a process with this hash seed writes."""
    environment = {
        **os.environ,
        "PYTHONHASHSEED": str(seed),
        "PYTHONPATH": str(Path(__file__).parent),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_writes_what_another_wrote() -> None:
    first = written(1)
    assert len(first.splitlines()) > 100
    assert written(2) == first
    assert written(3) == first

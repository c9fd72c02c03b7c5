"""Many kubelets in one process, whose containers are records in memory.

    python -m kproxy.controlplane.fleet --kubeconfig FILE --first 1 --count 10

For ``kproxy bench controlplane``: towards the API server they are nodes as any others, with
informers, reports and Leases of their own. Node N is ``node-N`` with pods in 10.N.0.0/16 (10.244.N
would be too few addresses for a pod that is made again and again). Probes succeed at once. SIGTERM
ends them.
"""

import argparse
import signal
import sys
import threading
from pathlib import Path

from kproxy import logs
from kproxy.client.kubeconfig import load_kubeconfig
from kproxy.client.rest import Rest
from kproxy.controlplane.fakeruntime import FakePerformer, FakeRuntime
from kproxy.controlplane.images import BUILT_IN, Images
from kproxy.controlplane.supervisor import Options, Supervisor

MOST = 250


def node_name(number: int) -> str:
    """Return the name of a node of the fleet."""
    return f"node-{number}"


def supervisor(number: int, kubeconfig: Path, log: logs.Log) -> Supervisor:
    """Return the kubelet of a node, ready to be run."""
    name, address = node_name(number), f"192.0.2.{number}"
    cidr = f"10.{number}.0.0/16"
    client = Rest(load_kubeconfig(kubeconfig), agent=f"kubelet/{name}")
    runtime = FakeRuntime([cidr], [address])
    options = Options(images=Images(otherwise=BUILT_IN["echo"]), performer=FakePerformer())
    return Supervisor(
        name, client, runtime, addresses=[address], pod_cidrs=[cidr], options=options, log=log
    )


def main(arguments: list[str]) -> int:
    """Run as a process; returns its exit code."""
    parser = argparse.ArgumentParser(prog="kproxy.controlplane.fleet", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--count", type=int, required=True)
    given = parser.parse_args(arguments)
    last = given.first + given.count - 1
    if given.first < 1 or last > MOST:
        parser.error(f"there are nodes 1 to {MOST}")
    log = logs.Log("fleet", level="warning")
    fleet = [supervisor(one, given.kubeconfig, log) for one in range(given.first, last + 1)]
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    threads = [threading.Thread(target=one.run, daemon=True) for one in fleet]
    for thread in threads:
        thread.start()
    ending.wait()
    for one in fleet:
        one.stop()
    for thread in threads:
        thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

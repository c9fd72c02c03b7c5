"""The kubelet of one node of a lab, as a process of its own in the node's host.

    python -m kproxy.lab.node --state-dir DIR --node node1 --cluster-cidr 10.244.0.0/16

Supervises the pods assigned to the node (:mod:`kproxy.controlplane.supervisor`) and runs them as
hosts of the lab (:mod:`kproxy.lab.podruntime`). SIGTERM ends it and leaves its pods running.

``--images FILE``: YAML or JSON with the key ``images``, or just its value
(:mod:`kproxy.controlplane.images`). ``--any-image``: an unknown image runs the echo server.
``--pod-manifest-path DIR``: static pods.
"""

import argparse
import os
import signal
import sys
from ipaddress import IPv4Network
from pathlib import Path
from types import FrameType

from kproxy import errors, logs
from kproxy.api import yamltext
from kproxy.client.kubeconfig import load_kubeconfig
from kproxy.client.rest import Rest
from kproxy.controlplane import images
from kproxy.controlplane.supervisor import Options, Supervisor
from kproxy.lab import layout, plan
from kproxy.lab.podruntime import NetnsRuntime, Room
from netns.errors import NetnsError
from netns.lab import Lab


def run(state_dir: Path, node: plan.NodePlan, room: Room, log: logs.Log, options: Options) -> None:
    """Supervise the node's pods until SIGTERM or SIGINT."""
    with Lab.attach(state_dir) as lab:
        files = layout.Layout(lab.scratch)
        supervisor = Supervisor(
            node.name,
            Rest(load_kubeconfig(files.kubeconfig), agent=f"kubelet/{node.name}"),
            NetnsRuntime(lab, node, files, dict(os.environ), room),
            addresses=[str(one) for one in (node.address, node.address6) if one],
            pod_cidrs=[str(one) for one in (node.pod_cidr, node.pod_cidr6) if one],
            options=options,
            log=log,
        )

        def stop(number: int, frame: FrameType | None) -> None:
            supervisor.stop()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        supervisor.run()


def main(arguments: list[str]) -> int:
    """Run as a process; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m kproxy.lab.node", description=__doc__)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--cluster-cidr", type=IPv4Network, default=plan.CLUSTER_CIDR)
    parser.add_argument("--rate", type=int, default=Room().rate)
    parser.add_argument("--records", type=int, default=Room().records)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--any-image", action="store_true")
    parser.add_argument("--pod-manifest-path", type=Path)
    options = parser.parse_args(arguments)
    log = logs.Log("kubelet")
    everyone = plan.Plan(nodes=plan.MAX_NODES, cluster_cidr=options.cluster_cidr)
    try:
        room = Room(rate=options.rate, records=options.records)
        run(options.state_dir, everyone.node(options.node), room, log, _options(options))
    except (errors.KproxyError, NetnsError) as error:
        log.error("kubelet ended", error=str(error))
        return 1
    return 0


def _options(given: argparse.Namespace) -> Options:
    otherwise = images.BUILT_IN["echo"] if given.any_image else None
    known = images.Images(otherwise=otherwise)
    if given.images is not None:
        known = images.Images.parse(_images(given.images), otherwise)
    return Options(images=known, manifests=given.pod_manifest_path)


def _images(path: Path) -> object:
    """Return what a file says of images. Raises UsageError or InvalidObject."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise errors.UsageError(f"--images {path}: {error}") from None
    documents, problems = yamltext.parse(text, str(path))
    if problems:
        raise problems[0]
    value = documents[0].value if documents else {}
    return value.get("images", value) if isinstance(value, dict) else value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

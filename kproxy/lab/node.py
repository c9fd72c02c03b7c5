"""The kubelet of one node of a lab, as a process of its own in the node's host.

    python -m kproxy.lab.node --state-dir DIR --node node1 --cluster-cidr 10.244.0.0/16

``--site FILE`` instead of ranges: the lab's file (:mod:`kproxy.lab.clusterfile`) says where it is.

Supervises the pods assigned to the node (:mod:`kproxy.controlplane.supervisor`) and runs them as
hosts of the lab (:mod:`kproxy.lab.podruntime`). SIGTERM ends it and leaves its pods running.

``--images FILE``: YAML or JSON with the key ``images``, or just its value
(:mod:`kproxy.controlplane.images`). ``--any-image``: an unknown image runs the echo server.
``--pod-manifest-path DIR``: static pods; with ``--standalone`` without any API server.
``--serve-port PORT``: answer logs and exec there (:mod:`kproxy.controlplane.kubeletserver`), over
TLS if certificates are given. ``--cluster-dns ADDRESS``: whom pods ask for names.
``--service-account-token-seconds``: how long pods' tokens are valid, at least 600.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from types import FrameType

from kproxy import errors, logs
from kproxy.api import yamltext
from kproxy.client.kubeconfig import Access, load_kubeconfig
from kproxy.client.rest import Rest
from kproxy.controlplane import accountfiles, images, nodestatus, resolving
from kproxy.controlplane.kubelet import Kubelet
from kproxy.controlplane.supervisor import Options, Service, Supervisor
from kproxy.lab import clusterfile, layout, plan, site
from kproxy.lab.podaddresses import Place
from kproxy.lab.podruntime import NetnsRuntime, Room
from netns.errors import NetnsError
from netns.lab import Lab


def run(given: argparse.Namespace, log: logs.Log) -> None:
    """Supervise the node's pods until SIGTERM or SIGINT."""
    node = _node(given)
    room = Room(rate=given.rate, records=given.records)
    with Lab.attach(given.state_dir) as lab:
        files = layout.Layout(lab.scratch)
        kubeconfig = given.kubeconfig or files.kubeconfig
        access = None if given.standalone else load_kubeconfig(kubeconfig)
        supervisor = Supervisor(
            node.name,
            Rest(access, agent=f"kubelet/{node.name}") if access else None,
            NetnsRuntime(lab, node, files, dict(os.environ), room),
            addresses=[str(one) for one in (node.address, node.address6) if one],
            pod_cidrs=[str(one) for one in (node.pod_cidr, node.pod_cidr6) if one],
            labels=node.labels if isinstance(node, site.SiteNode) else None,
            options=_options(given, _accounts(given, access, files)),
            log=log,
        )

        def stop(number: int, frame: FrameType | None) -> None:
            supervisor.stop()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        supervisor.run()


def _node(given: argparse.Namespace) -> Place:
    """Return the node's place: in the cluster of a lab's file, or by its number alone."""
    if given.site is not None:
        return site.Site(clusterfile.load(given.site)).node(given.node)
    everyone = plan.Plan(nodes=plan.MAX_NODES, cluster_cidr=given.cluster_cidr)
    node = everyone.node(given.node)
    if given.cluster_cidr6 is not None:
        node = replace(node, cluster_cidr6=given.cluster_cidr6)
    return node


def main(arguments: list[str]) -> int:
    """Run as a process; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m kproxy.lab.node", description=__doc__)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--site", type=Path)
    parser.add_argument("--cluster-cidr", type=IPv4Network, default=plan.CLUSTER_CIDR)
    parser.add_argument("--cluster-cidr6", type=IPv6Network)
    parser.add_argument("--rate", type=int, default=Room().rate)
    parser.add_argument("--records", type=int, default=Room().records)
    parser.add_argument("--kubeconfig", type=Path)
    parser.add_argument("--standalone", action="store_true")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--any-image", action="store_true")
    parser.add_argument("--pod-manifest-path", type=Path)
    parser.add_argument("--serve-port", type=int, default=0)
    times = nodestatus.Times()
    parser.add_argument("--lease-renew", type=float, default=times.lease_renew)
    parser.add_argument("--lease-duration", type=int, default=times.lease_duration)
    for name in ("tls-cert-file", "tls-private-key-file", "client-ca-file", "token-file"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument(
        "--service-account-token-seconds", type=int, default=accountfiles.TOKEN_SECONDS
    )
    parser.add_argument("--cluster-dns", action="append", default=[], metavar="ADDRESS")
    parser.add_argument("--cluster-domain", default=resolving.DOMAIN)
    log = logs.Log("kubelet")
    try:
        run(parser.parse_args(arguments), log)
    except (errors.KproxyError, NetnsError) as error:
        log.error("kubelet ended", error=str(error))
        return 1
    return 0


def _accounts(
    given: argparse.Namespace, access: Access | None, files: layout.Layout
) -> accountfiles.Source | None:
    if access is None:
        return None
    return accountfiles.Source(
        directory=files.accounts(given.node),
        access=access,
        seconds=given.service_account_token_seconds,
    )


def _options(given: argparse.Namespace, accounts: accountfiles.Source | None) -> Options:
    otherwise = images.BUILT_IN["echo"] if given.any_image else None
    known = images.Images(otherwise=otherwise)
    if given.images is not None:
        known = images.Images.parse(_images(given.images), otherwise)
    serving = _serving(given) if given.serve_port else None
    port = given.serve_port or nodestatus.KUBELET_PORT
    times = nodestatus.Times(lease_renew=given.lease_renew, lease_duration=given.lease_duration)
    return Options(
        images=known,
        manifests=given.pod_manifest_path,
        port=port,
        serve=serving,
        times=times,
        resolving=resolving.ClusterNames(
            servers=tuple(given.cluster_dns), domain=given.cluster_domain
        ),
        accounts=accounts,
    )


def _serving(given: argparse.Namespace) -> Callable[[Kubelet], Service]:
    """Return what makes the kubelet's server, on all the node's addresses."""
    # Its libraries take long to import, and not every lab wants them.
    from kproxy.controlplane import kubeletserver

    access = kubeletserver.Access(
        cert_file=given.tls_cert_file,
        key_file=given.tls_private_key_file,
        client_ca_file=given.client_ca_file,
        token=given.token_file.read_text().strip() if given.token_file else "",
    )
    dual = _node(given).address6 is not None
    address = "::" if dual else "0.0.0.0"  # noqa: S104  the node's namespace only
    return lambda kubelet: kubeletserver.start((address, given.serve_port), kubelet, access)


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

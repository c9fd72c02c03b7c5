"""The API server: the Kubernetes API over HTTPS for a cluster that lives in a store of its own.

    python -m kproxy.controlplane.apiserver --bind 192.0.2.1:6443 --pki DIR --store sqlite:PATH

It keeps nothing itself: the objects are where ``--store`` says, which any number of API servers
may share; what is kept in ``memory`` dies with the server. Who a client is is told by the
certificates and tokens of ``--pki`` (or of single files); ``--insecure`` asks nobody: bind it
where only the lab can reach it. See ``docs/api-server.md``.
"""

import argparse
import contextlib
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from kproxy import errors, logs

from . import addresses, allocations, eventexpiry
from .access.authentication import Authenticator
from .masters import Masters, advertised
from .rest import Api
from .security import Security
from .serving.conversation import Conversation
from .serving.dispatch import Dispatcher
from .serving.kubelets import Identity, Kubelets
from .serving.limits import Limits
from .serving.metrics import Metrics
from .serving.server import Server
from .storage import base, locations
from .storage.counted import CountedStorage
from .store import Store

_FILES = (
    "tls-cert-file",
    "tls-private-key-file",
    "client-ca-file",
    "token-auth-file",
    "token-key-file",
    "kubelet-client-certificate",
    "kubelet-client-key",
    "kubelet-certificate-authority",
)


def start(
    address: tuple[str, int],
    cidrs: Sequence[addresses.Network],
    log: logs.Log,
    storage: base.Storage | None = None,
    *,
    security: Security | None = None,
    limits: Limits | None = None,
) -> Server:
    """Return a server that listens on an address; its :meth:`Server.serve` answers.

    Without a ``storage`` it keeps its objects in memory; without ``security`` it speaks plain
    HTTP and lets everybody do everything. Raises UsageError and OSError.
    """
    secured = security or Security()
    signer, tls, to_kubelets = (
        secured.signer(),
        secured.server_context(),
        secured.kubelet_context(),
    )
    static = secured.static()
    metrics = Metrics()
    store = Store(CountedStorage(storage or locations.parse("memory")(), metrics.registry))
    metrics.of_store(store)
    taken = allocations.Allocations(store, cidrs, draw=allocations.generator())
    limits = limits or Limits(metrics)

    authenticator = None
    if security is not None:
        authenticator = Authenticator(static=static, signer=signer, exists=_looking_into(store))
    api = Api(store, taken, signer)
    dispatcher = Dispatcher(api, metrics, Kubelets(store, to_kubelets), authenticator)
    conversation = Conversation(dispatcher, metrics, limits, log)
    server = Server(address, api, conversation, limits, log, tls)
    allocations.keep_repaired(taken, log)
    eventexpiry.keep_expiring(store, log)
    return server


def _looking_into(store: Store) -> Callable[[str, str, str, str], bool]:
    """Return what tells whether an object is there; see :data:`tokens.Exists`."""

    def exists(resource: str, namespace: str, name: str, uid: str) -> bool:
        key = (namespace, name)
        item = store.peek(resource, key)
        if item is not None and item.obj["metadata"]["uid"] == uid:
            return True
        # It may be newer than our memory, also in the place of another of that name.
        item = store.find(resource, key)
        return item is not None and item.obj["metadata"]["uid"] == uid

    return exists


def parse_address(text: str) -> tuple[str, int]:
    """Return (host, port) of ``192.0.2.1:6443`` or ``[2001:db8::1]:6443``. Raises UsageError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise errors.UsageError(f"address {text!r}", remedy="give it as address:port")
    return host.strip("[]"), int(port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kproxy.controlplane.apiserver")
    parser.add_argument("--bind", default="127.0.0.1:6443", metavar="ADDRESS:PORT")
    parser.add_argument("--service-cidr", default="10.96.0.0/16", metavar="CIDR[,CIDR]")
    parser.add_argument("--store", default="memory", metavar=locations.FORMS)
    for name in ("cafile", "certfile", "keyfile"):
        parser.add_argument(f"--etcd-{name}", type=Path, metavar="FILE")
    parser.add_argument(
        "--advertise-address",
        metavar="ADDRESS",
        help="where pods reach this server: listed in the Service default/kubernetes",
    )
    parser.add_argument("--insecure", action="store_true", help="plain HTTP, everybody is admin")
    parser.add_argument(
        "--pki",
        type=Path,
        metavar="DIR",
        help="a lab's certificates and keys; what is missing in it is made",
    )
    for name in _FILES:
        parser.add_argument(f"--{name}", type=Path, metavar="FILE")
    return parser


def _security(options: argparse.Namespace, host: str, port: int) -> Security | None:
    """Return what the options say about certificates and tokens; None: insecure."""
    if options.insecure:
        return None
    hosts = tuple(filter(None, (host, options.advertise_address)))
    if options.pki is not None:
        url = f"https://{f'[{host}]' if ':' in host else host}:{port}"
        return Security.from_directory(options.pki, hosts, url)
    if not (options.tls_cert_file and options.tls_private_key_file):
        raise errors.UsageError(
            "no certificate to serve with",
            remedy="give --pki, or --tls-cert-file and --tls-private-key-file, or --insecure",
        )
    kubelet = (
        options.kubelet_client_certificate,
        options.kubelet_client_key,
        options.kubelet_certificate_authority,
    )
    identity = None
    if all(kubelet):
        identity = Identity(certificate=kubelet[0], key=kubelet[1], authority=kubelet[2])
    return Security(
        certificate=options.tls_cert_file,
        key=options.tls_private_key_file,
        client_authority=options.client_ca_file,
        static_tokens=options.token_auth_file,
        token_key=options.token_key_file,
        kubelets=identity,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    options = _parser().parse_args(arguments)
    log = logs.Log("apiserver")
    _allow_many_descriptors()
    try:
        host, port = parse_address(options.bind)
        cidrs = addresses.parse_cidrs(options.service_cidr)
        if options.advertise_address:
            advertised(options.advertise_address)  # before a certificate is made for it
        security = _security(options, host, port)
        files = (options.etcd_cafile, options.etcd_certfile, options.etcd_keyfile)
        storage = locations.parse(options.store, locations.Certificates(*files))()
        server = start((host, port), cidrs, log, storage, security=security)
    except (errors.KproxyError, OSError) as error:
        log.error("cannot start", error=str(error), bind=options.bind)
        return 2
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    if options.advertise_address:
        first = str(cidrs[0][1])
        masters = Masters(server.api, options.advertise_address, port, first, log)
        masters.start()
        server.before_close(masters.leave)
    log.info("listening", address=options.bind)
    server.serve()
    log.info("stopped")
    return 0


def _allow_many_descriptors() -> None:
    """Allow as many open connections as the machine lets us have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())

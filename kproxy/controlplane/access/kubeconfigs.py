"""The files that a lab's parts and users prove themselves with: certificates and kubeconfigs.

What makes certificates takes long to import: an API server that finds all its files does without.
"""

import base64
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import identity

if TYPE_CHECKING:
    from .pki import Authority, Pair

ADMIN = "admin"
CONTROLLER_MANAGER = "controller-manager"
SCHEDULER = "scheduler"
PROXY = "kube-proxy"
DNS = "kube-dns"
BALANCER = "balancer"
MONITORING = "monitoring"
"""Of Prometheus, and of who tells it the states of objects."""
PROBER = "prober"
REMEDIATION = "remediation"

_USERS: dict[str, tuple[str, tuple[str, ...]]] = {
    ADMIN: ("kubernetes-admin", (identity.ADMINS,)),
    CONTROLLER_MANAGER: (identity.CONTROLLER_MANAGER, ()),
    SCHEDULER: (identity.SCHEDULER, ()),
    PROXY: (identity.PROXY, ()),
    DNS: (identity.DNS, ()),
    BALANCER: (identity.BALANCER, ()),
    MONITORING: (identity.PROMETHEUS, (identity.MONITORS,)),
    PROBER: (identity.PROBER, ()),
    REMEDIATION: (identity.REMEDIATION, ()),
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """The directory of a lab's secrets; everything in it is made when first asked for."""

    directory: Path
    servers: Sequence[str]
    """Addresses and names under which API servers are reached (not their ports)."""
    url: str
    """Where clients are sent: ``https://192.0.2.10:6443``."""

    @property
    def authority(self) -> "Authority":
        """Return the lab's certificate authority."""
        from .pki import Authority

        return Authority.in_directory(self.directory)

    @property
    def ca_file(self) -> Path:
        """Return the file with the authority's certificate."""
        certificate, _ = self._pair("ca", lambda ca: ca.pair)
        return certificate

    def kubeconfig(self, who: str) -> Path:
        """Return the kubeconfig of one of the names above, such as ADMIN."""
        name, groups = _USERS[who]
        return self._kubeconfig(self.directory / f"{who}.conf", name, groups)

    def client(self, who: str) -> tuple[Path, Path]:
        """Return certificate and key of one of the names above, for who reads no kubeconfig."""
        name, groups = _USERS[who]
        return self._pair(who, lambda ca: ca.client(name, groups))

    def node_kubeconfig(self, node: str) -> Path:
        """Return the kubeconfig of a node's kubelet."""
        path = self.directory / f"kubelet-{node}.conf"
        return self._kubeconfig(path, identity.NODE_PREFIX + node, (identity.NODES,))

    def node_server(self, node: str, hosts: Sequence[str]) -> tuple[Path, Path]:
        """Return certificate and key with which a kubelet serves on its node's addresses."""
        return self._pair(f"kubelet-{node}", lambda ca: ca.node(node, [*hosts, node]))

    def api_server(self) -> tuple[Path, Path]:
        """Return certificate and key with which API servers serve."""
        names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc")
        hosts = [*self.servers, *names, "localhost", "127.0.0.1"]
        return self._pair("apiserver", lambda ca: ca.server("kube-apiserver", hosts))

    def kubelet_client(self) -> tuple[Path, Path]:
        """Return certificate and key with which API servers speak to kubelets."""
        groups = (identity.ADMINS,)
        return self._pair(
            "apiserver-kubelet-client", lambda ca: ca.client(identity.API_SERVER, groups)
        )

    def token_key(self) -> Path:
        """Return the file with the key that signs tokens of service accounts."""
        path = self.directory / "sa.key"
        if not path.exists():
            from .pki import write_private

            write_private(path, secrets.token_hex(32) + "\n")
        return path

    def _pair(self, name: str, issue: Callable[["Authority"], "Pair"]) -> tuple[Path, Path]:
        certificate, key = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        if certificate.exists() and key.exists():
            return certificate, key
        return issue(self.authority).save(self.directory, name)

    def _kubeconfig(self, path: Path, user: str, groups: Sequence[str]) -> Path:
        if not path.exists():
            from .pki import write_private

            authority = self.authority
            write_private(path, render(self.url, authority, user, authority.client(user, groups)))
        return path


def render(url: str, authority: "Authority", user: str, pair: "Pair") -> str:
    """Return a kubeconfig, as JSON (which is YAML)."""
    cluster = {"server": url, "certificate-authority-data": _coded(authority.pair.certificate)}
    proof = {
        "client-certificate-data": _coded(pair.certificate),
        "client-key-data": _coded(pair.key),
    }
    return document(cluster, user, proof)


def document(cluster: dict[str, Any], user: str, proof: dict[str, Any]) -> str:
    """Return a kubeconfig of one cluster and one user, whatever proves who he is."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": cluster}],
        "users": [{"name": user, "user": proof}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user}}],
    }
    return json.dumps(config, indent=2) + "\n"


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()

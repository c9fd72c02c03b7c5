"""Where a whole cluster keeps its files, and the files that its parts prove themselves with."""

import os
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from kproxy.controlplane.access import kubeconfigs
from kproxy.controlplane.access.kubeconfigs import Credentials
from kproxy.controlplane.access.pki import write_private
from kproxy.controlplane.storage import etcdmember
from kproxy.lab.clusterfile import Security, Store
from kproxy.lab.layout import Layout
from kproxy.lab.site import API_ADDRESS, SERVICES, SERVICES6, Site
from kproxy.lab.whole import goprograms
from kproxy.lab.whole.goprograms import Program

SITE_FILE = "lab.json"
USERS = (
    kubeconfigs.ADMIN,
    kubeconfigs.CONTROLLER_MANAGER,
    kubeconfigs.SCHEDULER,
    kubeconfigs.PROXY,
    kubeconfigs.DNS,
    kubeconfigs.BALANCER,
)
MONITORING_USERS = (kubeconfigs.MONITORING, kubeconfigs.PROBER, kubeconfigs.REMEDIATION)


@dataclass(frozen=True, slots=True)
class MonitoringFiles:
    """Paths of Prometheus, Alertmanager and remediation, all below ``root``."""

    root: Path

    def host(self, name: str) -> Path:
        """Return the directory of a host's configuration and data."""
        return self.root / name

    def targets(self, host: str) -> Path:
        """Return the directory of the files in which a Prometheus finds its targets."""
        return self.host(host) / "targets"

    @property
    def rules(self) -> Path:
        """Return the directory of the rules, which are the same for all."""
        return self.root / "rules"

    @property
    def remediation(self) -> Path:
        """Return the configuration of remediation."""
        return self.root / "remediation.yaml"

    @property
    def journal(self) -> Path:
        """Return the directory in which remediation writes down what it does."""
        return self.root / "journal"

    @property
    def token(self) -> Path:
        """Return the file of the token by which remediation knows Alertmanager."""
        return self.root / "remediation-token"


@dataclass(frozen=True)
class Places:
    """Paths below ``root``. :meth:`prepare` makes the directories and the secrets."""

    root: Path
    site: Site

    @property
    def files(self) -> Layout:
        """Return where logs, records and pods are."""
        return Layout(self.root)

    @property
    def secure(self) -> bool:
        """Whether there are certificates at all."""
        return self.site.file.control_plane.security is Security.TLS

    @property
    def pki(self) -> Path:
        """Return the directory of secrets."""
        return self.root / "pki"

    @property
    def site_file(self) -> Path:
        """Return the file that describes the cluster, defaults included."""
        return self.root / SITE_FILE

    @property
    def images(self) -> Path:
        """Return the file with the lab's images."""
        return self.root / "images.json"

    def init(self, host: str) -> Path:
        """Return the directory of a host's init."""
        return self.root / "init" / host

    def etcd(self, member: str) -> Path:
        """Return the directory in which a member keeps its data."""
        return self.root / "etcd" / member

    def program(self, program: Program) -> str:
        """Return what is run as a program: itself, in virtual time a copy that repeats itself."""
        return goprograms.path(program, self._programs)

    @property
    def _programs(self) -> Path:
        return self.root / "programs"

    @property
    def monitoring(self) -> MonitoringFiles:
        """Return where the files of Prometheus and its neighbours are."""
        return MonitoringFiles(self.root / "monitoring")

    def kubeconfig(self, who: str = kubeconfigs.ADMIN) -> Path:
        """Return the kubeconfig of one of USERS."""
        return self.pki / f"{who}.conf"

    def node_kubeconfig(self, node: str) -> Path:
        """Return the kubeconfig of a node's kubelet."""
        return self.pki / f"kubelet-{node}.conf"

    @cached_property
    def credentials(self) -> Credentials:
        """The lab's secrets; each is made when first asked for."""
        first = [str(one.network_address + 1) for one in (SERVICES, SERVICES6)]
        control = [str(self.site.lan_address(host)) for host in self.site.control]
        names = [str(API_ADDRESS), *control, *first, *self.site.control]
        return Credentials(self.pki, tuple(names), self.site.api_url)

    def store(self) -> str:
        """Return what API servers are told with ``--store``."""
        if self.site.file.control_plane.store is Store.SQLITE:
            return f"sqlite:{self.root / 'store.db'}"
        members = {host: str(self.site.lan_address(host)) for host in self.site.etcd}
        return "etcd:" + ",".join(etcdmember.endpoints(members))

    def prepare(self) -> None:
        """Make directories, certificates and kubeconfigs; only the owner may read the latter."""
        hosts = [host.name for host in self.site.topology().hosts]
        files = self.files
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(stat.S_IRWXU)  # what a store holds is not for everybody
        for path in (files.logs, files.records, self.pki, *map(self.init, hosts)):
            path.mkdir(parents=True, exist_ok=True)
        for path in (self.pki, self.root / "etcd"):
            path.mkdir(exist_ok=True)
            path.chmod(stat.S_IRWXU)
        for member in self.site.etcd:
            self.etcd(member).mkdir(mode=stat.S_IRWXU, exist_ok=True)
        self.site_file.write_bytes(msgspec.json.encode(self.site.file))
        self.images.write_bytes(msgspec.json.encode(self.site.file.images))
        if self.secure:
            self._prove()
        else:
            self._trust()

    def prepare_programs(self) -> list[Program]:
        """Make ready the programs that are not ours; return those of which two runs differ.

        Raises Unsupported if one is not installed.
        """
        wanted = [Program.ETCD] * bool(self.site.etcd)
        wanted += goprograms.MONITORS if self.site.monitors else ()
        return [one for one in wanted if not goprograms.prepare(one, self._programs)]

    def _prove(self) -> None:
        secrets = self.credentials
        secrets.api_server()
        secrets.kubelet_client()
        secrets.token_key()
        for who in self._users:
            secrets.kubeconfig(who)
        if self.site.monitors:
            secrets.client(kubeconfigs.MONITORING)
        for node in self.site.nodes:
            secrets.node_kubeconfig(node.name)
            secrets.node_server(node.name, [str(one) for one in node.addresses])

    @property
    def _users(self) -> tuple[str, ...]:
        return (*USERS, *MONITORING_USERS) if self.site.monitors else USERS

    def _trust(self) -> None:
        text = kubeconfigs.document({"server": self.site.api_url}, "lab", {})
        paths = [self.kubeconfig(who) for who in self._users]
        paths += [self.node_kubeconfig(node.name) for node in self.site.nodes]
        for path in paths:
            write_private(path, text)

    def kubectl_environment(self) -> dict[str, str]:
        """Return the environment of kubectl and of shells: kubeconfig, and a home of the lab's."""
        return {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig()),
            "KUBECACHEDIR": str(self.root / "kubectl-cache"),
        }

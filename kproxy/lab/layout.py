"""Where a lab keeps its files: all of them below one directory that goes with the lab."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below ``root``; nothing is created here."""

    root: Path

    @property
    def logs(self) -> Path:
        """Return the directory of all log files: one per process, JSON lines."""
        return self.root / "logs"

    @property
    def records(self) -> Path:
        """Return the directory of the receivers' and generators' record files."""
        return self.root / "records"

    @property
    def kubeconfig(self) -> Path:
        """Return the kubeconfig that leads to the lab's API server."""
        return self.root / "kubeconfig"

    @property
    def proxy_config(self) -> Path:
        """Return the proxy's KubeProxyConfiguration (on a real cluster: a ConfigMap)."""
        return self.root / "kube-proxy.conf"

    def pods(self, node: str) -> Path:
        """Return the directory in which a node's runtime keeps what it knows of its pods."""
        return self.root / "pods" / node

    def pod_logs(self, node: str) -> Path:
        """Return the directory of the logs of a node's pods; see :mod:`.podlogs`."""
        return self.root / "pod-logs" / node

    def accounts(self, node: str) -> Path:
        """Return the directory of the tokens of a node's pods."""
        return self.root / "service-accounts" / node

    def log(self, component: str) -> Path:
        """Return the log file of a component of the lab."""
        return self.logs / f"{component}.log"

    def container_log(self, namespace: str, pod: str, container: str) -> Path:
        """Return the log file of a program of ours in a pod; all its restarts write to it."""
        return self.logs / f"{namespace}_{pod}_{container}.log"

    def record(self, namespace: str, pod: str, start: int) -> Path:
        """Return the file in which a pod's echo server records what it receives."""
        return self.records / f"{namespace}_{pod}_{start}.received"

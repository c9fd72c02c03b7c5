"""Every namespace has a service account ``default``: also one whose account was deleted."""

from kproxy import errors, logs
from kproxy.api import catalog, kinds
from kproxy.controlplane.cluster import Cluster

from . import owned

NAME = "default"


class ServiceAccountController:
    """Looks at single namespaces."""

    def __init__(self, cluster: Cluster, log: logs.Log) -> None:
        self._cluster = cluster
        self._log = log

    def reconcile(self, key: str) -> float | None:
        """Create what is missing in a namespace. Raises KproxyError: try again."""
        _, name = owned.split(key)
        namespace = self._cluster.get(kinds.NAMESPACE, "", name)
        if namespace is None or owned.terminating(namespace):
            return None
        if self._cluster.get(catalog.SERVICE_ACCOUNT, name, NAME) is None:
            try:
                body = {"metadata": {"namespace": name, "name": NAME}}
                self._cluster.create(catalog.SERVICE_ACCOUNT, body)
            except errors.Conflict:
                return None  # the API server was faster
            self._log.info("service account created", namespace=name)
        return None

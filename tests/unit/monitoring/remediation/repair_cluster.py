"""A cluster for actions: an API that refuses what the real one refuses, and nodes to look at."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from kproxy import rfc3339
from kproxy.controlplane.access import identity, roles
from kproxy.controlplane.access.roles import Attributes
from kproxy.errors import ApiError, Conflict
from kproxy.logs import Log
from kproxy.monitoring.nodecare import seen
from kproxy.monitoring.nodecare.seen import Care, Look
from kproxy.monitoring.remediation.seams import Finished, NodeUnreachable, Tools

Object = dict[str, Any]
USER = identity.authenticated(identity.REMEDIATION)
_GROUPS = {"": ("api", "v1"), "apps": ("apis", "apps", "v1")}


class FakeApi:
    """Objects by path. Refuses who has no right, what is not there, and a wrong precondition."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.writes: list[tuple[str, str, Object]] = []

    def put(self, path: str, obj: Object) -> None:
        self.objects[path] = obj

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        content_type: str = "application/json",
    ) -> bytes:
        given = msgspec.json.decode(body) if body else {}
        self._authorize(method, path)
        if method == "GET" and path in self.objects:
            return msgspec.json.encode(self.objects[path])
        if method == "GET" and _is_list(path):
            return msgspec.json.encode({"items": self._list(path, query or {})})
        if path not in self.objects:
            raise ApiError(404, "NotFound", f"{path} not found")
        self.writes.append((method, path, given))
        if method == "DELETE":
            uid = (given.get("preconditions") or {}).get("uid")
            if uid and uid != self.objects[path]["metadata"]["uid"]:
                raise Conflict(409, "Conflict", "the uid differs")
            del self.objects[path]
            return b"{}"
        if method == "PATCH":
            assert content_type == "application/merge-patch+json"
            _merge(self.objects[path], given)
        return msgspec.json.encode(self.objects[path])

    def _list(self, path: str, query: Mapping[str, str]) -> list[Object]:
        pairs = [one.split("=") for one in query.get("labelSelector", "").split(",") if one]
        return [
            one
            for at, one in sorted(self.objects.items())
            if at.startswith(f"{path}/")
            and all((one["metadata"].get("labels") or {}).get(k) == v for k, v in pairs)
        ]

    def _authorize(self, method: str, path: str) -> None:
        words = path.strip("/").split("/")
        words = words[2:] if words[0] == "api" else words[3:]
        namespace = words[1] if words[0] == "namespaces" else ""
        resource, *name = words[2:] if namespace else words
        verb = {"GET": "get" if name else "list"}.get(method, method.lower())
        asked = Attributes(verb=verb, resource=resource, namespace=namespace)
        if not roles.allowed(USER, asked):
            raise ApiError(403, "Forbidden", f"{USER.name} cannot {asked}")


def _is_list(path: str) -> bool:
    return path.rsplit("/", 1)[1] in ("nodes", "pods", "daemonsets", "leases")


def _merge(into: Object, patch: Object) -> None:
    for name, value in patch.items():
        if isinstance(value, dict):
            _merge(into.setdefault(name, {}), value)
        else:
            into[name] = value


class FakeNodes:
    """Nodes that answer commands; one that is not known is not reached."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[Sequence[str]], Finished]] = {}
        self.ran: list[tuple[str, tuple[str, ...]]] = []

    def run(self, node: str, command: Sequence[str], timeout: float) -> Finished:
        if node not in self.answers:
            raise NodeUnreachable(f"node {node}: no container of a proxy runs there")
        self.ran.append((node, tuple(command)))
        return self.answers[node](command)


class Cluster:
    """Two workers with proxies, a leading controller manager."""

    def __init__(self) -> None:
        self.api = FakeApi()
        self.nodes = FakeNodes()
        self.options: dict[str, str] = {}
        for name in ("n1", "n2"):
            self.add_node(name)
        self.api.put(
            "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy",
            {"metadata": {"name": "kube-proxy", "namespace": "kube-system", "uid": "ds"}},
        )
        self.lead("control1_abc")

    @property
    def tools(self) -> Tools:
        rest: Any = self.api
        return Tools(nodes=self.nodes, rest=rest, log=Log("test"), options=self.options)

    def add_node(self, name: str, *, ready: bool = True, **spec: Any) -> Object:
        node = {
            "metadata": {"name": name},
            "spec": spec,
            "status": {
                "conditions": [{"type": "Ready", "status": "True" if ready else "Unknown"}],
                "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
            },
        }
        self.api.put(f"/api/v1/nodes/{name}", node)
        self.add_pod(f"kube-proxy-{name}", name)
        return node

    def add_pod(self, name: str, node: str, **meta: Any) -> Object:
        owner = {"kind": "DaemonSet", "name": "kube-proxy", "uid": "ds", "controller": True}
        started = rfc3339.timestamp(time.time())
        pod = {
            "metadata": {
                "name": name,
                "namespace": "kube-system",
                "uid": f"uid-{name}",
                "creationTimestamp": started,
                "labels": {"k8s-app": "kube-proxy"},
                "ownerReferences": [owner],
                **meta,
            },
            "spec": {"nodeName": node},
            "status": {
                "containerStatuses": [
                    {"name": "kube-proxy", "state": {"running": {"startedAt": started}}}
                ]
            },
        }
        self.api.put(f"/api/v1/namespaces/kube-system/pods/{name}", pod)
        return pod

    def lead(
        self, holder: str, *, ago: float = 1.0, component: str = "kube-controller-manager"
    ) -> None:
        self.api.put(
            f"/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{component}",
            {
                "metadata": {"name": component},
                "spec": {
                    "holderIdentity": holder,
                    "leaseDurationSeconds": 15,
                    "acquireTime": rfc3339.microtime(time.time() - ago),
                    "renewTime": rfc3339.microtime(time.time() - ago),
                },
            },
        )

    def answer(self, node: str, **found: Look | Care | Finished) -> None:
        """Let a node answer commands by their verb (``_`` for ``-``, ``_dry`` for dry runs)."""

        def run(command: Sequence[str]) -> Finished:
            words = [one for one in command if not one.startswith("-")]
            verb = words[words.index("node") + 1] if "node" in words else words[0]
            key = verb.replace("-", "_") + ("_dry" if "--dry-run" in command else "")
            one = found[key]
            if isinstance(one, Finished):
                return one
            return Finished(code=0, stdout=seen.encode(one).decode())

        self.nodes.answers[node] = run

    @property
    def deleted(self) -> list[str]:
        return [
            path.rsplit("/", 1)[1] for method, path, _ in self.api.writes if method == "DELETE"
        ]


def look(
    *, state: str = "waits", age_s: float = 1000.0, last_s: float | None = 1.0, **fields: Any
) -> Look:
    """Return a look at a node; healthy unless told otherwise."""
    return Look(
        **{
            "node": "n1",
            "mode": "ipvs",
            "proxy": {"found": True, "pid": 7, "state": state, "age_s": age_s},
            "answers": {"livez": "200", "healthz": "200"},
            "sync": {"last_s": last_s},
            "drift": {},
            "watch_stale": False,
            "weights": {},
            "conntrack": {},
            "troubles": (),
            "unknown": {},
            **fields,
        }
    )

"""All kinds of a cluster: importing this module makes them known to :mod:`kproxy.api.kinds`."""

from . import apps, codec, configuration, pods
from .kinds import Kind, add, known

POD = Kind("v1", "Pod", "pods", True, pods.Pod)
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps", True, configuration.ConfigMap)
SECRET = Kind("v1", "Secret", "secrets", True, configuration.Secret)
SERVICE_ACCOUNT = Kind(
    "v1", "ServiceAccount", "serviceaccounts", True, configuration.ServiceAccount
)
ENDPOINTS = Kind("v1", "Endpoints", "endpoints", True, configuration.Endpoints)
EVENT = Kind("v1", "Event", "events", True, configuration.Event)
NEW_EVENT = Kind("events.k8s.io/v1", "Event", "events", True, configuration.Event, "events")
DAEMON_SET = Kind("apps/v1", "DaemonSet", "daemonsets", True, apps.DaemonSet)
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments", True, apps.Deployment)
REPLICA_SET = Kind("apps/v1", "ReplicaSet", "replicasets", True, apps.ReplicaSet)
STATEFUL_SET = Kind("apps/v1", "StatefulSet", "statefulsets", True, apps.StatefulSet)
CONTROLLER_REVISION = Kind(
    "apps/v1", "ControllerRevision", "controllerrevisions", True, apps.ControllerRevision
)
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases", True, configuration.Lease)
IP_ADDRESS = Kind(
    "networking.k8s.io/v1", "IPAddress", "ipaddresses", False, configuration.IPAddress
)

add(
    POD,
    CONFIG_MAP,
    SECRET,
    SERVICE_ACCOUNT,
    ENDPOINTS,
    EVENT,
    NEW_EVENT,
    DAEMON_SET,
    DEPLOYMENT,
    REPLICA_SET,
    STATEFUL_SET,
    CONTROLLER_REVISION,
    LEASE,
    IP_ADDRESS,
)

# Here: threads may not (codec.prepare), and those of servers and controllers decode any of these.
for _kind in known():
    codec.prepare(_kind.type)

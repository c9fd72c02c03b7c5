"""Fields of Kubernetes that this cluster keeps as they are written, without acting on them.

The typed objects hold what this project reads. A manifest may say more, and a strict API server
must tell ``imagePullPolicy`` from a slip of the pen. Source: the Kubernetes API reference, v1.31.

A field is ``name``, ``name:type`` (``string`` if there is none). Types: ``string``, ``integer``,
``boolean``, ``mapping`` (of whatever there is in it), ``map`` (of strings), another type of this
table, and each of them in ``[]``.
"""

from collections.abc import Mapping

FIELDS: Mapping[str, str] = {
    "ObjectMeta": "generateName selfLink managedFields:[mapping]",
    "OwnerReference": "blockOwnerDeletion:boolean",
    "LoadBalancerIngress": "ports:[mapping]",
    "ServiceStatus": "conditions:[mapping]",
    "Taint": "timeAdded",
    "NodeSpec": "providerID externalID configSource:mapping",
    "NodeStatus": "capacity:mapping allocatable:mapping phase nodeInfo:mapping"
    " daemonEndpoints:NodeDaemonEndpoints images:[mapping] volumesInUse:[string]"
    " volumesAttached:[mapping] config:mapping runtimeHandlers:[mapping] features:mapping",
    "NodeDaemonEndpoints": "kubeletEndpoint:DaemonEndpoint",
    "DaemonEndpoint": "Port:integer",
    "Condition": "lastProbeTime lastHeartbeatTime lastUpdateTime observedGeneration:integer",
    "Namespace": "spec:mapping status:mapping",
    "Lifecycle": "stopSignal",
    "Container": "resizePolicy:[mapping] restartPolicyRules:[mapping]"
    " volumeDevices:[mapping] terminationMessagePath securityContext:mapping stdin:boolean"
    " stdinOnce:boolean tty:boolean",
    "PodSpec": "ephemeralContainers:[mapping]"
    " serviceAccount hostPID:boolean hostIPC:boolean"
    " shareProcessNamespace:boolean securityContext:mapping imagePullSecrets:[mapping]"
    " hostAliases:[mapping] priorityClassName priority:integer readinessGates:[mapping]"
    " runtimeClassName enableServiceLinks:boolean preemptionPolicy overhead:mapping"
    " topologySpreadConstraints:[mapping] setHostnameAsFQDN:boolean os:mapping hostUsers:boolean"
    " schedulingGates:[mapping] resourceClaims:[mapping] resources:mapping hostnameOverride",
    "ContainerStatus": "imageID allocatedResources:mapping resources:mapping"
    " volumeMounts:[mapping] user:mapping allocatedResourcesStatus:[mapping] stopSignal",
    "PodStatus": "nominatedNodeName hostIPs:[mapping] qosClass"
    " ephemeralContainerStatuses:[mapping] resize resourceClaimStatuses:[mapping]"
    " observedGeneration:integer",
    "DaemonSetStatus": "collisionCount:integer conditions:[mapping]",
    "DeploymentStatus": "collisionCount:integer terminatingReplicas:integer",
    "ReplicaSetStatus": "conditions:[mapping] terminatingReplicas:integer",
    "StatefulSetSpec": "persistentVolumeClaimRetentionPolicy:mapping",
    "StatefulSetStatus": "collisionCount:integer conditions:[mapping]",
    "Event": "source:mapping firstTimestamp lastTimestamp eventTime series:mapping related:mapping"
    " reportingComponent reportingInstance deprecatedSource:mapping deprecatedFirstTimestamp"
    " deprecatedLastTimestamp deprecatedCount:integer",
    "ServiceAccount": "secrets:[mapping] imagePullSecrets:[mapping]"
    " automountServiceAccountToken:boolean",
    "EndpointAddress": "targetRef:mapping",
    "EndpointSubsetPort": "appProtocol",
    "Endpoint": "deprecatedTopology:map",
    "ObjectReference": "apiVersion resourceVersion fieldPath",
    "LeaseSpec": "strategy preferredHolder",
}
"""By the name of the type that they belong to."""

LISTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "ObjectMeta.ownerReferences": ("uid", ("uid",)),
    "ServiceSpec.ports": ("port", ("port", "protocol")),
    "ServiceStatus.conditions": ("type", ("type",)),
    "NodeSpec.taints": ("key", ()),
    "NodeStatus.addresses": ("type", ("type",)),
    "NodeStatus.conditions": ("type", ("type",)),
    "Container.ports": ("containerPort", ("containerPort", "protocol")),
    "Container.env": ("name", ("name",)),
    "Container.volumeMounts": ("mountPath", ("mountPath",)),
    "Container.volumeDevices": ("devicePath", ("devicePath",)),
    "PodSpec.containers": ("name", ("name",)),
    "PodSpec.initContainers": ("name", ("name",)),
    "PodSpec.ephemeralContainers": ("name", ("name",)),
    "PodSpec.volumes": ("name", ("name",)),
    "PodSpec.imagePullSecrets": ("name", ("name",)),
    "PodSpec.hostAliases": ("ip", ("ip",)),
    "PodSpec.topologySpreadConstraints": ("topologyKey", ("topologyKey", "whenUnsatisfiable")),
    "PodSpec.schedulingGates": ("name", ("name",)),
    "PodSpec.resourceClaims": ("name", ("name",)),
    "PodStatus.conditions": ("type", ("type",)),
    "PodStatus.podIPs": ("ip", ("ip",)),
    "DaemonSetStatus.conditions": ("type", ("type",)),
    "DeploymentStatus.conditions": ("type", ("type",)),
    "ReplicaSetStatus.conditions": ("type", ("type",)),
    "StatefulSetStatus.conditions": ("type", ("type",)),
    "ServiceAccount.secrets": ("name", ("name",)),
    "ServiceAccount.imagePullSecrets": ("name", ("name",)),
    "ServiceCIDRStatus.conditions": ("type", ("type",)),
}
"""Lists of objects with keys: of a strategic merge patch, and of a server-side apply."""

SETS = ("ObjectMeta.finalizers",)
"""Lists of words that patches merge instead of replacing them."""

RETAIN_KEYS = ("DeploymentSpec.strategy", "PodSpec.volumes")
"""Where a strategic merge patch may name the keys to keep (``$retainKeys``)."""

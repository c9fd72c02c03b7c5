"""Fields of Kubernetes that this cluster keeps as they are written, without acting on them.

The typed objects hold what this project reads. A manifest may say more, and a strict API server
must tell ``imagePullPolicy`` from a slip of the pen. Source: the Kubernetes API reference, v1.31.

A field is ``name``, ``name:type`` (``string`` if there is none). Types: ``string``, ``integer``,
``boolean``, ``any`` (whatever is below it), ``map`` (of strings), and each of them in ``[]``.
"""

from collections.abc import Mapping

FIELDS: Mapping[str, str] = {
    "ObjectMeta": "generateName selfLink managedFields:[any]",
    "OwnerReference": "blockOwnerDeletion:boolean",
    "LoadBalancerIngress": "ports:[any]",
    "ServiceStatus": "conditions:[any]",
    "Taint": "timeAdded",
    "NodeSpec": "providerID externalID configSource:any",
    "NodeStatus": "capacity:any allocatable:any phase daemonEndpoints:any nodeInfo:any"
    " images:[any] volumesInUse:[string] volumesAttached:[any] config:any runtimeHandlers:[any]"
    " features:any",
    "Condition": "lastProbeTime lastHeartbeatTime lastUpdateTime observedGeneration:integer",
    "Namespace": "spec:any status:any",
    "ContainerPort": "hostPort:integer hostIP",
    "Lifecycle": "stopSignal",
    "Container": "resources:any resizePolicy:[any]"
    " restartPolicyRules:[any] volumeMounts:[any] volumeDevices:[any] terminationMessagePath"
    " terminationMessagePolicy imagePullPolicy securityContext:any stdin:boolean"
    " stdinOnce:boolean tty:boolean",
    "PodSpec": "volumes:[any] ephemeralContainers:[any] activeDeadlineSeconds:integer"
    " serviceAccount hostPID:boolean hostIPC:boolean"
    " shareProcessNamespace:boolean securityContext:any imagePullSecrets:[any]"
    " hostAliases:[any] priorityClassName priority:integer readinessGates:[any]"
    " runtimeClassName enableServiceLinks:boolean preemptionPolicy overhead:any"
    " topologySpreadConstraints:[any] setHostnameAsFQDN:boolean os:any hostUsers:boolean"
    " schedulingGates:[any] resourceClaims:[any] resources:any hostnameOverride",
    "ContainerStatus": "imageID allocatedResources:any resources:any"
    " volumeMounts:[any] user:any allocatedResourcesStatus:[any] stopSignal",
    "PodStatus": "nominatedNodeName hostIPs:[any] qosClass"
    " ephemeralContainerStatuses:[any] resize resourceClaimStatuses:[any]"
    " observedGeneration:integer",
    "DaemonSetStatus": "collisionCount:integer conditions:[any]",
    "DeploymentStatus": "collisionCount:integer terminatingReplicas:integer",
    "ReplicaSetStatus": "conditions:[any] terminatingReplicas:integer",
    "StatefulSetSpec": "volumeClaimTemplates:[any] persistentVolumeClaimRetentionPolicy:any",
    "StatefulSetStatus": "collisionCount:integer conditions:[any]",
    "Event": "source:any firstTimestamp lastTimestamp eventTime series:any related:any"
    " reportingComponent reportingInstance deprecatedSource:any deprecatedFirstTimestamp"
    " deprecatedLastTimestamp deprecatedCount:integer",
    "ServiceAccount": "secrets:[any] imagePullSecrets:[any] automountServiceAccountToken:boolean",
    "EndpointAddress": "targetRef:any",
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

"""What manifests get wrong: one mistake at a time, and the cause that Kubernetes names."""

import copy

import pytest

from kproxy.api import catalog, codec, kinds, validation
from kproxy.controlplane import status

LABEL = "metadata.labels['app.kubernetes.io/name']"
META = {"name": "web", "namespace": "demo"}
TEMPLATE = {
    "metadata": {"labels": {"app": "web"}},
    "spec": {
        "containers": [
            {
                "name": "web",
                "image": "web:1",
                "ports": [{"name": "http", "containerPort": 80}, {"containerPort": 81}],
                "env": [
                    {"name": "A", "value": "b"},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {
                        "name": "L",
                        "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['x']"}},
                    },
                    {"name": "K", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                ],
                "envFrom": [{"configMapRef": {"name": "c"}, "prefix": "C_"}],
                "resources": {
                    "requests": {"cpu": "100m", "memory": "64Mi", "example.org/gpu": 1},
                    "limits": {"cpu": 0.5, "memory": 1e9, "hugepages-2Mi": "4Mi"},
                },
                "imagePullPolicy": "IfNotPresent",
                "terminationMessagePolicy": "File",
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            },
            {"name": "log", "ports": [{"containerPort": 82, "hostPort": 8082}]},
        ],
        "initContainers": [{"name": "first"}],
        "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp"}],
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["10.96.0.10"], "searches": ["example.org"]},
        "hostname": "web",
        "subdomain": "webs",
        "serviceAccountName": "default",
        "tolerations": [
            {"operator": "Exists"},
            {"key": "a/b", "value": "c", "effect": "NoExecute", "tolerationSeconds": 5},
        ],
        "activeDeadlineSeconds": 60,
    },
}
WORKLOAD = {"selector": {"matchLabels": {"app": "web"}}, "template": TEMPLATE}
GOOD = {
    catalog.POD: {
        "metadata": {**META, "annotations": {"Example.org/Note": ""}, "finalizers": ["a.b/c"]},
        "spec": TEMPLATE["spec"],
    },
    catalog.DEPLOYMENT: {"metadata": META, "spec": {**WORKLOAD, "strategy": {"type": "Recreate"}}},
    catalog.STATEFUL_SET: {
        "metadata": META,
        "spec": {
            **WORKLOAD,
            "updateStrategy": {"type": "OnDelete"},
            "volumeClaimTemplates": [{"metadata": {"name": "disk"}, "spec": {}}],
        },
    },
    kinds.SERVICE: {
        "metadata": META,
        "spec": {
            "type": "LoadBalancer",
            "ports": [{"port": 80, "appProtocol": "kubernetes.io/h2c"}],
            "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 32000,
            "ipFamilies": ["IPv4", "IPv6"],
            "ipFamilyPolicy": "PreferDualStack",
            "trafficDistribution": "PreferClose",
            "loadBalancerClass": "example.org/lb",
            "allocateLoadBalancerNodePorts": False,
        },
    },
    kinds.ENDPOINT_SLICE: {
        "metadata": META,
        "addressType": "FQDN",
        "endpoints": [
            {
                "addresses": ["a.example.org"],
                "hostname": "a",
                "nodeName": "n1",
                "hints": {"forZones": [{"name": "z"}]},
            }
        ],
        "ports": [{"port": 80, "appProtocol": "http"}],
    },
    catalog.ENDPOINTS: {
        "metadata": META,
        "subsets": [
            {
                "addresses": [{"ip": "10.1.0.2", "hostname": "a"}],
                "ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2, "protocol": "UDP"}],
            }
        ],
    },
    kinds.NODE: {
        "metadata": {"name": "n1"},
        "spec": {
            "taints": [
                {"key": "a/b", "value": "c", "effect": "NoSchedule"},
                {"key": "a/b", "effect": "NoExecute"},
            ]
        },
    },
    catalog.SECRET: {
        "metadata": META,
        "type": "kubernetes.io/tls",
        "data": {"tls.crt": "YQ==", "tls.key": "YQ=="},
    },
    catalog.CONFIG_MAP: {"metadata": META, "data": {"a": "b"}, "binaryData": {"c": "YQ=="}},
    kinds.SERVICE_CIDR: {
        "metadata": {"name": "more"},
        "spec": {"cidrs": ["10.0.0.0/8", "fd00::/64"]},
    },
}
REQUIRED, INVALID, UNKNOWN = "Required value", "Invalid value", "Unsupported value"
FORBIDDEN, DUPLICATE, NOT_FOUND = "Forbidden", "Duplicate value", "Not found"
C = "spec.containers[0]"
POD_MISTAKES = [
    ("metadata.annotations", {"a b": ""}, "", INVALID),
    ("metadata.finalizers", ["hold"], "", INVALID),
    (f"{C}.ports[1].name", "http", "", DUPLICATE),
    (f"{C}.ports[0].hostPort", 65536, "", INVALID),
    (f"{C}.ports[0].hostPort", 8082, "spec.containers[1].ports[0].hostPort", DUPLICATE),
    ("spec.hostNetwork", True, "spec.containers[1].ports[0].containerPort", INVALID),
    (f"{C}.imagePullPolicy", "Allways", "", UNKNOWN),
    (f"{C}.terminationMessagePolicy", "Log", "", UNKNOWN),
    (f"{C}.env[0].name", "", "", REQUIRED),
    (f"{C}.env[0].name", "a b", "", INVALID),
    (f"{C}.env[1].value", "x", f"{C}.env[1].valueFrom", INVALID),
    (f"{C}.env[1].valueFrom", {}, "", INVALID),
    (f"{C}.env[1].valueFrom.fieldRef.fieldPath", "status.ip", "", UNKNOWN),
    (f"{C}.env[1].valueFrom.fieldRef.fieldPath", "", "", REQUIRED),
    (f"{C}.env[3].valueFrom.secretKeyRef.key", "", "", REQUIRED),
    (f"{C}.envFrom[0].secretRef", {"name": "s"}, f"{C}.envFrom[0]", INVALID),
    (f"{C}.resources.limits", {"cpu": "100mm"}, f"{C}.resources.limits[cpu]", INVALID),
    (f"{C}.resources.limits", {"memory": "1gb"}, f"{C}.resources.limits[memory]", INVALID),
    (f"{C}.resources.limits", {"cpu": -1}, f"{C}.resources.limits[cpu]", INVALID),
    (f"{C}.resources.limits", {"cpus": 1}, f"{C}.resources.limits[cpus]", INVALID),
    (f"{C}.resources.limits", {"cpu": "99m"}, f"{C}.resources.requests[cpu]", INVALID),
    (f"{C}.resources.limits", {"memory": "67M"}, f"{C}.resources.requests[memory]", INVALID),
    (f"{C}.volumeMounts[0].name", "dat", "", NOT_FOUND),
    (f"{C}.volumeMounts[0].mountPath", "", "", REQUIRED),
    (f"{C}.volumeMounts[1]", {"name": "tmp", "mountPath": "/data"},
        f"{C}.volumeMounts[1].mountPath", INVALID),
    ("spec.initContainers[0].livenessProbe", {"tcpSocket": {"port": 80}}, "", FORBIDDEN),
    ("spec.volumes[1].name", "", "", REQUIRED),
    ("spec.volumes[1].name", "data", "", DUPLICATE),
    ("spec.volumes[0].configMap", {"name": "c"}, "", FORBIDDEN),
    ("spec.dnsPolicy", "Cluster", "", UNKNOWN),
    ("spec.dnsConfig.nameservers", [], "", REQUIRED),
    ("spec.dnsConfig.nameservers", ["10.0.0.1"] * 4, "", INVALID),
    ("spec.dnsConfig.nameservers[0]", "dns", "", INVALID),
    ("spec.dnsConfig.searches", ["a"] * 33, "", INVALID),
    ("spec.hostname", "a.b", "", INVALID),
    ("spec.subdomain", "A", "", INVALID),
    ("spec.nodeName", "n_1", "", INVALID),
    ("spec.serviceAccountName", "a_b", "", INVALID),
    ("spec.activeDeadlineSeconds", 0, "", INVALID),
    ("spec.tolerations[1].key", "a b", "", INVALID),
    ("spec.tolerations[0].operator", "Equal", "", INVALID),
    ("spec.tolerations[1].operator", "In", "", UNKNOWN),
    ("spec.tolerations[0].value", "x", "", INVALID),
    ("spec.tolerations[0].effect", "NoWay", "", UNKNOWN),
    ("spec.tolerations[1].effect", "NoSchedule", "", INVALID),
]  # fmt: skip
SPEC = "spec.template.spec"
MISTAKES = [
    *((catalog.POD, *mistake) for mistake in POD_MISTAKES),
    (catalog.DEPLOYMENT, "spec.strategy.rollingUpdate", {"maxSurge": 1}, "", FORBIDDEN),
    (catalog.DEPLOYMENT, "spec.template.metadata.annotations", {"": ""}, "", INVALID),
    (catalog.DEPLOYMENT, f"{SPEC}.containers[0].volumeMounts[0].name", "x", "", NOT_FOUND),
    (catalog.STATEFUL_SET, "spec.updateStrategy.rollingUpdate", {"partition": 0}, "", INVALID),
    (catalog.STATEFUL_SET, "spec.volumeClaimTemplates[0].metadata.name", "", "", REQUIRED),
    (catalog.STATEFUL_SET, f"{SPEC}.containers[0].volumeMounts[0].name", "x", "", NOT_FOUND),
    (kinds.SERVICE, "spec.ports[0].appProtocol", "a b", "", INVALID),
    (kinds.SERVICE, "spec.ipFamilies[1]", "IPv4", "", DUPLICATE),
    (kinds.SERVICE, "spec.ipFamilyPolicy", "DualStack", "", UNKNOWN),
    (kinds.SERVICE, "spec.trafficDistribution", "Close", "", UNKNOWN),
    (kinds.SERVICE, "spec.loadBalancerClass", "a b", "", INVALID),
    (kinds.SERVICE, "spec.type", "NodePort", "spec.loadBalancerClass", FORBIDDEN),
    (kinds.SERVICE, "spec.type", "NodePort", "spec.allocateLoadBalancerNodePorts", FORBIDDEN),
    (kinds.SERVICE, "spec.type", "NodePort", "spec.healthCheckNodePort", INVALID),
    (kinds.SERVICE, "spec.externalTrafficPolicy", "Cluster", "spec.healthCheckNodePort", INVALID),
    (kinds.ENDPOINT_SLICE, "addressType", None, "", REQUIRED),
    (kinds.ENDPOINT_SLICE, "addressType", "", "", REQUIRED),
    (kinds.ENDPOINT_SLICE, "endpoints[0].addresses[0]", "a_b", "", INVALID),
    (kinds.ENDPOINT_SLICE, "endpoints[0].addresses", ["a.b"] * 101, "", INVALID),
    (kinds.ENDPOINT_SLICE, "endpoints[0].hostname", "a.b", "", INVALID),
    (kinds.ENDPOINT_SLICE, "endpoints[0].nodeName", "n_1", "", INVALID),
    (kinds.ENDPOINT_SLICE, "endpoints[0].hints.forZones[0].name", "", "", REQUIRED),
    (kinds.ENDPOINT_SLICE, "endpoints[0].hints.forZones", [{"name": "z"}] * 9, "", INVALID),
    (kinds.ENDPOINT_SLICE, "ports[0].appProtocol", "a b", "", INVALID),
    (catalog.ENDPOINTS, "subsets[0].addresses", [], "subsets[0]", REQUIRED),
    (catalog.ENDPOINTS, "subsets[0].addresses[0].hostname", "a.b", "", INVALID),
    (catalog.ENDPOINTS, "subsets[0].ports[1].name", "", "", REQUIRED),
    (catalog.ENDPOINTS, "subsets[0].ports[1].name", "B", "", INVALID),
    (catalog.ENDPOINTS, "subsets[0].ports[1].protocol", "udp", "", UNKNOWN),
    (kinds.NODE, "spec.taints[0].key", "", "", REQUIRED),
    (kinds.NODE, "spec.taints[0].key", "a b", "", INVALID),
    (kinds.NODE, "spec.taints[0].value", "a b", "", INVALID),
    (kinds.NODE, "spec.taints[0].effect", "", "", REQUIRED),
    (kinds.NODE, "spec.taints[0].effect", "Never", "", UNKNOWN),
    (kinds.NODE, "spec.taints[1].effect", "NoSchedule", "spec.taints[1]", DUPLICATE),
    (catalog.SECRET, "data", {"tls.crt": "YQ=="}, "data[tls.key]", REQUIRED),
    (catalog.SECRET, "type", "kubernetes.io/ssh-auth", "data[ssh-privatekey]", REQUIRED),
    (catalog.CONFIG_MAP, "data", {"c": ""}, "data[c]", DUPLICATE),
    (catalog.CONFIG_MAP, "data", {"a": "é" * (validation.MOST_DATA // 2)}, "", INVALID),
    (kinds.SERVICE_CIDR, "spec.cidrs", [], "", REQUIRED),
    (kinds.SERVICE_CIDR, "spec.cidrs", ["10.0.0.0/8"] * 3, "", INVALID),
]


def changed(kind, field, value):
    """Return a good object with another value at a path; None: without it."""
    data = place = copy.deepcopy(GOOD[kind])
    *parents, last = field.replace("[", ".").replace("]", "").split(".")
    for key in parents:
        place = place[int(key)] if key.isdigit() else place.setdefault(key, {})
    if value is None:
        del place[last]
    elif isinstance(place, list):
        place[int(last) :] = [value, *place[int(last) + 1 :]]
    else:
        place[last] = value
    return data


def causes_of(kind, data):
    problems = validation.validate(codec.from_dict(data, kind.type))
    assert all(problem.remedy for problem in problems)
    if not problems:
        return []
    answer = status.failure(ExceptionGroup("x", problems))
    assert (answer["code"], answer["reason"]) == (422, "Invalid")
    return [
        (one["field"], one["message"].partition(":")[0]) for one in answer["details"]["causes"]
    ]


@pytest.mark.parametrize("kind", GOOD, ids=lambda kind: kind.name)
def test_nothing_is_wrong_with_what_is_right(kind):
    assert causes_of(kind, GOOD[kind]) == []


@pytest.mark.parametrize(
    ("kind", "field", "value", "told", "words"), MISTAKES, ids=lambda part: str(part)[:40]
)
def test_the_cause_is_named_as_kubernetes_does(kind, field, value, told, words):
    assert (told or field, words) in causes_of(kind, changed(kind, field, value))


def test_claims_of_a_stateful_set_are_volumes_of_its_pods():
    mount = {"name": "disk", "mountPath": "/disk"}
    place = "spec.template.spec.containers[0].volumeMounts[0]"
    assert causes_of(catalog.STATEFUL_SET, changed(catalog.STATEFUL_SET, place, mount)) == []
    told = causes_of(catalog.DEPLOYMENT, changed(catalog.DEPLOYMENT, place, mount))
    assert told == [(f"{place}.name", NOT_FOUND)]


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ("1n", "1u"), ("999u", "1m"), ("999m", "1"), ("1", 1.5), ("1.5", "1k"), ("999", "1e3"),
        ("1k", "1Ki"), ("1Ki", "1M"), ("1M", "1Mi"), ("1E6", "1Gi"), ("1T", "1Ti"), ("1P", "1E"),
    ],
)  # fmt: skip
def test_quantities_are_compared_by_what_they_amount_to(less, more):
    def told(requests, limits):
        resources = {"requests": {"cpu": requests}, "limits": {"cpu": limits}}
        return causes_of(catalog.POD, changed(catalog.POD, f"{C}.resources", resources))

    assert told(less, more) == told(less, less) == []
    assert told(more, less) == [(f"{C}.resources.requests[cpu]", INVALID)]


def test_a_secret_may_be_written_as_text():
    text = {"tls.crt": "a", "tls.key": "b"}
    secret = {"metadata": META, "type": "kubernetes.io/tls", "stringData": text}
    assert causes_of(catalog.SECRET, secret) == []


def test_a_secret_of_exactly_the_largest_size_is_allowed():
    coded = "AAAA" * (validation.MOST_DATA // 3) + "AA=="
    secret = {"metadata": META, "data": {"a": coded}}
    assert causes_of(catalog.SECRET, secret) == []
    secret["data"]["b"] = "AA=="
    assert causes_of(catalog.SECRET, secret) == [("data", INVALID)]

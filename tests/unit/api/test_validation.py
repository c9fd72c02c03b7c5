"""What is wrong with an object: a good one of each kind, and one mistake at a time."""

import copy

import pytest

from kproxy.api import catalog, codec, kinds, validation

SERVICE = {
    "metadata": {"name": "web", "namespace": "demo", "labels": {"app.kubernetes.io/name": "web"}},
    "spec": {
        "type": "NodePort",
        "selector": {"app": "web"},
        "clusterIP": "10.96.0.10",
        "clusterIPs": ["10.96.0.10", "fd00:10:96::10"],
        "ipFamilies": ["IPv4", "IPv6"],
        "ports": [
            {"name": "http", "port": 80, "targetPort": 8080, "nodePort": 30080},
            {"name": "dns", "port": 80, "protocol": "UDP", "targetPort": "dns-udp"},
        ],
        "externalIPs": ["198.51.100.1"],
        "externalTrafficPolicy": "Local",
        "internalTrafficPolicy": "Cluster",
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
    },
}
TEMPLATE = {
    "metadata": {"labels": {"app": "web", "tier": "front"}},
    "spec": {"containers": [{"name": "web", "ports": [{"name": "http", "containerPort": 80}]}]},
}
OWNER_NAMED_BY = ("apiVersion", "kind", "name", "uid")
OWNER = {
    "apiVersion": "apps/v1",
    "kind": "ReplicaSet",
    "name": "web",
    "uid": "u",
    "controller": True,
}
GOOD = {
    kinds.NAMESPACE: {"metadata": {"name": "demo"}},
    kinds.NODE: {
        "metadata": {"name": "n1.example.org"},
        "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00::/64"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.1.1"}]},
    },
    catalog.POD: {
        "metadata": {"name": "web-1", "namespace": "demo", "ownerReferences": [OWNER]},
        "spec": TEMPLATE["spec"],
    },
    kinds.SERVICE: SERVICE,
    kinds.ENDPOINT_SLICE: {
        "metadata": {"name": "web-abc", "namespace": "demo"},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.0.2"], "conditions": {"ready": True}}],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    },
    catalog.DEPLOYMENT: {
        "metadata": {"name": "web", "namespace": "demo"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": TEMPLATE,
            "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
        },
    },
    catalog.DAEMON_SET: {
        "metadata": {"name": "proxy", "namespace": "demo"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}}, "template": TEMPLATE,
            "updateStrategy": {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
        },
    },
    kinds.SERVICE_CIDR: {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12"]}},
    catalog.REPLICA_SET: {
        "metadata": {"name": "web-1", "namespace": "demo"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": TEMPLATE},
    },
    catalog.STATEFUL_SET: {
        "metadata": {"name": "db", "namespace": "demo"},
        "spec": {
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "web"}}, "template": TEMPLATE,
            "updateStrategy": {"rollingUpdate": {"partition": 1}},
        },
    },
    catalog.CONTROLLER_REVISION: {
        "metadata": {"name": "db-1", "namespace": "demo"}, "revision": 1, "data": {"spec": {}},
    },
    catalog.CONFIG_MAP: {"metadata": {"name": "web", "namespace": "demo"}, "data": {"a": "b"}},
    catalog.SECRET: {"metadata": {"name": "web", "namespace": "demo"}, "data": {"a": "Yg=="}},
    catalog.SERVICE_ACCOUNT: {"metadata": {"name": "web", "namespace": "demo"}},
    catalog.ENDPOINTS: {
        "metadata": {"name": "web", "namespace": "demo"},
        "subsets": [{
            "addresses": [{"ip": "10.1.0.2"}],
            "notReadyAddresses": [{"ip": "fd00::2"}],
            "ports": [{"port": 80}],
        }],
    },
    catalog.EVENT: {
        "metadata": {"name": "web.1", "namespace": "demo"},
        "involvedObject": {"kind": "Pod", "name": "web"}, "reason": "Started",
    },
    catalog.NEW_EVENT: {
        "metadata": {"name": "web.2", "namespace": "demo"},
        "regarding": {"kind": "Pod", "name": "web"}, "reason": "Started",
    },
    catalog.LEASE: {
        "metadata": {"name": "manager", "namespace": "kube-system"},
        "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15},
    },
    catalog.IP_ADDRESS: {
        "metadata": {"name": "10.96.0.1"},
        "spec": {"parentRef": {"resource": "services", "name": "web"}},
    },
}  # fmt: skip

LONG = "a" * 64
BAD = [
    (kinds.NAMESPACE, "metadata.name", "Demo"),
    (kinds.NAMESPACE, "metadata.name", ""),
    (kinds.NAMESPACE, "metadata.name", LONG),
    (kinds.NAMESPACE, "metadata.namespace", "x"),
    (kinds.NODE, "metadata.name", "n_1"),
    (kinds.NODE, "spec.podCIDR", "10.1.0.0"),
    (kinds.NODE, "spec.podCIDRs[0]", "10.2.0.0/24"),
    (kinds.NODE, "spec.podCIDRs[1]", "x/8"),
    (kinds.NODE, "status.addresses[0].address", "192.168.1"),
    *((catalog.POD, f"metadata.ownerReferences[0].{name}", "") for name in OWNER_NAMED_BY),
    (catalog.POD, "metadata.ownerReferences", [OWNER, OWNER]),
    (catalog.POD, "spec.containers", []),
    (catalog.POD, "spec.containers[0].name", "Web"),
    (catalog.POD, "spec.containers[0].ports[0].containerPort", 0),
    (catalog.POD, "spec.containers[0].ports[0].name", "0815"),
    (catalog.POD, "spec.containers[0].ports[0].protocol", "tcp"),
    (catalog.POD, "spec.restartPolicy", "Sometimes"),
    (catalog.POD, "spec.terminationGracePeriodSeconds", -1),
    (catalog.POD, "metadata.namespace", "a.b"),
    (kinds.SERVICE, "metadata.name", "1web"),
    (kinds.SERVICE, "metadata.labels", {"a/b/c": "x"}),
    (kinds.SERVICE, "metadata.labels[app]", "not a value"),
    (kinds.SERVICE, "spec.selector", {"": "x"}),
    (kinds.SERVICE, "spec.type", "Clusterip"),
    (kinds.SERVICE, "spec.ports", []),
    (kinds.SERVICE, "spec.ports[0].port", 0),
    (kinds.SERVICE, "spec.ports[0].port", 65536),
    (kinds.SERVICE, "spec.ports[0].protocol", "tcp"),
    (kinds.SERVICE, "spec.ports[0].name", ""),
    (kinds.SERVICE, "spec.ports[1].name", "http"),
    (kinds.SERVICE, "spec.ports[1]", {"name": "dns", "port": 80, "protocol": "TCP"}),
    (kinds.SERVICE, "spec.ports[0].targetPort", 70000),
    (kinds.SERVICE, "spec.ports[0].targetPort", "8080"),
    (kinds.SERVICE, "spec.ports[0].targetPort", "no--name"),
    (kinds.SERVICE, "spec.ports[0].targetPort", "longer-than-fifteen"),
    (kinds.SERVICE, "spec.ports[0].nodePort", -1),
    (kinds.SERVICE, "spec.clusterIPs[0]", "10.96.0.11"),
    (kinds.SERVICE, "spec.clusterIPs[1]", "10.96.0.12"),
    (kinds.SERVICE, "spec.clusterIPs[1]", "fd00::g"),
    (kinds.SERVICE, "spec.ipFamilies[1]", "IPv5"),
    (kinds.SERVICE, "spec.clusterIP", "None"),
    (kinds.SERVICE, "spec.externalIPs[0]", "127.0.0.1"),
    (kinds.SERVICE, "spec.externalIPs[0]", "198.51.100.01"),
    (kinds.SERVICE, "spec.loadBalancerSourceRanges", ["10.0.0.0/8"]),
    (kinds.SERVICE, "spec.loadBalancerSourceRanges[0]", "10.0.0.0"),
    (kinds.SERVICE, "spec.externalTrafficPolicy", "local"),
    (kinds.SERVICE, "spec.internalTrafficPolicy", ""),
    (kinds.SERVICE, "spec.sessionAffinity", "Cookie"),
    (kinds.SERVICE, "spec.sessionAffinityConfig.clientIP.timeoutSeconds", 86401),
    (kinds.SERVICE, "spec.healthCheckNodePort", 70000),
    (kinds.ENDPOINT_SLICE, "addressType", "IPv5"),
    (kinds.ENDPOINT_SLICE, "endpoints[0].addresses", []),
    (kinds.ENDPOINT_SLICE, "endpoints[0].addresses[0]", "10.1.0.256"),
    (kinds.ENDPOINT_SLICE, "endpoints[0].addresses[0]", "fd00::1"),
    (kinds.ENDPOINT_SLICE, "endpoints[0].addresses[0]", "169.254.0.1"),
    (kinds.ENDPOINT_SLICE, "ports[0].port", 65536),
    (kinds.ENDPOINT_SLICE, "ports[0].protocol", "udp"),
    (kinds.ENDPOINT_SLICE, "endpoints", [{"addresses": ["10.1.0.2"]}] * 1001),
    (catalog.DEPLOYMENT, "spec.replicas", -1),
    (catalog.DEPLOYMENT, "spec.minReadySeconds", -1),
    (catalog.DEPLOYMENT, "spec.revisionHistoryLimit", -1),
    (catalog.DEPLOYMENT, "spec.progressDeadlineSeconds", -1),
    (catalog.DEPLOYMENT, "spec.progressDeadlineSeconds", 0),
    (catalog.DEPLOYMENT, "spec.strategy.rollingUpdate.maxUnavailable", "101%"),
    (
        catalog.DEPLOYMENT,
        "spec.selector.matchExpressions",
        [{"key": "app", "operator": "In", "values": "web"}],
    ),
    (catalog.REPLICA_SET, "spec.minReadySeconds", -1),
    (catalog.DAEMON_SET, "spec.minReadySeconds", -1),
    (catalog.DAEMON_SET, "spec.revisionHistoryLimit", -1),
    (catalog.STATEFUL_SET, "spec.minReadySeconds", -1),
    (catalog.STATEFUL_SET, "spec.revisionHistoryLimit", -1),
    (catalog.STATEFUL_SET, "spec.ordinals", {"start": -1}),
    (catalog.DEPLOYMENT, "spec.selector", {}),
    (
        catalog.DEPLOYMENT,
        "spec.selector.matchExpressions",
        [{"key": "app", "operator": "Like"}],
    ),
    (
        catalog.DEPLOYMENT,
        "spec.selector.matchExpressions",
        [{"key": "app", "operator": "In", "values": []}],
    ),
    (catalog.IP_ADDRESS, "metadata.name", "10.96.0.x"),
    (catalog.DEPLOYMENT, "spec.template.metadata.labels", {"app": "other"}),
    (catalog.DEPLOYMENT, "spec.template.spec.containers", []),
    (catalog.DEPLOYMENT, "spec.template.spec.restartPolicy", "Never"),
    (catalog.DEPLOYMENT, "spec.strategy.type", "OnDelete"),
    (catalog.DEPLOYMENT, "spec.strategy.rollingUpdate.maxSurge", "many"),
    (catalog.DEPLOYMENT, "spec.strategy.rollingUpdate.maxUnavailable", -1),
    (catalog.DAEMON_SET, "spec.updateStrategy", {"type": "Recreate"}),
    (catalog.DAEMON_SET, "spec.updateStrategy.rollingUpdate.maxSurge", 1),
    (kinds.SERVICE_CIDR, "spec.cidrs[0]", "10.96.0.0/40"),
    (catalog.REPLICA_SET, "spec.replicas", -1),
    (catalog.REPLICA_SET, "spec.template.metadata.labels", {"app": "other"}),
    (catalog.STATEFUL_SET, "spec.updateStrategy", {"type": "Recreate"}),
    (catalog.STATEFUL_SET, "spec.updateStrategy.rollingUpdate.partition", -1),
    (catalog.STATEFUL_SET, "spec.podManagementPolicy", "Serial"),
    (catalog.POD, "spec.containers[0].readinessProbe", {"periodSeconds": 1}),
    (catalog.POD, "spec.containers[0].readinessProbe", {"tcpSocket": {"port": 0}}),
    (catalog.POD, "spec.containers[0].livenessProbe",
        {"exec": {"command": ["true"]}, "periodSeconds": 0}),
    (catalog.CONFIG_MAP, "metadata.annotations", {"a": "x" * validation.MOST_ANNOTATED}),
    (catalog.ENDPOINTS, "subsets[0].addresses[0].ip", "10.1.0.256"),
    (catalog.ENDPOINTS, "subsets[0].notReadyAddresses[0].ip", "127.0.0.1"),
    (catalog.ENDPOINTS, "subsets[0].ports[0].port", 0),
    (catalog.LEASE, "spec.leaseDurationSeconds", 0),
    (catalog.LEASE, "spec.leaseTransitions", -1),
]  # fmt: skip


def problems_of(kind, data):
    return validation.validate(codec.from_dict(data, kind.type))


def put(data, path, value):
    """Set the field at a path such as ``spec.ports[0].port``; map keys may be in brackets too."""
    *parents, last = path.replace("[", ".").replace("]", "").split(".")
    for key in parents:
        data = data[int(key)] if key.isdigit() else data.setdefault(key, {})
    if isinstance(data, list):
        data[int(last) :] = [value, *data[int(last) + 1 :]]
    else:
        data[last] = value


@pytest.mark.parametrize("kind", kinds.known(), ids=lambda kind: kind.name)
def test_good_objects_pass(kind):
    assert problems_of(kind, GOOD[kind]) == []


@pytest.mark.parametrize(("kind", "field", "value"), BAD, ids=lambda part: str(part)[:40])
def test_each_mistake_is_told_with_its_field(kind, field, value):
    data = copy.deepcopy(GOOD[kind])
    if "loadBalancerSourceRanges[0]" in field:
        data["spec"] |= {"type": "LoadBalancer", "loadBalancerSourceRanges": ["x"]}
    put(data, field, value)
    problems = problems_of(kind, data)
    assert problems, "nothing was found"
    told = field.partition(" ")[0]
    assert any(
        problem.field.startswith(told) or told.startswith(problem.field) for problem in problems
    ), [str(problem) for problem in problems]
    assert all(problem.remedy for problem in problems)


def test_all_mistakes_are_told_not_only_the_first():
    data = copy.deepcopy(SERVICE)
    put(data, "spec.ports[0].port", 0)
    put(data, "spec.externalIPs[0]", "nowhere")
    put(data, "spec.sessionAffinity", "Cookie")
    fields = [problem.field for problem in problems_of(kinds.SERVICE, data)]
    assert fields == ["spec.ports[0].port", "spec.externalIPs[0]", "spec.sessionAffinity"]


def test_expressions_of_a_selector_must_match_the_template():
    data = copy.deepcopy(GOOD[catalog.DEPLOYMENT])
    rule = {"key": "tier", "operator": "In", "values": ["front", "back"]}
    data["spec"]["selector"] = {"matchExpressions": [rule]}
    assert problems_of(catalog.DEPLOYMENT, data) == []
    rule["operator"] = "NotIn"
    fields = [problem.field for problem in problems_of(catalog.DEPLOYMENT, data)]
    assert fields == ["spec.template.metadata.labels"]


def test_data_of_secrets_and_config_maps():
    meta = {"name": "x", "namespace": "demo"}
    secret = {"metadata": meta, "data": {"a": "not base64!", "b c": "YQ=="}}
    fields = [problem.field for problem in problems_of(catalog.SECRET, secret)]
    assert fields == ["data[a]", "data[b c]"]
    config = {"metadata": meta, "data": {"a": "not base64!"}}
    assert problems_of(catalog.CONFIG_MAP, config) == []


def test_what_only_other_types_may_have():
    cluster = {
        "metadata": {"name": "web", "namespace": "demo"},
        "spec": {"ports": [{"port": 80, "nodePort": 30000}], "externalTrafficPolicy": "Local"},
    }
    fields = [problem.field for problem in problems_of(kinds.SERVICE, cluster)]
    assert fields == ["spec.ports[0].nodePort", "spec.externalTrafficPolicy"]


def test_headless_and_external_name_need_no_ports():
    meta = {"name": "web", "namespace": "demo"}
    headless = {"metadata": meta, "spec": {"clusterIP": "None"}}
    external = {
        "metadata": meta,
        "spec": {"type": "ExternalName", "externalName": "a.example.org"},
    }
    assert problems_of(kinds.SERVICE, headless) == []
    assert problems_of(kinds.SERVICE, external) == []
    del external["spec"]["externalName"]
    assert [p.field for p in problems_of(kinds.SERVICE, external)] == ["spec.externalName"]


def test_the_object_is_named():
    data = {"metadata": {"name": "web", "namespace": "demo"}, "spec": {"ports": [{"port": 0}]}}
    assert str(problems_of(kinds.SERVICE, data)[0]) == (
        "Service demo/web: spec.ports[0].port: 0 is out of range (use a port from 1 to 65535)"
    )


@pytest.mark.parametrize(
    ("field", "value", "own"),
    [("livenessProbe", {}, "grpc"), ("lifecycle", {"preStop": {}}, "sleep")],
)
def test_only_what_a_probe_or_a_hook_can_do_is_proposed(field, value, own):
    data = copy.deepcopy(GOOD[catalog.POD])
    data["spec"]["containers"][0][field] = value
    remedies = [problem.remedy for problem in problems_of(catalog.POD, data)]
    assert remedies == [f"give one of exec, httpGet, tcpSocket and {own}"]

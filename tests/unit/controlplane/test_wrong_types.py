"""Values of the wrong type, also in fields that are only kept; what is wrong with a status."""

import msgspec
import pytest
from local_cluster import new_api

from kproxy import errors
from kproxy.controlplane import routes, status
from kproxy.controlplane.requests import Options

PODS = "/api/v1/namespaces/default/pods"
SERVICES = "/api/v1/namespaces/default/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
NODES = "/api/v1/nodes"
MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"


@pytest.fixture
def api():
    return new_api()


def send(api, method, path, body, content_type="application/json", **more):
    """Return the answer, or the Status of a refusal."""
    options = Options(content_type=content_type, **more)
    try:
        answer = getattr(api, method)(routes.target(path), msgspec.json.encode(body), options)
    except (errors.KproxyError, ExceptionGroup) as error:
        return status.failure(error)
    return msgspec.json.decode(answer.body)


def pod(**container):
    return {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", **container}]}}


def node(**told):
    return {"metadata": {"name": "n1"}, "status": told}


def service(**spec):
    return {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}], **spec}}


def labelled(value):
    return {"metadata": {"name": "n1", "labels": {"version": value}}}


WRONG = [
    (SERVICES, service(ports=[{"port": "http"}]),
        "string into Go struct field ServicePort.spec.ports[0].port of type int32"),
    (SERVICES, service(ports=[{"port": 80.5}]),
        "number 80.5 into Go struct field ServicePort.spec.ports[0].port of type int32"),
    (SERVICES, service(ports=[{"port": 80, "targetPort": True}]),
        "bool into Go struct field ServicePort.spec.ports[0].targetPort"
        " of type intstr.IntOrString"),
    (SERVICES, service(selector="app=web"),
        "string into Go struct field ServiceSpec.spec.selector of type map[string]string"),
    (NODES, node(daemonEndpoints=7),
        "number into Go struct field NodeStatus.status.daemonEndpoints"
        " of type v1.NodeDaemonEndpoints"),
    (NODES, node(daemonEndpoints={"kubeletEndpoint": {"Port": "x"}}),
        "string into Go struct field DaemonEndpoint.status.daemonEndpoints.kubeletEndpoint.Port"
        " of type int32"),
    (NODES, node(images={}),
        "object into Go struct field NodeStatus.status.images of type []object"),
    (NODES, labelled(1),
        "number into Go struct field ObjectMeta.metadata.labels[version] of type string"),
    (PODS, pod(env=[{"name": "A", "value": 5}]),
        "number into Go struct field EnvVar.spec.containers[0].env[0].value of type string"),
    (PODS, pod(stdin="yes"),
        "string into Go struct field Container.spec.containers[0].stdin of type bool"),
    (PODS, pod(command="sleep 1"),
        "string into Go struct field Container.spec.containers[0].command of type []string"),
    (PODS, pod(securityContext=[]),
        "array into Go struct field Container.spec.containers[0].securityContext of type object"),
    (PODS, {"metadata": {"name": "a"}, "spec": {"terminationGracePeriodSeconds": "1s"}},
        "string into Go struct field PodSpec.spec.terminationGracePeriodSeconds of type int64"),
    (PODS, {"metadata": {"name": "a"}, "spec": {"terminationGracePeriodSeconds": 2**63}},
        "number 9223372036854775808 into Go struct field"
        " PodSpec.spec.terminationGracePeriodSeconds of type int64"),
    (SERVICES, service(ports=[{"port": 2**31}]),
        "number 2147483648 into Go struct field ServicePort.spec.ports[0].port of type int32"),
    (SERVICES, service(ports=[{"port": 80, "targetPort": -(2**31) - 1}]),
        "number -2147483649 into Go struct field ServicePort.spec.ports[0].targetPort"
        " of type intstr.IntOrString"),
    (PODS, [], "array into Go value of type v1.Pod"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "words"), WRONG)
def test_what_cannot_be_decoded_is_400_in_the_words_of_kubernetes(api, path, body, words):
    answer = send(api, "create", path, body)
    name = routes.target(path).kind.name
    assert (answer["code"], answer["reason"]) == (400, "BadRequest")
    said = f'{name} in version "v1" cannot be handled as a {name}: json: cannot unmarshal '
    assert answer["message"] == said + words


def test_replacing_and_applying_are_no_way_around(api):
    assert send(api, "create", NODES, node())["metadata"]["name"] == "n1"
    wrong = node(daemonEndpoints=7)
    assert send(api, "replace", f"{NODES}/n1", wrong)["code"] == 400
    assert send(api, "replace", f"{NODES}/n1/status", wrong)["code"] == 400
    assert send(api, "patch", f"{NODES}/n1", wrong, APPLY, manager="me")["code"] == 400


def test_what_a_patch_makes_of_an_object_is_invalid(api):
    send(api, "create", NODES, node())
    wrong = {"status": {"daemonEndpoints": 7}}
    answer = send(api, "patch", f"{NODES}/n1/status", wrong, MERGE)
    assert (answer["code"], answer["reason"]) == (422, "Invalid")
    (cause,) = answer["details"]["causes"]
    assert (cause["field"], cause["reason"]) == ("status.daemonEndpoints", "FieldValueInvalid")
    good = {"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}}
    assert send(api, "patch", f"{NODES}/n1/status", good, MERGE)["status"] == good["status"]


def test_numbers_of_64_bits_have_room_where_kubernetes_has_it(api):
    spec = {**pod()["spec"], "terminationGracePeriodSeconds": 2**63 - 1}
    made = send(api, "create", PODS, {"metadata": {"name": "a"}, "spec": spec})
    assert made["spec"]["terminationGracePeriodSeconds"] == 2**63 - 1
    patch = {"spec": {"terminationGracePeriodSeconds": 2**63}}
    assert send(api, "patch", f"{PODS}/a", patch, MERGE)["code"] == 422


def test_a_grace_period_of_64_bits_ends_on_the_last_day_that_can_be_written(api):
    spec = {**pod()["spec"], "terminationGracePeriodSeconds": 2**63 - 1, "nodeName": "n1"}
    send(api, "create", PODS, {"metadata": {"name": "a"}, "spec": spec})
    target = routes.target(f"{PODS}/a")
    with pytest.raises(errors.ApiError, match="gracePeriodSeconds") as caught:
        api.delete(target, {"gracePeriodSeconds": str(2**63)}, b"")
    assert caught.value.code == 400
    api.delete(target, {}, b"")
    marked = msgspec.json.decode(api.get(target).body)["metadata"]
    assert marked["deletionTimestamp"] == "9999-12-31T23:59:59Z"
    assert marked["deletionGracePeriodSeconds"] == 2**63 - 1
    api.delete(target, {"gracePeriodSeconds": "0"}, b"")
    with pytest.raises(errors.ApiError):
        api.get(target)


def test_null_is_no_value_of_a_wrong_type(api):
    made = send(api, "create", PODS, pod(ports=None, stdin=None, securityContext=None))
    assert made["spec"]["containers"][0].keys().isdisjoint(("ports", "stdin", "securityContext"))


def test_a_slice_says_what_its_addresses_are(api):
    body = {"metadata": {"name": "web-1"}, "endpoints": [{"addresses": ["10.1.0.2"]}]}
    answer = send(api, "create", SLICES, body)
    assert answer["code"] == 422
    (cause,) = answer["details"]["causes"]
    assert (cause["field"], cause["reason"]) == ("addressType", "FieldValueRequired")
    assert "addressType: Required value: " in answer["message"]
    assert send(api, "create", SLICES, {**body, "addressType": "IPv4"})["addressType"] == "IPv4"
    patch = {"addressType": None}
    answer = send(api, "patch", f"{SLICES}/web-1", patch, MERGE)
    assert answer["details"]["causes"][0]["field"] == "addressType"


@pytest.mark.parametrize(
    ("ingress", "field", "words"),
    [
        ({"ip": "10.0.0.256"}, "ip", "Invalid value"),
        ({"ip": "10.0.0.1", "ipMode": "vip"}, "ipMode", "Unsupported value"),
        ({"hostname": "a_b"}, "hostname", "Invalid value"),
    ],
)
def test_a_status_is_looked_at_too(api, ingress, field, words):
    send(api, "create", SERVICES, service(type="LoadBalancer"))
    told = {"status": {"loadBalancer": {"ingress": [ingress]}}}
    answer = send(api, "patch", f"{SERVICES}/web/status", told, MERGE)
    assert answer["code"] == 422
    assert f"status.loadBalancer.ingress[0].{field}: {words}: " in answer["message"]


def test_the_address_of_a_node_must_be_one(api):
    send(api, "create", NODES, node())
    told = {"status": {"addresses": [{"type": "InternalIP", "address": "n1"}]}}
    answer = send(api, "patch", f"{NODES}/n1/status", told, MERGE)
    assert "status.addresses[0].address: Invalid value: " in answer["message"]


@pytest.mark.parametrize(
    ("field", "value"), [("loadBalancerClass", "b/c"), ("healthCheckNodePort", 30001)]
)
def test_what_a_load_balancer_relies_on_stays(api, field, value):
    balanced = {
        "type": "LoadBalancer",
        "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 30000,
        "loadBalancerClass": "a/b",
    }
    send(api, "create", SERVICES, service(**balanced))
    answer = send(api, "patch", f"{SERVICES}/web", {"spec": {field: value}}, MERGE)
    assert answer["code"] == 422
    assert f"spec.{field}: Invalid value: field is immutable" in answer["message"]
    other = {"spec": {"type": "ClusterIP", "externalTrafficPolicy": None}}
    changed = send(api, "patch", f"{SERVICES}/web", other, MERGE)["spec"]
    assert changed["type"] == "ClusterIP"
    assert field not in changed


def test_networks_of_services_stay(api):
    path = "/apis/networking.k8s.io/v1/servicecidrs"
    made = {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.0.0.0/24"]}}
    assert send(api, "create", path, made)["spec"] == made["spec"]
    patch = {"spec": {"cidrs": ["10.0.1.0/24"]}}
    answer = send(api, "patch", f"{path}/more", patch, MERGE)
    assert "spec.cidrs: Invalid value: field is immutable" in answer["message"]


def test_affinity_that_is_switched_off_leaves_no_settings(api):
    made = send(api, "create", SERVICES, service(sessionAffinity="ClientIP"))
    assert made["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"] == 10800
    patch = {"spec": {"sessionAffinity": "None"}}
    assert (
        "sessionAffinityConfig" not in send(api, "patch", f"{SERVICES}/web", patch, MERGE)["spec"]
    )


def test_what_older_rules_allowed_can_be_changed_and_mended(api):
    """A store may hold it: it must not keep a finalizer from being taken out."""
    send(api, "create", NODES, node())
    taint = {"key": "a", "effect": "Never"}
    api.store.update("nodes", ("", "n1"), lambda old: {**old, "spec": {"taints": [taint]}})
    path = f"{NODES}/n1"
    labels = {"metadata": {"labels": {"a": "b"}}}
    assert send(api, "patch", path, labels, MERGE)["metadata"]["labels"] == {"a": "b"}
    more = {"spec": {"taints": [taint, {"key": "b", "effect": "Never"}]}}
    answer = send(api, "patch", path, more, MERGE)
    assert [one["field"] for one in answer["details"]["causes"]] == ["spec.taints[1].effect"]


@pytest.mark.parametrize(
    "part", [{"securityContext": "none"}, {"volumes": ["data"]}, {"hostAliases": 7}]
)
def test_types_that_older_rules_allowed_keep_nobody_from_other_changes(api, part):
    send(api, "create", PODS, pod())
    api.store.update(
        "pods", ("default", "a"), lambda old: {**old, "spec": {**old["spec"], **part}}
    )
    path = f"{PODS}/a"
    labels = {"metadata": {"labels": {"a": "b"}}}
    assert send(api, "patch", path, labels, MERGE)["metadata"]["labels"] == {"a": "b"}
    running = {"status": {"phase": "Running"}}
    assert send(api, "patch", f"{path}/status", running, MERGE)["status"]["phase"] == "Running"
    wrong = {"status": {"hostIPs": 5}}
    answer = send(api, "patch", f"{path}/status", wrong, MERGE)
    assert (answer["code"], answer["reason"]) == (422, "Invalid")

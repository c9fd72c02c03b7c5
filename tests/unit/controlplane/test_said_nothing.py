"""Empty texts, and 0, where programs in Go say nothing: defaults take their place."""

import msgspec
import pytest
from local_cluster import new_api

from kproxy.controlplane import routes

CORE = "/api/v1/namespaces/default"
APPS = "/apis/apps/v1/namespaces/default"
TEMPLATE = {
    "metadata": {"labels": {"app": "a"}},
    "spec": {"containers": [{"name": "c", "image": "x"}]},
}


@pytest.fixture
def create():
    api = new_api()

    def one(path, **body):
        made = {"metadata": {"name": "a"}, **body}
        answer = api.create(routes.target(path), msgspec.json.encode(made))
        return msgspec.json.decode(answer.body)

    return one


def test_of_services(create):
    port = {"name": "", "protocol": "", "port": 80, "targetPort": 0, "nodePort": 0}
    empty = dict.fromkeys(("type", "clusterIP", "sessionAffinity", "externalTrafficPolicy"), "")
    spec = create(f"{CORE}/services", spec={**empty, "ports": [port]})["spec"]
    assert (spec["type"], spec["sessionAffinity"]) == ("ClusterIP", "None")
    assert (spec["ports"][0]["protocol"], spec["ports"][0]["targetPort"]) == ("TCP", 80)


def test_of_services_outside(create):
    spec = {"type": "NodePort", "externalTrafficPolicy": "", "ports": [{"port": 80}]}
    made = create(f"{CORE}/services", spec=spec)
    assert made["spec"]["externalTrafficPolicy"] == "Cluster"


def test_of_pods(create):
    container = {
        "name": "c",
        "image": "x:1",
        "imagePullPolicy": "",
        "terminationMessagePolicy": "",
        "ports": [{"containerPort": 80, "protocol": "", "hostPort": 0}],
    }
    spec = {"restartPolicy": "", "dnsPolicy": "", "containers": [container]}
    made = create(f"{CORE}/pods", spec=spec)["spec"]
    assert (made["restartPolicy"], made["dnsPolicy"]) == ("Always", "ClusterFirst")
    (found,) = made["containers"]
    assert found["imagePullPolicy"] == "IfNotPresent"
    assert found["terminationMessagePolicy"] == "File"
    assert found["ports"][0]["protocol"] == "TCP"


def test_of_probes(create):
    names = ("timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")
    probe = {"httpGet": {"port": 80, "path": "", "scheme": ""}, **dict.fromkeys(names, 0)}
    container = {"name": "c", "image": "x", "readinessProbe": probe}
    made = create(f"{CORE}/pods", spec={"containers": [container]})
    found = made["spec"]["containers"][0]["readinessProbe"]
    assert [found[name] for name in names] == [1, 10, 1, 3]
    assert found["httpGet"] == {"port": 80, "path": "/", "scheme": "HTTP"}


def test_of_workloads(create):
    spec = {"selector": {"matchLabels": {"app": "a"}}, "template": TEMPLATE}
    made = create(f"{APPS}/deployments", spec={**spec, "strategy": {"type": ""}})
    assert made["spec"]["strategy"]["type"] == "RollingUpdate"
    made = create(f"{APPS}/statefulsets", spec={**spec, "podManagementPolicy": ""})
    assert made["spec"]["podManagementPolicy"] == "OrderedReady"


def test_zero_is_said_where_it_means_something(create):
    spec = {"selector": {"matchLabels": {"app": "a"}}, "template": TEMPLATE, "replicas": 0}
    assert create(f"{APPS}/deployments", spec=spec)["spec"]["replicas"] == 0


@pytest.mark.parametrize("said", [{}, {"protocol": ""}])
def test_of_endpoints(create, said):
    subset = {"addresses": [{"ip": "10.1.1.1"}], "ports": [{"port": 80, **said}]}
    made = create(f"{CORE}/endpoints", subsets=[subset])
    assert made["subsets"][0]["ports"] == [{"port": 80, "protocol": "TCP"}]


def test_lines_of_base64_and_a_name_with_a_dot_at_its_end_are_right(create):
    create(f"{CORE}/secrets", data={"ca.crt": "YWJj\r\nZGVm\n"})
    slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    create(slices, addressType="FQDN", endpoints=[{"addresses": ["shop.example."]}])

"""Updates: what a new type of a Service drops, what cannot change, null; policies of deletions."""

import msgspec
import pytest
from local_cluster import new_api

from kproxy import errors
from kproxy.controlplane import routes, status
from kproxy.controlplane.requests import Options

DEFAULT = "/api/v1/namespaces/default"
APPS = "/apis/apps/v1/namespaces/default"


class Client:
    """Speaks to an API in this process; answers are objects, refusals (code, message)."""

    def __init__(self):
        self.api = new_api()

    def send(self, call, path, body, *more):
        try:
            answer = call(routes.target(path), *more, msgspec.json.encode(body), *self.options)
        except (errors.KproxyError, ExceptionGroup) as error:
            told = status.failure(error)
            return told["code"], told["message"]
        return msgspec.json.decode(answer.body)

    options = (Options(content_type="application/merge-patch+json"),)

    def post(self, path, body):
        return self.send(self.api.create, path, body)

    def patch(self, path, body):
        return self.send(self.api.patch, path, body)

    def delete(self, path, policy=None):
        body = {"propagationPolicy": policy} if policy else {}
        return self.send(self.api.delete, path, body, {})

    def get(self, path):
        target = routes.target(path)
        answer = self.api.get(target) if target.name else self.api.list(target, {})
        return msgspec.json.decode(answer.body)

    def is_there(self, path):
        target = routes.target(path)
        return self.api.store.exists(target.kind.plural, target.key)

    def addresses(self):
        items = self.get("/apis/networking.k8s.io/v1/ipaddresses")["items"]
        return [item["metadata"]["name"] for item in items]


@pytest.fixture
def client():
    return Client()


class TestTypesOfServices:
    PATH = f"{DEFAULT}/services/web"

    @pytest.fixture(params=["ClusterIP", "NodePort", "LoadBalancer"])
    def service(self, request, client):
        spec = {"type": request.param, "ports": [{"port": 80}]}
        return client.post(f"{DEFAULT}/services", {"metadata": {"name": "web"}, "spec": spec})

    def test_an_external_name_gives_its_address_back(self, client, service):
        assert client.addresses() == [service["spec"]["clusterIP"]]
        spec = {"type": "ExternalName", "externalName": "db.example"}
        changed = client.patch(self.PATH, {"spec": spec})["spec"]
        unwanted = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")
        assert not changed.keys() & {*unwanted, "externalTrafficPolicy"}
        assert not any("nodePort" in port for port in changed["ports"])
        assert client.addresses() == []
        spec = {"type": "ClusterIP", "externalName": None}
        again = client.patch(self.PATH, {"spec": spec})["spec"]
        assert client.addresses() == [again["clusterIP"]]

    def test_an_address_that_the_client_sets_is_not_dropped(self, client, service):
        spec = {"type": "ExternalName", "externalName": "x.y", "clusterIP": "10.96.0.7"}
        code, message = client.patch(self.PATH, {"spec": spec})
        assert (code, "spec.clusterIP" in message) == (422, True)
        assert client.addresses() == [service["spec"]["clusterIP"]]

    def test_back_to_a_cluster_ip(self, client, service):
        changed = client.patch(self.PATH, {"spec": {"type": "ClusterIP"}})["spec"]
        assert "externalTrafficPolicy" not in changed
        assert changed["clusterIP"] == service["spec"]["clusterIP"]

    def test_fields_of_load_balancers(self, client):
        spec = {
            "type": "LoadBalancer",
            "allocateLoadBalancerNodePorts": False,
            "loadBalancerClass": "x/y",
            "ports": [{"port": 80}],
        }
        client.post(f"{DEFAULT}/services", {"metadata": {"name": "web"}, "spec": spec})
        changed = client.patch(self.PATH, {"spec": {"type": "NodePort"}})["spec"]
        assert not changed.keys() & {"allocateLoadBalancerNodePorts", "loadBalancerClass"}
        assert changed["externalTrafficPolicy"] == "Cluster"


class TestNull:
    def test_null_is_what_is_not_there(self, client):
        container = {"name": "c", "image": "x:1", "imagePullPolicy": None, "resources": None}
        pod = {"nodeSelector": None, "volumes": [{"name": "v", "emptyDir": None}]}
        spec = {
            "replicas": None,
            "strategy": None,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"creationTimestamp": None, "labels": {"a": "b"}},
                "spec": {**pod, "containers": [container]},
            },
        }
        made = client.post(f"{APPS}/deployments", {"metadata": {"name": "d"}, "spec": spec})
        assert made["spec"]["replicas"] == 1
        assert made["spec"]["strategy"]["type"] == "RollingUpdate"
        assert made["spec"]["template"]["metadata"] == {"labels": {"a": "b"}}
        inner = made["spec"]["template"]["spec"]
        assert inner["containers"][0]["imagePullPolicy"] == "IfNotPresent"
        assert "nodeSelector" not in inner
        assert inner["volumes"] == [{"name": "v"}]

    def test_in_a_map_of_texts_it_is_empty(self, client):
        body = {"metadata": {"name": "c", "labels": None}, "data": {"a": None, "b": "x"}}
        made = client.post(f"{DEFAULT}/configmaps", body)
        assert made["data"] == {"a": "", "b": "x"}
        assert "labels" not in made["metadata"]

    def test_in_a_revision_it_is_kept(self, client):
        body = {"metadata": {"name": "r"}, "revision": 1, "data": {"spec": {"x": None}}}
        made = client.post(f"{APPS}/controllerrevisions", body)
        assert made["data"] == {"spec": {"x": None}}

    def test_what_is_nested_too_deeply_is_400(self, client):
        deep = {}
        for _ in range(900):
            deep = {"a": deep}
        spec = {"containers": [{"name": "c", "image": "i"}], "volumes": [deep]}
        code, message = client.post(f"{DEFAULT}/pods", {"metadata": {"name": "p"}, "spec": spec})
        assert (code, message) == (400, "the body is nested too deeply")


class TestPods:
    PATH = f"{DEFAULT}/pods/p"

    @pytest.fixture
    def pod(self, client):
        bears = [{"key": "a", "operator": "Exists", "effect": "NoExecute"}]
        spec = {"containers": [{"name": "c", "image": "i"}], "tolerations": bears}
        return client.post(f"{DEFAULT}/pods", {"metadata": {"name": "p"}, "spec": spec})

    def test_tolerations_are_only_added(self, client, pod):
        bears = pod["spec"]["tolerations"]
        more = [*bears, {"key": "b", "operator": "Exists"}]
        assert (
            client.patch(self.PATH, {"spec": {"tolerations": more}})["spec"]["tolerations"] == more
        )
        assert client.patch(self.PATH, {"spec": {"tolerations": bears}})[0] == 422

    def test_for_how_long_a_taint_is_borne_may_change(self, client, pod):
        bears = [{**one, "tolerationSeconds": 7} for one in pod["spec"]["tolerations"]]
        changed = client.patch(self.PATH, {"spec": {"tolerations": bears}})
        assert changed["spec"]["tolerations"] == bears

    def test_the_grace_period_stays(self, client, pod):
        changed = {"spec": {"terminationGracePeriodSeconds": 1}}
        assert client.patch(self.PATH, changed)[0] == 422


class TestDeletion:
    PATH = f"{DEFAULT}/configmaps/c"

    @pytest.fixture(autouse=True)
    def waits_for_dependents(self, client):
        client.post(f"{DEFAULT}/configmaps", {"metadata": {"name": "c"}})
        client.delete(self.PATH, "Foreground")

    def test_without_a_policy_it_goes_on_to_wait(self, client):
        answer = client.delete(self.PATH)
        assert answer["metadata"]["finalizers"] == ["foregroundDeletion"]
        assert client.is_there(self.PATH)

    def test_a_collection_without_a_policy_goes_on_to_wait(self, client):
        client.delete(f"{DEFAULT}/configmaps")
        assert client.is_there(self.PATH)

    def test_in_the_background_it_waits_no_more(self, client):
        assert client.delete(self.PATH, "Background")["status"] == "Success"
        assert not client.is_there(self.PATH)

    def test_the_policy_may_change(self, client):
        answer = client.delete(self.PATH, "Orphan")
        assert answer["metadata"]["finalizers"] == ["orphan"]

    def test_no_finalizer_is_added_any_more(self, client):
        more = {"metadata": {"finalizers": ["foregroundDeletion", "x/y"]}}
        code, message = client.patch(self.PATH, more)
        assert (code, "metadata.finalizers: Forbidden: no new finalizers" in message) == (
            422,
            True,
        )

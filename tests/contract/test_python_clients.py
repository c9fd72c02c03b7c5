"""The API as Python's clients see it: the official one, lightkube and kr8s."""

import asyncio
import gc
import threading

import api_process
import pytest

kubernetes = pytest.importorskip("kubernetes")
lightkube = pytest.importorskip("lightkube")
kr8s = pytest.importorskip("kr8s")

LABELS = {"app": "web"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with api_process.running(tmp_path_factory.mktemp("api")) as made:
        yield made


def deployment(name):
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default", "labels": LABELS},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": LABELS},
            "template": {
                "metadata": {"labels": LABELS},
                "spec": {"containers": [{"name": "c", "image": "x"}]},
            },
        },
    }


class TestOfficial:
    @pytest.fixture
    def client(self, server):
        made = kubernetes.config.new_client_from_config(str(server.admin))
        with made:
            yield made

    def test_objects_are_typed(self, client):
        api = kubernetes.client.AppsV1Api(client)
        made = api.create_namespaced_deployment("default", deployment("official"))
        assert made.spec.replicas == 1
        made.spec.replicas = 3
        assert api.replace_namespaced_deployment("official", "default", made).spec.replicas == 3
        patched = api.patch_namespaced_deployment("official", "default", {"spec": {"replicas": 2}})
        assert patched.spec.replicas == 2
        scale = api.read_namespaced_deployment_scale("official", "default")
        assert scale.spec.replicas == 2
        with pytest.raises(kubernetes.client.ApiException) as caught:
            api.create_namespaced_deployment("default", deployment("official"))
        assert caught.value.status == 409
        api.delete_namespaced_deployment("official", "default")
        listed = api.list_deployment_for_all_namespaces(label_selector="app in (web)")
        assert "official" not in [item.metadata.name for item in listed.items]

    def test_a_watch_sees_what_happens(self, client):
        core = kubernetes.client.CoreV1Api(client)
        version = core.list_namespaced_config_map("default").metadata.resource_version
        watch = kubernetes.watch.Watch()

        def change():
            body = {"metadata": {"name": "seen"}, "data": {"a": "1"}}
            core.create_namespaced_config_map("default", body)
            core.patch_namespaced_config_map("seen", "default", {"data": {"a": "2"}})
            core.delete_namespaced_config_map("seen", "default")

        thread = threading.Thread(target=change)
        thread.start()
        seen = []
        stream = watch.stream(
            core.list_namespaced_config_map,
            "default",
            resource_version=version,
            timeout_seconds=30,
        )
        for event in stream:
            seen.append((event["type"], event["object"].data))
            if event["type"] == "DELETED":
                watch.stop()
        thread.join()
        assert seen == [
            ("ADDED", {"a": "1"}),
            ("MODIFIED", {"a": "2"}),
            ("DELETED", {"a": "2"}),
        ]

    def test_a_watch_ends_when_its_time_is_over(self, client):
        core = kubernetes.client.CoreV1Api(client)
        watch = kubernetes.watch.Watch()
        names = [
            event["object"].metadata.name
            for event in watch.stream(core.list_namespace, timeout_seconds=1)
        ]
        assert "kube-system" in names

    def test_a_version_that_is_no_longer_known(self, client):
        core = kubernetes.client.CoreV1Api(client)
        watch = kubernetes.watch.Watch()
        with pytest.raises(kubernetes.client.ApiException) as caught:
            next(watch.stream(core.list_pod_for_all_namespaces, resource_version="999999999"))
        assert caught.value.status == 410

    def test_pages(self, client):
        core = kubernetes.client.CoreV1Api(client)
        page = core.list_namespace(limit=3)
        names = [item.metadata.name for item in page.items]
        assert len(names) == 3
        page = core.list_namespace(limit=3, _continue=page.metadata._continue)
        names += [item.metadata.name for item in page.items]
        assert sorted(names) == sorted(set(names))
        assert {"default", "kube-system"} <= set(names)

    def test_the_dynamic_client_applies(self, client):
        dynamic = kubernetes.dynamic.DynamicClient(client)
        resource = dynamic.resources.get(api_version="apps/v1", kind="Deployment")
        body = deployment("dynamic")
        made = resource.server_side_apply(body, namespace="default", field_manager="test")
        assert made.metadata.managedFields[0].manager == "test"
        resource.delete("dynamic", namespace="default")

    def test_who_am_i(self, client):
        api = kubernetes.client.AuthenticationV1Api(client)
        review = api.create_self_subject_review({})
        assert review.status.user_info.username == "kubernetes-admin"


class TestLightkube:
    def test_the_basics(self, server):
        from lightkube.models.core_v1 import ServicePort, ServiceSpec
        from lightkube.models.meta_v1 import ObjectMeta
        from lightkube.resources.core_v1 import Service
        from lightkube.types import PatchType

        config = lightkube.KubeConfig.from_file(str(server.admin))
        client = lightkube.Client(config=config, namespace="default", field_manager="test")
        service = Service(
            metadata=ObjectMeta(name="light", labels=LABELS),
            spec=ServiceSpec(ports=[ServicePort(port=80)], selector=LABELS),
        )
        made = client.create(service)
        assert made.spec.clusterIP.startswith("10.96.")
        patch = {"metadata": {"labels": {"more": "x"}}}
        patched = client.patch(Service, "light", patch, patch_type=PatchType.STRATEGIC)
        assert patched.metadata.labels == {**LABELS, "more": "x"}
        applied = Service(
            apiVersion="v1",
            kind="Service",
            metadata=ObjectMeta(name="light", labels={"applied": "yes"}),
            spec=ServiceSpec(ports=[ServicePort(port=80, protocol="TCP")]),
        )
        assert client.apply(applied, force=True).metadata.labels["applied"] == "yes"
        names = [item.metadata.name for item in client.list(Service, labels={"app": "web"})]
        assert names == ["light"]
        kind, seen = next(iter(client.watch(Service, fields={"metadata.name": "light"})))
        assert (kind, seen.metadata.name) == ("ADDED", "light")
        client.delete(Service, "light")
        with pytest.raises(lightkube.ApiError) as caught:
            client.get(Service, "light")
        assert caught.value.status.code == 404


class TestKr8s:
    # It has no way to close its connections, and leaves those of a watch open.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    @pytest.mark.filterwarnings("ignore::ResourceWarning")
    def test_the_basics(self, server):
        asyncio.run(self.basics(str(server.admin)))
        gc.collect()

    async def basics(self, kubeconfig):
        from kr8s.asyncio.objects import ConfigMap, Deployment

        api = await kr8s.asyncio.api(kubeconfig=kubeconfig)
        made = await Deployment(deployment("kr8s"), api=api)
        await made.create()
        await made.scale(4)
        await made.refresh()
        assert made.replicas == 4
        await made.label({"more": "x"})
        names = [
            item.name async for item in api.get("deployments", namespace="default",
                                                label_selector={"more": "x"})
        ]  # fmt: skip
        assert names == ["kr8s"]
        settings = await ConfigMap(
            {"metadata": {"name": "kr8s", "namespace": "default"}, "data": {"a": "1"}}, api=api
        )
        await settings.create()
        await settings.patch({"data": {"a": "2"}})
        assert settings.data["a"] == "2"
        async for kind, obj in api.watch("configmaps", namespace="default"):
            if obj.name == "kr8s":
                assert kind == "ADDED"
                break
        await settings.delete()
        await made.delete()
        assert not await settings.exists()

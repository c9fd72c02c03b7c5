"""Server-side apply: who manages which field, what conflicts, what goes when it is left out."""

import msgspec
import pytest
from local_cluster import new_api

from kproxy import errors
from kproxy.api import catalog, shapes
from kproxy.controlplane import routes, status
from kproxy.controlplane.patches import fieldsets, managers
from kproxy.controlplane.requests import Options

PATH = "/apis/apps/v1/namespaces/default/deployments/web"
SHAPE = shapes.of(catalog.DEPLOYMENT)


@pytest.fixture
def api():
    return new_api()


def deployment(replicas=2, image="nginx:1", **labels):
    labels = {"app": "web", **labels}
    spec = {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": image}]},
        },
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": labels},
        "spec": spec,
    }


def apply(api, config, manager="kubectl", **options):
    made = Options(content_type="application/apply-patch+yaml", manager=manager, **options)
    answer = api.patch(routes.target(PATH), msgspec.json.encode(config), made)
    return answer.code, msgspec.json.decode(answer.body)


def patch(api, change, manager="kubectl-edit"):
    made = Options(content_type="application/merge-patch+json", manager=manager)
    return msgspec.json.decode(
        api.patch(routes.target(PATH), msgspec.json.encode(change), made).body
    )


def test_an_apply_creates_then_changes(api):
    code, made = apply(api, deployment())
    assert code == 201
    (entry,) = made["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == ("kubectl", "Apply")
    assert entry["fieldsV1"]["f:spec"]["f:replicas"] == {}
    containers = entry["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"]
    assert containers == {'k:{"name":"c"}': {".": {}, "f:image": {}, "f:name": {}}}
    code, made = apply(api, deployment(image="nginx:2"))
    assert code == 200
    assert made["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx:2"


def test_applying_the_same_again_writes_nothing(api):
    _, first = apply(api, deployment())
    _, second = apply(api, deployment())
    assert second == first


def test_a_field_that_another_manager_has_set_conflicts(api):
    apply(api, deployment())
    patch(api, {"spec": {"replicas": 5}}, manager="kubectl-scale")
    with pytest.raises(managers.ApplyConflict) as caught:
        apply(api, deployment(replicas=3))
    answer = status.failure(caught.value)
    assert (answer["code"], answer["reason"]) == (409, "Conflict")
    (cause,) = answer["details"]["causes"]
    assert cause == {
        "reason": "FieldManagerConflict",
        "message": 'conflict with "kubectl-scale" using apps/v1',
        "field": ".spec.replicas",
    }
    code, made = apply(api, deployment(replicas=3), force=True)
    assert (code, made["spec"]["replicas"]) == (200, 3)
    owners = {m.name for m in managers.read(made) if ("f:spec", "f:replicas") in m.paths}
    assert owners == {"kubectl"}


def test_the_same_value_is_shared_not_fought_over(api):
    apply(api, deployment())
    code, made = apply(api, deployment(replicas=2), manager="other")
    assert code == 200
    owners = {m.name for m in managers.read(made) if ("f:spec", "f:replicas") in m.paths}
    assert owners == {"kubectl", "other"}


def test_what_is_left_out_goes_unless_somebody_else_has_it(api):
    apply(api, deployment(tier="front", zone="a"))
    apply(api, deployment(zone="a"), manager="other")
    _, made = apply(api, deployment())
    assert made["metadata"]["labels"] == {"app": "web", "zone": "a"}


def test_an_item_of_a_list_goes_when_it_is_left_out(api):
    config = deployment()
    containers = config["spec"]["template"]["spec"]["containers"]
    containers.append({"name": "side", "image": "x:1"})
    apply(api, config)
    containers.pop()
    _, made = apply(api, config)
    names = [c["name"] for c in made["spec"]["template"]["spec"]["containers"]]
    assert names == ["c"]


def probed(**probe):
    config = deployment()
    if probe:
        config["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = probe
    return config


def container(made):
    return made["spec"]["template"]["spec"]["containers"][0]


def test_what_the_server_filled_in_goes_with_what_it_was_filled_into(api):
    web = {"port": 80}
    _, made = apply(api, probed(httpGet=web, periodSeconds=5))
    assert container(made)["readinessProbe"]["httpGet"]["scheme"] == "HTTP"
    _, made = apply(api, probed(tcpSocket=web))
    defaults = {"failureThreshold": 3, "successThreshold": 1, "timeoutSeconds": 1}
    known = {**defaults, "tcpSocket": web, "periodSeconds": 10}
    assert container(made)["readinessProbe"] == known
    _, made = apply(api, probed())
    assert "readinessProbe" not in container(made)
    assert container(made)["imagePullPolicy"] == "IfNotPresent"


def test_a_part_that_another_manager_holds_keeps_the_rest_of_it(api):
    apply(api, probed(httpGet={"port": 80}))
    apply(api, probed(httpGet={"port": 80}), manager="other")
    _, made = apply(api, probed())
    assert container(made)["readinessProbe"]["httpGet"]["port"] == 80
    _, made = apply(api, probed(), manager="other")
    assert "readinessProbe" not in container(made)


def test_who_leaves_out_all_labels_takes_nothing_else_of_the_metadata_along(api):
    apply(api, deployment(tier="front"))
    config = deployment()
    del config["metadata"]["labels"]
    code, made = apply(api, config)
    assert code == 200
    assert "labels" not in made["metadata"]
    assert made["metadata"]["name"] == "web"


def test_an_empty_map_that_is_filled_is_not_taken_out(api):
    config = deployment()
    one = container(config)
    one["resources"] = {}
    apply(api, config)
    one["resources"] = {"limits": {"cpu": "1"}}
    _, made = apply(api, config)
    assert container(made)["resources"] == {"limits": {"cpu": "1"}}


def test_what_was_there_before_any_apply_is_somebodys(api):
    target = routes.target(PATH.rpartition("/")[0])
    api.create(target, msgspec.json.encode(deployment()))
    with pytest.raises(managers.ApplyConflict) as caught:
        apply(api, deployment(replicas=7))
    assert "before-first-apply" in str(caught.value)


def test_an_apply_without_a_manager_is_refused(api):
    with pytest.raises(errors.ApiError) as caught:
        apply(api, deployment(), manager="")
    assert caught.value.code == 400


def test_a_dry_run_changes_nothing(api):
    code, made = apply(api, deployment(), dry_run=True)
    assert code == 201
    assert made["spec"]["replicas"] == 2
    with pytest.raises(errors.ApiError):
        api.get(routes.target(PATH))


def test_only_who_names_himself_is_noted(api):
    target = routes.target(PATH.rpartition("/")[0])
    api.create(target, msgspec.json.encode(deployment()))
    made = api.merge_patch(routes.target(PATH), b'{"spec":{"replicas":3}}')
    assert b"managedFields" not in made.body
    noted = patch(api, {"spec": {"replicas": 4}})
    assert [m.name for m in managers.read(noted)] == ["kubectl-edit"]


def test_a_controller_that_overwrites_a_field_takes_it_away(api):
    apply(api, deployment())
    made = msgspec.json.decode(
        api.merge_patch(routes.target(PATH), b'{"spec":{"replicas":9}}').body
    )
    noted = managers.read(made)
    assert noted
    assert all(("f:spec", "f:replicas") not in m.paths for m in noted)


def test_clients_may_hand_fields_over_themselves(api):
    _, made = apply(api, deployment())
    (entry,) = made["metadata"]["managedFields"]
    change = {"metadata": {"managedFields": [{**entry, "manager": "heir"}]}}
    made = patch(api, change, manager="")
    assert [m.name for m in managers.read(made)] == ["heir"]


def test_field_sets_are_written_and_read_alike():
    obj = deployment()
    obj["metadata"]["finalizers"] = ["a/b"]
    obj["spec"]["template"]["spec"]["containers"][0]["ports"] = [{"containerPort": 80}]
    paths = set(fieldsets.leaves(obj, SHAPE))
    assert fieldsets.decode(fieldsets.encode(paths)) == paths
    told = {fieldsets.told(path) for path in paths}
    assert '.metadata.finalizers[="a/b"]' in told
    port = '.spec.template.spec.containers[name="c"].ports[containerPort=80,protocol="TCP"]'
    assert f"{port}.containerPort" in told

"""Init containers, restart policies, images, what kubectl shows; on the test's clock."""

import pytest
from kubelet_node import is_ready
from pod_parts import BAD, conditions, container, node, shown, started

from kproxy.api.pods import Container
from kproxy.controlplane.images import Images

__all__ = ["node"]


# Init containers.


def with_init(node, **spec):
    return node.create(
        initContainers=[container("i1"), container("i2")], containers=[container()], **spec
    )


def test_init_containers_run_in_order_before_the_others(node):
    with_init(node)
    node.turn()
    assert started(node) == ["i1"]
    assert node.status()["phase"] == "Pending"
    assert shown(node) == {"waiting": {"reason": "PodInitializing"}}
    assert shown(node, "i2", of="initContainerStatuses") == {
        "waiting": {"reason": "PodInitializing"}
    }
    assert conditions(node)["Initialized"] == "False"
    node.runtime.kill(name="i1", code=0)
    node.turn()
    assert started(node) == ["i1", "i2"]
    node.runtime.kill(name="i2", code=0)
    node.turn()
    assert started(node) == ["i1", "i2", "c"]
    assert node.status()["phase"] == "Running"
    assert set(conditions(node).values()) == {"True"}
    ended = shown(node, "i1", of="initContainerStatuses")["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("Completed", 0)
    assert shown(node, "i1", "ready", "initContainerStatuses") is True


def test_a_failed_init_container_is_tried_again_with_back_off(node):
    with_init(node)
    node.turn()
    node.runtime.kill(name="i1", code=1)
    node.turn()
    node.runtime.kill(name="i1", code=1)
    assert node.turn() == 10
    assert shown(node, "i1", of="initContainerStatuses")["waiting"]["reason"] == "CrashLoopBackOff"
    assert node.status()["phase"] == "Pending"
    assert started(node) == ["i1", "i1"]


def test_a_failed_init_container_fails_the_pod_that_is_never_restarted(node):
    with_init(node, restartPolicy="Never")
    node.turn()
    node.runtime.kill(name="i1", code=3)
    node.turn()
    assert node.status()["phase"] == "Failed"
    assert started(node) == ["i1"]


def test_a_new_kubelet_does_not_run_init_containers_again(node):
    with_init(node)
    node.turn()
    for name in ("i1", "i2"):
        node.runtime.kill(name=name, code=0)
        node.turn()
    node.boot()
    node.turn()
    assert started(node) == ["i1", "i2", "c"]
    assert node.status()["phase"] == "Running"


# How containers end and come back.


@pytest.mark.parametrize(
    ("code", "reason", "told"), [(0, "Completed", 0), (1, "Error", 1), (-15, "Error", 143)]
)
def test_how_an_end_is_shown(node, code, reason, told):
    node.create(containers=[container()], restartPolicy="Never")
    node.turn()
    node.time = 5.0
    node.runtime.kill(code=code)
    node.turn()
    ended = shown(node)["terminated"]
    assert (ended["reason"], ended["exitCode"]) == (reason, told)
    assert ended["startedAt"] == "1970-01-01T00:00:00Z"
    assert ended["finishedAt"] == "1970-01-01T00:00:05Z"
    assert ended["containerID"] == shown(node, field="containerID")


def test_a_crash_loop_as_kubectl_shows_it(node):
    uid = node.create(containers=[container()])
    node.turn()
    for _ in range(3):
        node.runtime.kill(code=1)
        node.time += node.turn() or 0
        node.turn()
    node.runtime.kill(code=1)
    node.turn()
    waiting = shown(node)["waiting"]
    assert waiting == {
        "reason": "CrashLoopBackOff",
        "message": f"back-off 40s restarting failed container=c pod=a_default({uid})",
    }
    assert shown(node, field="lastState")["terminated"]["exitCode"] == 1
    assert node.restarts() == 3
    assert node.status()["phase"] == "Running"
    assert conditions(node)["Ready"] == "False"
    assert any(reason == "BackOff" for reason, _ in node.pod_events())


def test_one_container_of_two_that_ended_well_does_not_end_the_pod(node):
    node.create(containers=[container("a"), container("b")], restartPolicy="OnFailure")
    node.turn()
    node.runtime.kill(name="a", code=0)
    node.turn()
    assert node.status()["phase"] == "Running"
    assert not is_ready(node.status())
    node.runtime.kill(name="b", code=0)
    node.turn()
    assert node.status()["phase"] == "Succeeded"
    assert conditions(node)["PodReadyToStartContainers"] == "False"
    reasons = {one["type"]: one.get("reason") for one in node.status()["conditions"]}
    assert reasons["Ready"] == "PodCompleted"


def test_conditions_keep_the_time_of_their_last_change(node):
    node.create(containers=[container()])
    node.turn()
    node.time = 7.0
    node.runtime.kill()
    node.turn()
    node.runtime.kill()
    node.turn()
    times = {one["type"]: one["lastTransitionTime"][-3:-1] for one in node.status()["conditions"]}
    assert times["Ready"] == times["ContainersReady"] == "07"
    assert times["Initialized"] == times["PodReadyToStartContainers"] == "00"


def test_what_ended_while_there_was_no_kubelet_is_unknown(node):
    node.create(containers=[container()], restartPolicy="Never")
    node.turn()
    node.runtime.kill(code=0)
    node.runtime.exits()
    node.boot()
    node.turn()
    assert node.status()["phase"] == "Failed"
    ended = shown(node)["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("ContainerStatusUnknown", 137)


def test_back_off_begins_anew_with_a_new_kubelet(node):
    node.create(containers=[container()])
    node.turn()
    for _ in range(4):
        node.runtime.kill(code=1)
        node.time += node.turn() or 0
        node.turn()
    node.boot()
    node.runtime.kill(code=1)
    node.turn()
    assert len(node.runtime.running()) == 1
    assert node.restarts() == 5


def test_a_grace_period_for_ever_ends_no_kubelet(node, monkeypatch):
    """The loop's poll takes a C int of milliseconds only: the node would be lost for all pods."""
    node.runtime.stubborn = True
    node.create(terminationGracePeriodSeconds=2**63 - 1)
    node.turn()
    node.delete()
    node.turn()
    step, waits = node.kubelet.step, []

    def one_step():
        waits.append(step())
        node.kubelet.stop()  # heard of at the first wait
        return waits[-1]

    monkeypatch.setattr(node.kubelet, "step", one_step)
    node.kubelet.run()
    assert max(wait for wait in waits if wait is not None) * 1000 > 2**31
    assert node.status()["phase"] == "Running"


# Images and setting up.


def test_an_unknown_image_without_command_cannot_be_pulled(node):
    node.create(containers=[container(image="example.org/shop/cart:3.1"), container("d")])
    assert node.turn() == 1
    waiting = shown(node)["waiting"]
    assert waiting["reason"] == "ErrImagePull"
    assert '"example.org/shop/cart:3.1" is not known here' in waiting["message"]
    assert "echo" in waiting["message"]
    assert "images: {example.org/shop/cart: {command: [...]}}" in waiting["message"]
    assert started(node) == ["d"]
    node.time += 1
    assert node.turn() == 9
    assert shown(node)["waiting"]["reason"] == "ImagePullBackOff"
    assert node.status()["phase"] == "Pending"
    node.time += 9
    node.turn()
    assert shown(node)["waiting"]["reason"] == "ErrImagePull"
    node.time += 1
    assert node.turn() == 19
    assert node.restarts() == 0


def test_an_image_that_is_mapped_meanwhile_is_found(node):
    node.create(containers=[container(image="nginx")])
    node.turn()
    node.images._mapped.update(Images.parse({"nginx": {"image": "web"}})._mapped)
    node.run(11.0)
    assert node.status()["phase"] == "Running"


def test_a_command_runs_whatever_the_image_is_called(node):
    node.create(containers=[container(image="nobody/knows:1", command=["true"])])
    node.turn()
    assert node.status()["phase"] == "Running"


def test_an_env_that_cannot_be_followed_is_a_configuration_error(node):
    env = [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]
    node.create(containers=[container(env=env)])
    node.turn()
    waiting = shown(node)["waiting"]
    assert waiting["reason"] == "CreateContainerConfigError"
    assert "env A: valueFrom resourceFieldRef is not supported" in waiting["message"]


def test_a_stand_in_runs_instead_of_a_program_that_is_not_here(node):
    """Of demo shops: /app and /bin/grpc_health_probe are in their images only."""
    mapping = {"example.org/catalogue": {"image": "pause", "instead": True}}
    node.images._mapped.update(Images.parse(mapping)._mapped)
    nowhere = {"exec": {"command": ["/bin/grpc_health_probe"]}}
    theirs = {
        "command": ["/app"],
        "args": ["-port=80"],
        "readinessProbe": nowhere,
        "livenessProbe": nowhere,
        "startupProbe": nowhere,
        "lifecycle": {"postStart": nowhere, "preStop": nowhere},
    }
    node.create(containers=[container(image="example.org/catalogue:0.3.5", **theirs)])
    node.run(1.0)
    assert is_ready(node.status())
    node.delete(grace=1)
    node.run(5.0)
    assert node.performer.begun == []
    assert node.get() is None


def program(images=None, **fields):
    known = Images.parse(images or {})
    return known.program(Container(name="c", **fields))


@pytest.mark.parametrize(
    "image", ["registry.k8s.io/pause:3.9", "pause", "pause@sha256:00", "localhost:5000/x/pause"]
)
def test_names_of_built_in_images(image):
    assert program(image=image).command == ("sleep", "infinity")


def test_command_and_args_take_the_place_of_the_images_as_in_kubernetes():
    images = {"i": {"command": ["run"], "args": ["slowly"], "env": {"A": "1"}}}
    assert program(images, image="i").command == ("run", "slowly")
    assert program(images, image="i", args=["fast"]).command == ("run", "fast")
    assert program(images, image="i", command=["walk"]).command == ("walk",)
    assert program(images, image="i", command=["walk"], args=["x"]).command == ("walk", "x")
    assert program(images, image="i").env == {"A": "1"}


def test_a_stand_in_takes_no_command_and_no_arguments():
    given = Container(name="c", image="x/app:1", command=["/app"], args=["-v"])
    instead = Images.parse({"app": {"command": ["mine"], "args": ["all"], "instead": True}})
    assert instead.program(instead.container(given)).command == ("mine", "all")
    beside = Images.parse({"app": {"command": ["mine"]}})
    assert beside.container(given) == given


def test_a_mapping_may_name_tag_or_last_part_and_goes_before_built_in_images():
    images = {"busybox": {"command": ["mine"]}, "x/y:2": {"command": ["two"]}}
    assert program(images, image="docker.io/busybox:1").command == ("mine",)
    assert program(images, image="x/y:2").command == ("two",)


def test_the_echo_server_is_the_image_of_containers_without_one():
    assert program().command == ()
    assert program().listens
    assert not program(command=["x"]).listens
    assert program(image="kproxy", command=["x"]).listens


def test_a_container_whose_image_is_known_no_more_is_adopted_all_the_same(node):
    node.images._mapped.update(Images.parse({"mine": {"image": "pause"}})._mapped)
    node.create(containers=[container(image="mine")])
    node.turn()
    before = node.runtime.running()
    node.images._mapped.clear()
    node.boot()
    assert node.runtime.running() == before
    assert is_ready(node.status())


def test_a_machine_that_lacks_something_is_tried_again(node):
    original = node.runtime.run_sandbox

    def full(**_: object):
        raise OSError(28, "No space left on device")

    node.runtime.run_sandbox = full
    node.create(containers=[container()])
    node.turn()
    assert "No space left" in node.status()["message"]
    node.runtime.run_sandbox = original
    node.run(1.0)
    assert node.status()["phase"] == "Running"


def test_what_is_told_of_a_container_that_fails_its_liveness_probe(node):
    node.performer.answers = lambda action: BAD
    probe = {"tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 1}
    node.create(containers=[container(livenessProbe=probe)])
    node.run(1.5)
    assert ("Killing", "Container c failed liveness probe, will be restarted") in node.pod_events()


def test_init_containers_whose_end_was_not_reported_any_more_are_not_run_again(node):
    with_init(node)
    node.turn()
    for name in ("i1", "i2"):  # the kubelet is killed before its reports are through
        node.runtime.kill(name=name, code=0)
        node.kubelet.step()
    assert started(node) == ["i1", "i2", "c"]
    node.boot()
    node.turn()
    assert started(node) == ["i1", "i2", "c"]
    assert node.status()["phase"] == "Running"


def test_a_pod_that_is_always_restarted_runs_also_while_all_of_it_has_ended_well(node):
    node.create(containers=[container()])
    node.turn()
    for _ in range(2):
        node.runtime.kill(code=0)
        node.turn()
    assert shown(node)["waiting"]["reason"] == "CrashLoopBackOff"
    assert shown(node, field="lastState")["terminated"]["reason"] == "Completed"
    assert node.status()["phase"] == "Running"

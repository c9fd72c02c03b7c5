"""Static pods: read from files, run without asking, shown as mirrors; on the test's clock."""

import json
from pathlib import Path

import pytest
from kubelet_node import Node

from kproxy import errors
from kproxy.api import catalog, codec
from kproxy.api.pods import Pod
from kproxy.controlplane.defaults import MIRROR
from kproxy.controlplane.outbox import Report
from kproxy.controlplane.staticpods import ManifestDirectory

POD = """
apiVersion: v1
kind: Pod
metadata: {name: etcd, namespace: kube-system, labels: {tier: control}}
spec:
  terminationGracePeriodSeconds: 5
  containers: [{name: c, image: pause, command: [COMMAND]}]
"""


@pytest.fixture
def node():
    made = Node()
    yield made
    made.close()


class Files:
    """A directory of manifests, and the complaints about it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.complaints: list[str] = []
        self.directory = ManifestDirectory(path, "n1", lambda e: self.complaints.append(str(e)))

    def write(self, text: str, name: str = "etcd.yaml") -> None:
        (self.path / name).write_text(text)

    def read(self):
        return self.directory.read()


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def turn(node, files):
    node.kubelet.replace_static(files.read())
    return node.turn()


def mirror(node):
    return node.cluster.get(catalog.POD, "kube-system", "etcd-n1")


def test_a_static_pod_runs_and_is_shown(node, files):
    files.write(POD)
    turn(node, files)
    (running,) = node.runtime.running()
    shown = mirror(node)
    assert shown["metadata"]["annotations"][MIRROR] == running.uid
    assert shown["metadata"]["labels"] == {"tier": "control"}
    assert shown["spec"]["nodeName"] == "n1"
    assert shown["status"]["phase"] == "Running"
    assert shown["status"]["podIP"] == "10.244.1.2"
    turn(node, files)
    assert node.runtime.calls.count("start c") == 1


def test_a_manifest_that_was_read_from_an_api_server_is_shown_too(node, files):
    files.write(POD.replace("name: etcd,", 'name: etcd, resourceVersion: "7",'))
    turn(node, files)
    assert mirror(node)["status"]["phase"] == "Running"


def test_it_runs_without_any_api_server(node, files):
    node.kubelet.outbox._cluster = None
    files.write(POD)
    node.kubelet.replace_static(files.read())
    node.kubelet.step()
    assert len(node.runtime.running()) == 1


def test_a_mirror_that_is_deleted_is_made_again_and_the_pod_is_let_alone(node, files):
    files.write(POD)
    turn(node, files)
    before = node.runtime.running()
    node.cluster.delete(catalog.POD, "kube-system", "etcd-n1", grace=30)
    node.kubelet.mirror_changed(codec.from_dict(mirror(node), Pod), gone=True)
    turn(node, files)
    assert node.runtime.running() == before
    assert mirror(node)["status"]["phase"] == "Running"
    assert "deletionTimestamp" not in mirror(node)["metadata"]


def test_a_file_that_is_gone_ends_its_pod_with_grace(node, files):
    node.runtime.stubborn = True
    files.write(POD)
    turn(node, files)
    (files.path / "etcd.yaml").unlink()
    assert turn(node, files) == 5
    assert "signal 15" in node.runtime.calls
    assert mirror(node) is not None
    node.time += 5
    turn(node, files)
    assert node.runtime.running() == []
    assert mirror(node) is None


def test_a_changed_file_is_another_pod_which_waits_for_the_end_of_the_first(node, files):
    files.write(POD)
    turn(node, files)
    (first,) = node.runtime.running()
    node.runtime.stubborn = True
    files.write(POD.replace("COMMAND", "other"))
    turn(node, files)
    assert node.runtime.running() == [first]
    node.time += 5
    turn(node, files)
    node.time += 1
    turn(node, files)
    (second,) = node.runtime.running()
    assert second.uid != first.uid
    assert mirror(node)["metadata"]["annotations"][MIRROR] == second.uid
    assert mirror(node)["status"]["phase"] == "Running"


def test_a_new_kubelet_adopts_static_pods(node, files):
    files.write(POD)
    turn(node, files)
    before = node.runtime.running()
    node.start()
    node.kubelet.replace_static(files.read())
    node.turn()
    assert node.runtime.running() == before
    assert node.runtime.calls.count("start c") == 1


def test_a_static_pod_whose_file_went_while_there_was_no_kubelet_is_removed(node, files):
    files.write(POD)
    turn(node, files)
    (files.path / "etcd.yaml").unlink()
    node.boot()
    assert node.runtime.running() == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: Service\nmetadata: {name: x}", "must be of kind Pod"),
        ("a: [", "broken YAML"),
        ("kind: Pod\nmetadata: {name: x}\nspec: {containers: []}", "spec.containers"),
        ("kind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: c, image: 1}]}", "image"),
        ("just text", "must be an object"),
    ],
)
def test_a_bad_file_is_told_of_once_and_does_not_stop_the_others(files, text, words):
    files.write(text, "bad.yaml")
    files.write(POD)
    for _ in range(2):
        assert [one.pod.metadata.name for one in files.read()] == ["etcd-n1"]
    (complaint,) = files.complaints
    assert "bad.yaml" in complaint
    assert words in complaint


def test_files_that_are_no_manifests_are_left_out(files):
    files.write(POD, "README.md")
    files.write(POD, ".hidden.yaml")
    assert files.read() == []
    files.write(
        json.dumps(
            {"kind": "Pod", "metadata": {"name": "j"}, "spec": {"containers": [{"name": "c"}]}}
        ),
        "j.json",
    )
    assert [one.pod.metadata.name for one in files.read()] == ["j-n1"]


def test_a_directory_that_is_away_ends_nothing(files):
    missing = ManifestDirectory(files.path / "none", "n1", lambda error: None)
    with pytest.raises(errors.KproxyError, match="--pod-manifest-path"):
        missing.read()


def test_the_end_of_a_former_static_pod_does_not_take_its_successors_mirror(node, files):
    files.write(POD)
    (old,) = files.read()
    files.write(POD.replace("COMMAND", "other"))
    turn(node, files)
    meta = old.pod.metadata
    node.kubelet.outbox.put(
        Report(
            namespace=meta.namespace,
            name=meta.name,
            uid=meta.uid,
            status=None,
            mirror=old.mirror,
        )
    )
    node.kubelet.outbox.flush()
    assert mirror(node) is not None

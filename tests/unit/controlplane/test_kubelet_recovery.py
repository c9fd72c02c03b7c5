"""The kubelet after others had their say: marked pods, ends that nobody awaited, bad objects."""

import pytest
from kubelet_node import Node, is_ready

from kproxy.api import catalog, codec
from kproxy.api.pods import Pod
from kproxy.controlplane import defaults, staticpods
from kproxy.controlplane.controllers import lostnodes


@pytest.fixture
def node():
    made = Node()
    yield made
    made.close()


def mark(node: Node, name: str = "a") -> None:
    """Mark a pod as not ready, as is done where its node seems lost."""
    pod = node.get(name)
    conditions = lostnodes.not_ready(pod, "1970-01-01T00:01:00Z")
    status = {**pod["status"], "conditions": conditions}
    node.cluster.update_status(catalog.POD, {**pod, "status": status})


def test_a_pod_that_was_marked_while_its_node_seemed_lost_is_ready_again(node):
    node.create()
    node.turn()
    node.time = 60.0
    mark(node)
    assert not is_ready(node.status())
    [pod] = node.pods()
    node.kubelet.changed(pod)
    node.kubelet.step()
    node.kubelet.outbox.flush()
    assert is_ready(node.status())


def test_old_news_of_its_own_makes_no_kubelet_report_again(node):
    node.runtime.answering = False
    node.create()
    node.turn()
    [old] = node.pods()
    node.runtime.answering = True
    node.run(until=30.0)
    before = node.get()
    assert is_ready(before["status"])
    sent: list[object] = []
    node.kubelet.outbox.put = sent.append
    node.kubelet.changed(old)
    node.kubelet.step()
    assert sent == []


def static(name: str = "proxy") -> staticpods.StaticPod:
    container = {"name": "c", "image": "echo"}
    metadata = {"name": name, "namespace": "default"}
    body = {"metadata": metadata, "spec": {"nodeName": "n1", "containers": [container]}}
    pod = codec.from_dict({**body, "metadata": {**metadata, "uid": "static-1"}}, Pod)
    marks = {defaults.MIRROR: "static-1"}
    shown = {"apiVersion": "v1", "kind": "Pod", **body}
    return staticpods.StaticPod(pod, {**shown, "metadata": {**metadata, "annotations": marks}})


def test_what_ends_before_the_api_is_heard_of_is_not_taken_for_running(node):
    uid = node.create()
    node.turn()
    node.start()
    node.kubelet.replace_static([static()])  # looks at what is left, long before there is an API
    node.runtime.kill(uid)
    node.kubelet.step()
    node.turn()
    assert node.restarts() == 1
    assert [one.uid for one in node.runtime.running(uid)] == [uid]


def test_the_image_of_a_static_pod_that_was_marked_is_ready_again(node):
    node.kubelet.replace_static([static()])
    node.turn()
    assert is_ready(node.status("proxy"))
    node.time = 60.0
    mark(node, "proxy")
    [shown] = node.pods()
    node.kubelet.mirror_changed(shown, gone=False)
    node.kubelet.step()
    node.kubelet.outbox.flush()
    assert is_ready(node.status("proxy"))


def test_a_question_that_fails_unexpectedly_is_the_asker_s_trouble(node):
    def question() -> None:
        raise OSError("no such file")

    post, stepped = node.kubelet.post, []

    def deliver(action) -> None:
        post(action)
        node.kubelet.step()
        stepped.append("went on")

    node.kubelet.post = deliver
    with pytest.raises(OSError, match="no such file"):
        node.kubelet.ask(question)
    assert stepped == ["went on"]

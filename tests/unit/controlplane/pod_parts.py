"""A node whose kubelet has the test's clock, and what kubectl shows of its pods."""

import pytest
from kubelet_node import Node

from kproxy.controlplane.probesockets import Outcome

GOOD, BAD = Outcome(success=True), Outcome(success=False, message="exit code 1: oh no")


@pytest.fixture
def node():
    made = Node()
    yield made
    made.close()


def container(name="c", **fields):
    return {"name": name, "image": "pause", **fields}


def started(node):
    return [call.removeprefix("start ") for call in node.runtime.calls if call.startswith("start")]


def conditions(node):
    return {one["type"]: one["status"] for one in node.status()["conditions"]}


def shown(node, name="c", field="state", of="containerStatuses"):
    (found,) = [one for one in node.status()[of] if one["name"] == name]
    return found[field]

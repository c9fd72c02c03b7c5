"""Variables of ConfigMaps and Secrets: asked for by a thread, waited for by one container."""

import threading

import pytest
from kubelet_node import Node

from kproxy import errors
from kproxy.api import catalog
from kproxy.controlplane import podaccess
from kproxy.controlplane.envsources import FORGOTTEN_SECONDS, FRESH_SECONDS, EnvSources, NotYet

SECRET = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "s", "namespace": "default"},
    "data": {"K": "c2VjcmV0"},
}


class World:
    """What an API server has, and a clock."""

    def __init__(self) -> None:
        self.time = 0.0
        self.there = {("Secret", "default", "s"): SECRET}
        self.asked = 0
        self.woken = 0
        self.away = False
        self.sources = EnvSources(self.ask, wake=self.wake, now=lambda: self.time)

    def ask(self, kind, namespace, name):
        self.asked += 1
        if self.away:
            raise errors.KproxyError("the API is away")
        return self.there.get((kind.name, namespace, name))

    def wake(self) -> None:
        self.woken += 1

    def secret(self):
        return self.sources.look_up("secret", "default", "s")


@pytest.fixture
def world():
    return World()


def test_an_answer_is_good_for_the_start_that_asked_and_not_for_later_ones(world):
    for _ in range(2):
        with pytest.raises(NotYet):
            world.secret()
    assert world.sources.fetch() is None
    assert (world.secret(), world.asked, world.woken) == ({"K": "secret"}, 1, 1)
    world.time += FRESH_SECONDS + 1
    with pytest.raises(NotYet):
        world.secret()
    world.there.clear()
    world.sources.fetch()
    assert world.secret() is None


def test_while_the_api_is_away_it_is_asked_again_ever_more_slowly(world):
    world.away = True
    with pytest.raises(NotYet):
        world.secret()
    waits = [world.sources.fetch() for _ in range(8)]
    assert waits == sorted(waits)
    assert waits[0] < waits[-1] == 2.0
    with pytest.raises(NotYet, match="the API is away"):
        world.secret()
    world.away = False
    assert world.sources.fetch() is None
    assert world.secret() == {"K": "secret"}


def test_what_is_refused_is_asked_for_only_as_long_as_somebody_wants_it(world):
    world.away = True
    with pytest.raises(NotYet):
        world.secret()
    for _ in range(2):
        world.time += FORGOTTEN_SECONDS
        assert world.sources.fetch() is not None
        with pytest.raises(NotYet, match="the API is away"):
            world.secret()
    world.time += FORGOTTEN_SECONDS + 1
    assert world.sources.fetch() is None
    assert world.asked == 2


def test_the_thread_asks_at_once_and_ends(world):
    answered = threading.Event()
    sources = EnvSources(world.ask, wake=answered.set)
    thread = threading.Thread(target=sources.run)
    thread.start()
    with pytest.raises(NotYet):
        sources.look_up("secret", "default", "s")
    assert answered.wait(60)
    assert sources.look_up("secret", "default", "s") == {"K": "secret"}
    sources.stop()
    thread.join(60)
    assert not thread.is_alive()


@pytest.fixture
def node():
    made = Node()
    made.sources = EnvSources(made.cluster.get, wake=lambda: None, now=lambda: made.time)
    made.start()
    yield made
    made.close()


def create(node, name="s"):
    variable = {"name": "V", "valueFrom": {"secretKeyRef": {"name": name, "key": "K"}}}
    node.create(containers=[{"name": "c", "image": "pause", "env": [variable]}])
    node.turn()


def waiting(node):
    return node.status()["containerStatuses"][0]["state"]["waiting"]


def test_a_container_starts_when_its_values_are_known(node, monkeypatch):
    specs, start = [], node.runtime.start
    monkeypatch.setattr(
        node.runtime, "start", lambda place, spec: specs.append(spec) or start(place, spec)
    )
    node.cluster.create(catalog.SECRET, SECRET)
    create(node)
    assert waiting(node)["reason"] == "ContainerCreating"
    assert specs == []
    node.sources.fetch()
    node.turn()
    assert node.status()["phase"] == "Running"
    assert dict(specs[-1].env)["V"] == "secret"


def run_with_secret(node):
    node.cluster.create(catalog.SECRET, SECRET)
    create(node)
    node.sources.fetch()
    node.turn()
    assert node.status()["phase"] == "Running"


def exec_variables(node):
    """Return the variables of a program that is started beside the container."""
    running = podaccess.running(node.kubelet.workers, "default", "a", "c")
    return {name: value for name, value in running.spec.env if name in ("V", "POD_UID")}


def test_what_is_started_beside_a_container_has_its_values_however_old(node):
    run_with_secret(node)
    uid = node.get()["metadata"]["uid"]
    node.time += 10 * FRESH_SECONDS
    node.cluster.delete(catalog.SECRET, "default", "s")
    assert exec_variables(node) == {"V": "secret", "POD_UID": uid}


def test_of_an_adopted_container_the_values_are_asked_for_again(node):
    run_with_secret(node)
    uid = node.get()["metadata"]["uid"]
    node.sources = EnvSources(node.cluster.get, wake=lambda: None, now=lambda: node.time)
    node.boot()
    assert exec_variables(node) == {"POD_UID": uid}
    node.sources.fetch()
    node.turn()
    assert exec_variables(node) == {"V": "secret", "POD_UID": uid}
    assert node.restarts() == 0


def test_an_adopted_container_whose_values_are_gone_keeps_the_rest(node):
    asked = []
    run_with_secret(node)
    node.sources = EnvSources(
        lambda *ref: asked.append(ref) or node.cluster.get(*ref),
        wake=lambda: None,
        now=lambda: node.time,
    )
    node.cluster.delete(catalog.SECRET, "default", "s")
    node.boot()
    node.sources.fetch()
    node.turn()
    assert exec_variables(node).keys() == {"POD_UID"}
    node.run(100.0)
    node.sources.fetch()
    assert len(asked) == 1
    assert node.restarts() == 0


def test_one_that_is_missing_is_waited_for(node):
    create(node)
    node.sources.fetch()
    node.turn()
    said = waiting(node)
    assert (said["reason"], said["message"]) == (
        "CreateContainerConfigError",
        'secret "s" not found',
    )
    node.cluster.create(catalog.SECRET, SECRET)
    node.run(11.0)
    node.sources.fetch()
    node.turn()
    assert node.status()["phase"] == "Running"

"""Services and EndpointSlices for tests, and the State that is built of them."""

from kproxy.api import codec, core, discovery
from kproxy.desired.build import NodeSettings, StateBuilder
from kproxy.desired.model import Family, Protocol, ServicePortName


def service(name="web", /, *, meta=None, status=None, **spec):
    spec.setdefault("clusterIP", "10.96.0.10")
    spec.setdefault("ports", [{"name": "http", "port": 80}])
    data = {"metadata": {"name": name, "namespace": "demo", **(meta or {})}, "spec": spec}
    return codec.from_dict({**data, "status": status}, core.Service)


PROXY = "service.kubernetes.io/service-proxy-name"


def endpoints(*addresses, **more):
    return [{"addresses": [address], **more} for address in addresses]


def piece(name="web-1", /, *, of="web", kind="IPv4", ports=None, items=()):
    data = {
        "metadata": {
            "name": name,
            "namespace": "demo",
            "labels": {"kubernetes.io/service-name": of},
        },
        "addressType": kind,
        "ports": [{"name": "http", "port": 8080}] if ports is None else ports,
        "endpoints": list(items),
    }
    return codec.from_dict(data, discovery.EndpointSlice)


def builder(family=Family.IPV4, **more):
    return StateBuilder(NodeSettings(family=family, node="n1", **more))


def build(*objects, family=Family.IPV4):
    state, problems = build_with_problems(*objects, family=family)
    assert problems == []
    return state


def build_with_problems(*objects, family=Family.IPV4):
    made = builder(family)
    feed(made, *objects)
    state = made.build()
    return state, [str(problem) for problem in made.take_problems()]


def feed(made, *objects):
    for obj in objects:
        (made.on_service if isinstance(obj, core.Service) else made.on_slice)(None, obj)


def only(state):
    (one,) = state.services.values()
    return one


def places(chosen):
    return [(one.address, one.port) for one in chosen]


HTTP = ServicePortName("demo", "web", "http", Protocol.TCP)

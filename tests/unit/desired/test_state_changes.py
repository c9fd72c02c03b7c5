"""Objects that change, move and vanish: every way leads to the same State."""

import msgspec
from built_states import HTTP, builder, endpoints, feed, only, piece, service
from hypothesis import given
from hypothesis import strategies as st

from kproxy.api import core


def test_what_did_not_change_is_the_same_object():
    made = builder()
    feed(made, service("a"), service("b", clusterIP="10.96.0.11"), piece(of="a"))
    before = made.build()
    assert not made.dirty
    assert made.build() is before
    feed(made, piece(of="a", items=endpoints("10.1.0.1")))
    assert made.dirty
    after = made.build()
    a, b = HTTP._replace(name="a"), HTTP._replace(name="b")
    assert after.services[b] is before.services[b]
    assert before.services[a].cluster == (), "an old State must not change"
    assert len(after.services[a].cluster) == 1


def test_a_change_that_does_not_matter_makes_no_new_state():
    made = builder()
    feed(made, service(), piece(items=endpoints("10.1.0.1")))
    before = made.build()
    feed(
        made,
        service(meta={"labels": {"new": "label"}, "resourceVersion": "2"}),
        piece(items=endpoints("10.1.0.1", hostname="x")),
    )
    assert made.build() is before


def test_a_port_that_no_service_has_makes_no_new_state():
    made = builder()
    ports = [{"name": "http", "port": 8080}]
    feed(made, service(), piece(ports=ports, items=endpoints("10.1.0.1")))
    before = made.build()
    more = [*ports, {"name": "metrics", "port": 9090}]
    feed(made, piece(ports=more, items=endpoints("10.1.0.1")))
    assert made.build() is before


def test_deletion_takes_services_and_endpoints_away():
    made = builder()
    web, part = service(), piece(items=endpoints("10.1.0.1"))
    feed(made, web, part)
    made.build()
    made.on_slice(part, None)
    assert only(made.build()).cluster == ()
    made.on_service(web, None)
    assert made.build().services == {}
    made.on_service(web, None)
    assert made.build().services == {}


def test_a_slice_that_moves_to_another_service():
    made = builder()
    feed(made, service("a"), service("b", clusterIP="10.96.0.11"))
    feed(made, piece("x", of="a", items=endpoints("10.1.0.1")))
    made.build()
    feed(made, piece("x", of="b", items=endpoints("10.1.0.1")))
    found = {name.name: len(one.cluster) for name, one in made.build().services.items()}
    assert found == {"a": 0, "b": 1}


def test_the_zone_may_change_while_a_state_is_built(monkeypatch):
    """The node is told of by a thread of its own."""
    made = builder()
    hinted = endpoints("10.1.0.1", hints={"forZones": [{"name": "zone-a"}]})
    hinted += endpoints("10.1.0.2", hints={"forZones": [{"name": "zone-b"}]})
    feed(made, service("web"), service("other", clusterIP="10.96.0.11"), piece(items=hinted))
    made.set_zone("zone-a")
    made.build()
    make = made._states

    def moving(key):
        made.set_zone("zone-b")
        return make(key)

    monkeypatch.setattr(made, "_states", moving)
    feed(made, service("other", clusterIP="10.96.0.12"))
    made.build()
    monkeypatch.undo()
    assert made.dirty
    (web,) = [one for name, one in made.build().services.items() if name.name == "web"]
    assert [one.address for one in web.cluster] == ["10.1.0.2"]


def test_the_zone_of_the_node_decides_about_hints():
    made = builder()
    items = [
        {"addresses": ["10.1.0.1"], "hints": {"forZones": [{"name": "zone-a"}]}},
        {"addresses": ["10.1.0.2"], "hints": {"forZones": [{"name": "zone-b"}]}},
    ]
    feed(made, service(), piece(items=items))
    assert len(only(made.build()).cluster) == 2
    made.set_zone("zone-b")
    assert [one.address for one in only(made.build()).cluster] == ["10.1.0.2"]
    made.set_zone("")
    assert len(only(made.build()).cluster) == 2


# Random ways: names from small sets, so that objects collide, change, move and vanish.
CONDITIONS = st.fixed_dictionaries(
    {}, optional={key: st.booleans() for key in ("ready", "serving", "terminating")}
)
ITEMS = st.lists(
    st.fixed_dictionaries(
        {"addresses": st.sampled_from([["10.1.0.1"], ["10.1.0.2"], ["10.1.0.3"], ["bad"]])},
        optional={
            "conditions": CONDITIONS,
            "nodeName": st.sampled_from(["n1", "n2"]),
            "hints": st.just({"forZones": [{"name": "zone-a"}]}),
        },
    ),
    max_size=3,
)
PORTS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["http", "dns"]), "port": st.sampled_from([80, 81])},
        optional={"protocol": st.sampled_from(["TCP", "UDP"])},
    ),
    max_size=2,
)
NAMES = st.sampled_from(["a", "b"])
SERVICES = st.builds(
    lambda name, ports, spec: service(name, ports=ports, **spec),
    NAMES,
    PORTS,
    st.sampled_from(
        [
            {},
            {"clusterIP": "None"},
            {"clusterIP": "10.96.0.99", "externalIPs": ["198.51.100.1"]},
            {"clusterIP": "10.96.0.98", "internalTrafficPolicy": "Local"},
        ]
    ),
)
SLICES = st.builds(
    lambda name, of, ports, items: piece(name, of=of, ports=ports, items=items),
    st.sampled_from(["x", "y", "z"]),
    NAMES,
    PORTS,
    ITEMS,
)
STEPS = st.lists(st.tuples(st.one_of(SERVICES, SLICES), st.booleans(), st.booleans()), max_size=25)


@given(STEPS, st.permutations(range(5)))
def test_every_way_leads_to_the_same_state(steps, order):
    made = builder()
    made.set_zone("zone-a")
    present = {}
    for obj, delete, look in steps:
        key = (isinstance(obj, core.Service), obj.metadata.name)
        old, new = present.pop(key, None), None if delete else obj
        (made.on_service if key[0] else made.on_slice)(old, new)
        if new is not None:
            present[key] = new
        if look:
            snapshot = made.build()
            copy = msgspec.structs.replace(snapshot, services=dict(snapshot.services))
            assert snapshot == from_scratch(present, order)
            assert snapshot == copy
    assert made.build() == from_scratch(present, order)


def from_scratch(present, order):
    fresh = builder()
    fresh.set_zone("zone-a")
    objects = list(present.values())
    feed(fresh, *(objects[index] for index in order if index < len(objects)))
    return fresh.build()

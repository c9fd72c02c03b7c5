"""What is known of fields beyond their types: true to the types."""

import typing

import msgspec
import pytest

from kproxy.api import catalog, fielddocs, kept, kinds, shapes

STRUCTS = {
    shape.name: shape for kind in kinds.known() for shape in shapes.structs(shapes.of(kind))
}


@pytest.mark.parametrize("place", [*fielddocs.FIELDS, *kept.LISTS, *kept.SETS, *kept.RETAIN_KEYS])
def test_what_is_told_of_a_field_is_told_of_one_that_is_there(place):
    name, _, field = place.partition(".")
    assert field in STRUCTS[name].fields


@pytest.mark.parametrize("name", kept.FIELDS)
def test_what_is_kept_belongs_to_a_type_that_is_there(name):
    assert name in STRUCTS


@pytest.mark.parametrize("kind", kinds.known(), ids=lambda kind: kind.name)
def test_what_is_only_kept_has_no_type_of_its_own(kind):
    for wanted in structs_below(kind.type):
        typed = {field.encode_name for field in msgspec.structs.fields(wanted)}
        only_kept = kept.FIELDS.get(wanted.__name__, "").split()
        assert typed.isdisjoint(word.partition(":")[0] for word in only_kept)


def structs_below(wanted):
    """Yield a struct, and those that its fields hold."""
    yield wanted
    for field in msgspec.structs.fields(wanted):
        for part in parts_of(field.type):
            if isinstance(part, type) and issubclass(part, msgspec.Struct):
                yield from structs_below(part)


def parts_of(annotation):
    yield annotation
    for inner in typing.get_args(annotation):
        yield from parts_of(inner)


@pytest.mark.parametrize("place", kept.LISTS)
def test_what_has_keys_is_a_list(place):
    name, _, field = place.partition(".")
    assert STRUCTS[name].fields[field].type == "array"


def test_the_shape_of_a_pod():
    spec = shapes.below(shapes.of(catalog.POD), "spec")
    containers = spec.fields["containers"]
    assert (containers.merge_key, containers.item.name) == ("name", "Container")
    port = containers.item.fields["ports"].item.fields["containerPort"]
    assert port.type == "integer"
    assert spec.fields["nodeSelector"].type == "map"
    probe = containers.item.fields["readinessProbe"]
    assert probe.fields["httpGet"].fields["port"].type == "int-or-string"
    assert shapes.below(spec, "nothing") is shapes.ANY


def test_descriptions_come_from_where_they_are_nearest():
    fields = STRUCTS["RollingUpdate"].fields
    assert fields["partition"].description.startswith("Of a StatefulSet")
    assert fields["maxSurge"].description == fielddocs.FIELDS["RollingUpdate.maxSurge"]

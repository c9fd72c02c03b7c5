"""Merge, JSON and strategic merge patches: what they make of an object, and what they refuse."""

import copy

import pytest

from kproxy import errors
from kproxy.api import catalog, kinds, shapes
from kproxy.controlplane.patches import merge, strategic

POD = shapes.of(catalog.POD)
DEPLOYMENT = shapes.of(catalog.DEPLOYMENT)


@pytest.mark.parametrize(
    ("old", "patch", "new"),
    [
        # The examples of RFC 7386, appendix A.
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a"], {"b": "c"}, {"b": "c"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch(old, patch, new):
    before = copy.deepcopy(old)
    assert merge.merge(old, patch) == new
    assert old == before


def test_json_patch():
    old = {"a": {"b": 1}, "list": [1, 2]}
    operations = [
        {"op": "test", "path": "/a/b", "value": 1},
        {"op": "replace", "path": "/a/b", "value": 2},
        {"op": "add", "path": "/list/-", "value": 3},
        {"op": "remove", "path": "/list/0"},
        {"op": "copy", "from": "/a", "path": "/c~1d"},
        {"op": "move", "from": "/a", "path": "/e"},
    ]
    assert merge.json_patch(old, operations) == {
        "list": [2, 3],
        "c/d": {"b": 2},
        "e": {"b": 2},
    }
    assert old == {"a": {"b": 1}, "list": [1, 2]}


@pytest.mark.parametrize(
    ("operations", "code"),
    [
        ({}, 400),
        ([{"op": "dance", "path": "/a"}], 400),
        ([{"op": "add"}], 400),
        ([1], 400),
        ([{"op": "remove", "path": "/nowhere"}], 422),
        ([{"op": "test", "path": "/a", "value": 2}], 422),
        ([{"op": "remove", "path": "/a"}] * 10_001, 400),
    ],
)
def test_json_patches_that_do_not_apply(operations, code):
    with pytest.raises(errors.ApiError) as caught:
        merge.json_patch({"a": 1}, operations)
    assert caught.value.code == code


def containers(*pairs):
    return {"spec": {"containers": [{"name": n, "image": i} for n, i in pairs]}}


@pytest.mark.parametrize(
    ("old", "patch", "new"),
    [
        pytest.param(
            containers(("a", "1"), ("b", "1")),
            {"spec": {"containers": [{"name": "b", "image": "2"}]}},
            containers(("a", "1"), ("b", "2")),
            id="items by their key",
        ),
        pytest.param(
            containers(("a", "1")),
            {"spec": {"containers": [{"name": "b", "image": "2"}]}},
            containers(("a", "1"), ("b", "2")),
            id="a new item",
        ),
        pytest.param(
            containers(("a", "1"), ("b", "1")),
            {"spec": {"containers": [{"name": "a", "$patch": "delete"}]}},
            containers(("b", "1")),
            id="an item is deleted",
        ),
        pytest.param(
            containers(("a", "1"), ("b", "1")),
            {"spec": {"containers": [{"$patch": "replace"}, {"name": "c", "image": "3"}]}},
            containers(("c", "3")),
            id="a list is replaced",
        ),
        pytest.param(
            containers(("a", "1"), ("b", "1")),
            {
                "spec": {
                    "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
                    "containers": [{"name": "a", "image": "2"}],
                }
            },
            containers(("b", "1"), ("a", "2")),
            id="the order is set",
        ),
        pytest.param(
            containers(("x", "1"), ("a", "1"), ("y", "1"), ("b", "1")),
            {"spec": {"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}]}},
            containers(("x", "1"), ("a", "1"), ("y", "1"), ("b", "1")),
            id="what the order does not name stays between its neighbours",
        ),
        pytest.param(
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"finalizers": ["b", "c"]}},
            {"metadata": {"finalizers": ["a", "b", "c"]}},
            id="words of a set",
        ),
        pytest.param(
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}},
            {"metadata": {"finalizers": ["b"]}},
            id="a word is taken out",
        ),
        pytest.param(
            {"spec": {"tolerations": [{"key": "a"}]}},
            {"spec": {"tolerations": [{"key": "b"}]}},
            {"spec": {"tolerations": [{"key": "b"}]}},
            id="a list without keys is replaced",
        ),
        pytest.param(
            {"metadata": {"labels": {"a": "1", "b": "2"}}},
            {"metadata": {"labels": {"a": None, "c": "3"}}},
            {"metadata": {"labels": {"b": "2", "c": "3"}}},
            id="null removes",
        ),
        pytest.param(
            {"metadata": {"labels": {"a": "1"}}},
            {"metadata": {"labels": {"$patch": "replace", "b": "2"}}},
            {"metadata": {"labels": {"b": "2"}}},
            id="a map is replaced",
        ),
        pytest.param(
            {"metadata": {"labels": {"a": "1"}}},
            {"metadata": {"labels": {"$patch": "delete"}}},
            {"metadata": {}},
            id="a map is deleted",
        ),
    ],
)
def test_strategic_merge_patch(old, patch, new):
    before = copy.deepcopy(old)
    assert strategic.merge(old, patch, POD) == new
    assert old == before


def test_retained_keys_of_a_strategy():
    old = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    expected = {"spec": {"strategy": {"type": "Recreate"}}}
    assert strategic.merge(old, patch, DEPLOYMENT) == expected


def test_ports_of_a_service_are_known_by_their_number():
    old = {"spec": {"ports": [{"port": 80, "nodePort": 30080}, {"port": 81}]}}
    patch = {"spec": {"ports": [{"port": 80, "targetPort": 8080}]}}
    new = strategic.merge(old, patch, shapes.of(kinds.SERVICE))
    assert new["spec"]["ports"] == [
        {"port": 80, "nodePort": 30080, "targetPort": 8080},
        {"port": 81},
    ]


def test_copies_cannot_fill_the_memory():
    doubling = [{"op": "copy", "from": "/a", "path": f"/a/{number}"} for number in range(60)]
    with pytest.raises(errors.ApiError) as caught:
        merge.json_patch({"a": {"x": "y"}}, doubling)
    assert caught.value.code == 413
    few = merge.json_patch({"a": {"x": "y"}}, doubling[:2])
    assert few == {"a": {"x": "y", "0": {"x": "y"}, "1": {"x": "y", "0": {"x": "y"}}}}


def test_a_json_patch_can_be_done_again():
    operations = [
        {"op": "add", "path": "/list", "value": [1]},
        {"op": "add", "path": "/list/-", "value": 2},
    ]
    assert merge.json_patch({}, operations) == {"list": [1, 2]}
    assert merge.json_patch({}, operations) == {"list": [1, 2]}


@pytest.mark.parametrize("name", [{"a": 1}, ["a"]])
def test_an_order_of_what_is_no_name(name):
    old = containers(("a", "1"), ("b", "1"))
    patch = {"spec": {"$setElementOrder/containers": [{"name": name}, {"name": "b"}]}}
    assert strategic.merge(old, patch, POD)["spec"]["containers"]


@pytest.mark.parametrize(
    "patch",
    [
        [],
        {"$patch": "dance"},
        {"spec": {"containers": [{"image": "without a name"}]}},
        {"spec": {"$setElementOrder/containers": "a", "containers": []}},
        {"metadata": {"$retainKeys": ["labels"], "annotations": {}}},
    ],
)
def test_strategic_merge_patches_that_are_none(patch):
    with pytest.raises(errors.ApiError) as caught:
        strategic.merge(containers(("a", "1")), patch, POD)
    assert caught.value.code == 400

"""Files of manifests: what is read, and how mistakes in them are told."""

import textwrap

import pytest

from kproxy.api import manifests
from kproxy.errors import UsageError

GOOD = """\
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: demo
  creationTimestamp: 2026-01-01T00:00:00Z
spec:
  selector: {app: web}
  clusterIP: 10.96.0.10
  ports:
  - {name: http, port: 80, targetPort: 8080}
"""


def service(name, **spec):
    ports = spec.pop("ports", [{"port": 80}])
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "demo"},
            "spec": {"ports": ports, **spec}}  # fmt: skip


def read(tmp_path, text):
    path = tmp_path / "shop.yaml"
    path.write_text(text)
    objects, problems = manifests.load_manifests(path)
    return objects, [str(problem) for problem in problems]


def test_several_documents_and_empty_ones(tmp_path):
    second = GOOD.replace("name: web", "name: api").replace("0.10", "0.11")
    objects, problems = read(tmp_path, f"# a comment\n---\n{GOOD}---\n---\n{second}")
    assert [obj["metadata"]["name"] for obj in objects] == ["web", "api"]
    assert problems == []


def test_text_is_read_like_a_file():
    objects, problems = manifests.load_manifests(GOOD)
    assert objects[0]["metadata"]["creationTimestamp"] == "2026-01-01T00:00:00Z"
    assert problems == []


def test_json_is_read_too(tmp_path):
    objects, problems = read(
        tmp_path, '{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}}'
    )
    assert [obj["kind"] for obj in objects] == ["Namespace"]
    assert problems == []


def test_a_list_is_taken_apart(tmp_path):
    text = "apiVersion: v1\nkind: List\nitems:\n" + textwrap.indent(
        "- " + textwrap.indent(GOOD, "  ").lstrip(), "  "
    )
    objects, problems = read(tmp_path, text)
    assert [obj["metadata"]["name"] for obj in objects] == ["web"]
    assert problems == []


def test_a_missing_namespace_is_default(tmp_path):
    objects, _ = read(tmp_path, GOOD.replace("  namespace: demo\n", ""))
    assert objects[0]["metadata"]["namespace"] == "default"


def test_broken_yaml_names_file_document_and_line(tmp_path):
    broken = "apiVersion: v1\nkind: Service\n  metadata: [\n"
    objects, problems = read(tmp_path, f"{GOOD}---\n{broken}")
    assert [obj["metadata"]["name"] for obj in objects] == ["web"]
    (problem,) = problems
    line = GOOD.count("\n") + 1 + 3
    assert problem.startswith(f"shop.yaml, document 2: line {line}: broken YAML: ")


@pytest.mark.parametrize(
    "text", ["a: [1, 2\nb: 3\n", "a: 'x\n", "\tkey: 1\n", "a: &x\nb: *y\n", "{"]
)
def test_broken_yaml_in_the_first_document(tmp_path, text):
    objects, problems = read(tmp_path, text)
    assert objects == []
    (problem,) = problems
    assert problem.startswith("shop.yaml, document 1: line ")
    assert "\n" not in problem


def test_a_key_twice_is_an_error(tmp_path):
    objects, problems = read(tmp_path, GOOD + "kind: Pod\n")
    assert objects == []
    assert "key 'kind' is there twice" in problems[0]


def test_an_unknown_kind_is_named_and_the_rest_kept(tmp_path):
    objects, problems = read(tmp_path, GOOD.replace("Service", "Servise") + "---\n" + GOOD)
    assert len(objects) == 1
    told = "Servise web (shop.yaml, document 1): kind: unknown kind 'Servise'"
    assert problems[0].startswith(told)
    assert "EndpointSlice (discovery.k8s.io/v1)" in problems[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kind: Service\n", "shop.yaml, document 1: apiVersion: is missing (add it)"),
        ("just words\n", "shop.yaml, document 1: is str, not an object"),
        ("- 3\n", "shop.yaml, document 1, item 1: is int, not an object"),
        (
            "apiVersion: v1\nkind: Pod\n",
            "Pod without a name (shop.yaml, document 1): metadata: is missing",
        ),
    ],
)
def test_what_is_no_object_is_told(tmp_path, text, told):
    objects, problems = read(tmp_path, text)
    assert objects == []
    assert problems[0].startswith(told)


def test_a_port_out_of_range_names_object_field_and_remedy(tmp_path):
    objects, problems = read(tmp_path, GOOD.replace("port: 80,", "port: 70000,"))
    assert objects == []
    assert problems == [
        "Service demo/web (shop.yaml, document 1): spec.ports[0].port: 70000 is out of range"
        " (use a port from 1 to 65535)"
    ]


def test_a_wrong_type_is_told(tmp_path):
    _, problems = read(tmp_path, GOOD.replace("port: 80,", "port: http,"))
    assert "spec.ports[0].port: must be a whole number, not text" in problems[0]


def test_a_service_twice_keeps_the_first(tmp_path):
    objects, problems = read(tmp_path, GOOD + "---\n" + GOOD)
    assert len(objects) == 1
    assert problems == [
        "Service demo/web (shop.yaml, document 2): metadata.name: is there twice, first in"
        " shop.yaml, document 1 (remove one of them, or change it)"
    ]


def test_an_address_or_node_port_twice_keeps_the_first(tmp_path):
    import json

    port = {"port": 80, "nodePort": 30080}
    items = [
        service("a", clusterIP="10.96.0.10"),
        service("b", clusterIP="10.96.0.10"),
        service("c", type="NodePort", ports=[port]),
        service("d", type="NodePort", ports=[port]),
        service("e", type="NodePort", ports=[{**port, "protocol": "UDP"}]),
        service("f", clusterIP="None"),
        service("g", clusterIP="None"),
    ]
    objects, problems = read(tmp_path, json.dumps(items))
    assert [obj["metadata"]["name"] for obj in objects] == ["a", "c", "e", "f", "g"]
    assert "spec.clusterIP: 10.96.0.10 is used by Service demo/a" in problems[0]
    assert "spec.ports[0].nodePort: node port 30080 is used by Service demo/c" in problems[1]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read .*gone\.yaml: No such file"):
        manifests.load_manifests(tmp_path / "gone.yaml")


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "binary"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        manifests.load_manifests(path)


def test_what_is_there_twice_is_found_across_files(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text(GOOD)
    second.write_text(GOOD.replace("web", "shop"))
    objects, problems = manifests.load_manifests(first, second)
    assert [one["metadata"]["name"] for one in objects] == ["web"]
    (problem,) = problems
    assert "10.96.0.10" in str(problem)
    assert "a.yaml" in str(problem)
    assert "b.yaml" in str(problem)

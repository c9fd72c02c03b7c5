"""What a container's program is given."""

import pytest

from kproxy import errors
from kproxy.api.meta import ObjectMeta
from kproxy.api.pods import Container, EnvVar, Pod, PodSpec
from kproxy.controlplane import containerenv

POD = Pod(
    metadata=ObjectMeta(
        name="p", namespace="shop", uid="u", labels={"app": "x"}, annotations={"a/b": "c"}
    ),
    spec=PodSpec(service_account_name="robot"),
)
PLACE = containerenv.Place(
    node_name="n1", host_ips=("192.0.2.1", "2001:db8::1"), pod_ips=("10.0.0.2", "fd00::2")
)


def environment(*variables: EnvVar, pod: Pod = POD, image: dict[str, str] | None = None):
    container = Container(name="c", env=list(variables))
    return containerenv.environment(pod, container, PLACE, image or {}, look_up)


def look_up(what: str, namespace: str, name: str) -> dict[str, str] | None:
    assert namespace == "shop"
    known = {("configmap", "c"): {"A": "1", "x=y": "2"}, ("secret", "s"): {"A": "3", "K": "4"}}
    return known.get((what, name))


def field(path: str) -> EnvVar:
    return EnvVar(name="V", value_from={"fieldRef": {"fieldPath": path}})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "p"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u"),
        ("metadata.labels['app']", "x"),
        ("metadata.annotations['a/b']", "c"),
        ("metadata.labels['none']", ""),
        ("spec.nodeName", "n1"),
        ("spec.serviceAccountName", "robot"),
        ("status.podIP", "10.0.0.2"),
        ("status.podIPs", "10.0.0.2,fd00::2"),
        ("status.hostIP", "192.0.2.1"),
        ("status.hostIPs", "192.0.2.1,2001:db8::1"),
    ],
)
def test_the_downward_api(path, value):
    assert environment(field(path))["V"] == value


def test_an_unknown_field_is_named():
    with pytest.raises(errors.KproxyError, match=r"env V: unknown field 'spec.x'"):
        environment(field("spec.x"))


def test_values_refer_to_earlier_variables_and_later_ones_win():
    first, second = EnvVar(name="A", value="1"), EnvVar(name="B", value="$(A)$(C)")
    env = environment(first, second, EnvVar(name="A", value="2"), image={"A": "0"})
    assert (env["A"], env["B"]) == ("2", "1$(C)")


def test_built_in_variables():
    env = environment()
    assert (env["NODE_NAME"], env["POD_UID"], env["HOSTNAME"]) == ("n1", "u", "p")


def from_sources(*sources, **variables):
    """Return what is added by ``envFrom``, and by variables of a source."""
    env = [EnvVar(name=name, value_from=source) for name, source in variables.items()]
    container = Container(name="c", env_from=list(sources), env=env)
    found = containerenv.environment(POD, container, PLACE, {}, look_up)
    return {name: found[name] for name in found.keys() - environment().keys()}


def ref(name: str, **more) -> dict:
    return {"name": name, **more}


def test_all_of_a_config_map_or_secret():
    config, secret = {"configMapRef": ref("c")}, {"secretRef": ref("s"), "prefix": "S_"}
    assert from_sources(config, secret) == {"A": "1", "S_A": "3", "S_K": "4"}
    assert from_sources(config, {"secretRef": ref("s")}) == {"A": "3", "K": "4"}
    assert from_sources({"secretRef": ref("none", optional=True)}) == {}


def test_single_values_of_them_win():
    key = {"secretKeyRef": ref("s", key="K")}
    assert from_sources({"configMapRef": ref("c")}, A=key) == {"A": "4"}
    for none in (ref("c", key="none", optional=True), ref("none", key="k", optional=True)):
        assert from_sources(V={"configMapKeyRef": none}) == {}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMapKeyRef": ref("none", key="k")}, 'configmap "none" not found'),
        ({"secretKeyRef": ref("none", key="k")}, 'secret "none" not found'),
        ({"secretKeyRef": ref("s", key="no")}, "couldn't find key no in Secret shop/s"),
        ({"configMapKeyRef": ref("c", key="no")}, "couldn't find key no in ConfigMap shop/c"),
        ({"resourceFieldRef": {"resource": "limits.cpu"}}, "valueFrom resourceFieldRef is not"),
    ],
)
def test_what_is_not_there_is_named_as_kubernetes_does(source, message):
    with pytest.raises(errors.KproxyError, match=message):
        from_sources(V=source)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(A)", "x1y1"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(NONE)", "$(NONE)"),
        ("$A ${A} $", "$A ${A} $"),
        ("$(A", "$(A"),
    ],
)
def test_expansion_as_in_kubernetes(text, expanded):
    assert containerenv.expand(text, {"A": "1"}) == expanded

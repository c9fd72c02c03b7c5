"""Certificates, tokens, roles: who somebody is, and what he may do."""

import contextlib
import ssl
import subprocess
import sys

import pytest
from cryptography import x509

from kproxy import errors
from kproxy.client.kubeconfig import load_kubeconfig
from kproxy.controlplane import security
from kproxy.controlplane.access import (
    authentication,
    identity,
    kubeconfigs,
    noderules,
    pki,
    roles,
    tokens,
)
from kproxy.controlplane.access.roles import Attributes

NODE = identity.authenticated("system:node:n1", (identity.NODES,))
ADMIN = identity.authenticated("kubernetes-admin", (identity.ADMINS,))
PROXY = identity.authenticated(identity.PROXY)
SCHEDULER = identity.authenticated(identity.SCHEDULER)
MANAGER = identity.authenticated(identity.CONTROLLER_MANAGER)
ACCOUNT = identity.account("demo", "default")
NOBODY = identity.ANONYMOUS


def test_certificates_are_of_one_size():
    authority = pki.Authority.make()
    sizes = {
        len(x509.load_pem_x509_certificate(pair.certificate.encode()).public_bytes(
            pki.serialization.Encoding.DER
        ))
        for pair in (authority.client("somebody", ("group",)) for _ in range(20))
    }  # fmt: skip
    assert len(sizes) == 1


def test_an_authority_is_made_once(tmp_path):
    first = pki.Authority.in_directory(tmp_path / "pki")
    again = pki.Authority.in_directory(tmp_path / "pki")
    assert first.pair == again.pair
    assert (tmp_path / "pki" / "ca.key").stat().st_mode & 0o077 == 0


def test_kubeconfigs_are_made_once_and_can_be_read(tmp_path):
    made = kubeconfigs.Credentials(
        tmp_path, ["192.0.2.1", "api.example"], "https://192.0.2.1:6443"
    )
    for path in (made.kubeconfig(kubeconfigs.ADMIN), made.node_kubeconfig("n1")):
        assert path.stat().st_mode & 0o077 == 0
        access = load_kubeconfig(path)
        assert access.server == "https://192.0.2.1:6443"
        assert "BEGIN CERTIFICATE" in access.cert_data
        text = path.read_text()
        assert made.node_kubeconfig("n1").exists()
        assert path.read_text() == text
    certificate, _ = made.api_server()
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "api.example" in names.get_values_for_type(x509.DNSName)
    context = ssl.create_default_context(cafile=made.ca_file)
    assert context.cert_store_stats()["x509_ca"] == 1
    assert made.token_key().read_text() == made.token_key().read_text()


STARTS = """
import sys
from pathlib import Path
from kproxy.controlplane import apiserver
from kproxy.controlplane.security import Security
Security.from_directory(Path(sys.argv[1]), (), "https://192.0.2.1:6443").server_context()
print(*[name for name in ("cryptography", "jwt") if name in sys.modules])
"""


def test_a_server_that_finds_all_its_files_imports_nothing_to_make_them(tmp_path):
    security.Security.from_directory(tmp_path, (), "https://192.0.2.1:6443")
    command = [sys.executable, "-c", STARTS, str(tmp_path)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "\n"


def test_who_a_certificate_names():
    subject = ((("organizationName", "system:nodes"),), (("commonName", "system:node:n1"),))
    user = authentication.of_certificate(subject)
    assert (user.name, user.node) == ("system:node:n1", "n1")
    assert "system:authenticated" in user.groups
    with pytest.raises(errors.ApiError):
        authentication.of_certificate(())


def test_static_tokens(tmp_path):
    path = tmp_path / "tokens"
    path.write_text('secret,alice,1,"system:masters,dev"\n#no\n\nother,bob,2\n')
    known = tokens.read_static(path)
    who = authentication.Authenticator(static=known)
    assert who.user(None, "Bearer secret").groups[:2] == ("system:masters", "dev")
    assert who.user(None, "bearer other").name == "bob"
    assert who.user(None, "") == NOBODY
    for wrong in ("Bearer x", "Basic secret", "Bearer", "Bearer \u00e9"):
        with pytest.raises(errors.ApiError) as caught:
            who.user(None, wrong)
        assert caught.value.code == 401
    path.write_text("only-a-token\n")
    with pytest.raises(errors.UsageError, match="line 1"):
        tokens.read_static(path)


def test_a_token_is_more_than_a_certificate():
    who = authentication.Authenticator(static={"t": ADMIN})
    certificate = {"subject": ((("commonName", "somebody"),),)}
    assert who.user(certificate, "").name == "somebody"
    assert who.user(certificate, "Bearer t") == ADMIN


@pytest.mark.parametrize("token", ["a.b.c", "", "eyJhbGciOiJub25lIn0.e30."])
def test_tokens_that_are_none(token):
    signer = tokens.Signer("k" * 32)
    assert signer.proof(token, lambda *_: True) is None


@pytest.mark.parametrize(
    ("user", "verb", "what", "expected"),
    [
        (ADMIN, "delete", "namespaces", True),
        (ADMIN, "get", "/metrics", True),
        (NOBODY, "get", "/healthz", True),
        (NOBODY, "get", "/version", True),
        (NOBODY, "get", "/api", False),
        (NOBODY, "get", "/metrics", False),
        (NOBODY, "list", "pods", False),
        (NOBODY, "create", "selfsubjectaccessreviews", False),
        (ACCOUNT, "get", "/apis/apps/v1", True),
        (ACCOUNT, "get", "/metrics", False),
        (ACCOUNT, "create", "selfsubjectaccessreviews", True),
        (ACCOUNT, "get", "services", False),
        (PROXY, "watch", "endpointslices", True),
        (PROXY, "get", "nodes", True),
        (PROXY, "create", "events", True),
        (PROXY, "get", "secrets", False),
        (PROXY, "update", "services", False),
        (PROXY, "update", "nodes/status", False),
        (SCHEDULER, "create", "pods/binding", True),
        (SCHEDULER, "get", "pods", True),
        (SCHEDULER, "update", "leases", False),
        (SCHEDULER, "deletecollection", "events", False),
        (SCHEDULER, "get", "secrets", False),
        (SCHEDULER, "create", "pods", False),
        (SCHEDULER, "create", "pods/exec", False),
        (MANAGER, "create", "pods", True),
        (MANAGER, "get", "/metrics", True),
        (MANAGER, "create", "pods/exec", False),
        (NODE, "update", "nodes/status", True),
        (NODE, "watch", "services", True),
        (NODE, "list", "secrets", False),
        (NODE, "get", "secrets", True),
        (NODE, "create", "pods/binding", False),
        (NODE, "update", "services", False),
        (NODE, "delete", "nodes", False),
        (NODE, "create", "serviceaccounts/token", True),
    ],
)
def test_roles(user, verb, what, expected):
    if what.startswith("/"):
        asked = Attributes(verb=verb, path=what)
    else:
        resource, _, part = what.partition("/")
        asked = Attributes(verb=verb, resource=resource, subresource=part)
    assert roles.allowed(user, asked) is expected


def test_a_scheduler_holds_a_lease_but_not_those_of_nodes():
    def may(verb, namespace):
        asked = Attributes(verb=verb, resource="leases", namespace=namespace, name="x")
        return roles.allowed(SCHEDULER, asked)

    assert all(may(verb, "kube-system") for verb in ("get", "create", "update", "patch"))
    assert not may("deletecollection", "kube-system")
    assert not may("update", "kube-node-lease")


def on(node, **spec):
    meta = {"name": "p", "namespace": "demo", "uid": "1"}
    return {"metadata": meta, "spec": {"nodeName": node, **spec}}


def judged(verb, what, name="", namespace="", fields=None, body=None, pods=()):
    resource, _, part = what.partition("/")
    asked = Attributes(
        verb=verb, resource=resource, subresource=part, name=name, namespace=namespace
    )
    found = {("pods", "demo", pod["metadata"]["name"]): pod for pod in pods}
    codes = []
    try:
        noderules.check(
            NODE,
            asked,
            fields or {},
            lambda: body or {},
            lambda *key: found.get(key),
            lambda node: (pod for pod in pods if pod["spec"]["nodeName"] == node),
        )
    except errors.ApiError as error:
        codes.append(error.code)
    assert codes in ([], [403])
    return not codes


def test_a_node_may_touch_only_itself():
    assert judged("update", "nodes", "n1")
    assert judged("patch", "nodes/status", "n1")
    assert not judged("patch", "nodes/status", "n2")
    assert judged("create", "nodes", body={"metadata": {"name": "n1"}})
    assert not judged("create", "nodes", body={"metadata": {"name": "n2"}})
    assert judged("get", "nodes", "n2")
    assert judged("update", "leases", "n1", "kube-node-lease")
    assert not judged("update", "leases", "n2", "kube-node-lease")
    assert not judged("update", "leases", "kube-controller-manager", "kube-system")


def node(taints=(), **labels):
    named = {f"{name}.kubernetes.io/x": value for name, value in labels.items()}
    return {"metadata": {"name": "n1", "labels": named}, "spec": {"taints": list(taints)}}


@pytest.mark.parametrize(
    ("old", "new", "good"),
    [
        (None, node(taints=[{"key": "a"}]), True),
        (None, {"metadata": {"name": "n1"}}, True),
        (None, node(restriction="x"), True),
        (None, {"metadata": {"name": "n1", "labels": {noderules.RESERVED + "x": "1"}}}, False),
        (node(), node(other="x"), True),
        (node(), {"metadata": {"name": "n1"}, "spec": {}}, True),
        (node(taints=[{"key": "a"}]), node(taints=[{"key": "a"}]), True),
        (node(taints=[{"key": "a"}]), node(), False),
        (node(), node(taints=[{"key": "a"}]), False),
        ({"metadata": {"name": "n1", "labels": {noderules.RESERVED + "x": "1"}}}, node(), False),
    ],
)
def test_a_node_does_not_free_itself(old, new, good):
    expected = contextlib.nullcontext() if good else pytest.raises(errors.ApiError)
    with expected as caught:
        noderules.check_change(NODE, "nodes", old, new)
    assert good or caught.value.code == 403
    noderules.check_change(NODE, "pods", old, new)


def test_a_node_may_touch_only_its_pods():
    mine, other = (on("n1"),), (on("n2"),)
    for verb, what in (("update", "pods/status"), ("delete", "pods"), ("get", "pods")):
        assert judged(verb, what, "p", "demo", pods=mine)
        assert not judged(verb, what, "p", "demo", pods=other)
    assert judged("watch", "pods", fields={"spec.nodeName": "n1"})
    assert not judged("watch", "pods", fields={"spec.nodeName": "n2"})
    assert not judged("list", "pods")


def test_a_node_creates_mirrors_of_static_pods_only():
    pod = on("n1")
    assert not judged("create", "pods", namespace="demo", body=pod)
    pod["metadata"]["annotations"] = {noderules.MIRROR: "x"}
    assert judged("create", "pods", namespace="demo", body=pod)
    assert not judged("create", "pods", namespace="demo", body={**pod, "spec": {"nodeName": "n2"}})
    pod["spec"]["serviceAccountName"] = "default"
    assert not judged("create", "pods", namespace="demo", body=pod)


@pytest.mark.parametrize(
    "spec",
    [
        {"volumes": [{"name": "v", "secret": {"secretName": "s"}}]},
        {"volumes": [{"name": "v", "configMap": {"name": "c"}}]},
        {"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "s"}}]}}]},
        {"imagePullSecrets": [{"name": "s"}]},
        {"containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "s"}}]}]},
    ],
)
def test_a_node_cannot_create_a_mirror_to_read_what_it_names(spec):
    pod = on("n1", **spec)
    pod["metadata"]["annotations"] = {noderules.MIRROR: "x"}
    assert not judged("create", "pods", namespace="demo", body=pod)


def test_a_mirror_gives_its_node_no_account():
    mirror = on("n1")
    assert not judged("get", "serviceaccounts", "default", "demo", pods=(mirror,))
    body = bound_to("p", "1")
    assert not judged("create", "serviceaccounts/token", "default", "demo", None, body, (mirror,))


def bound_to(name, uid, kind="Pod"):
    return {"spec": {"boundObjectRef": {"kind": kind, "name": name, "uid": uid}}}


@pytest.mark.parametrize(
    ("body", "good"),
    [
        (bound_to("p", "1"), True),
        (bound_to("p", "2"), False),
        (bound_to("p", ""), False),
        (bound_to("other", "1"), False),
        (bound_to("p", "1", "Secret"), False),
        ({"spec": {}}, False),
        ({}, False),
    ],
)
def test_a_node_gets_tokens_for_its_pods_only(body, good):
    pods = (on("n1", serviceAccountName="web"),)
    where = ("create", "serviceaccounts/token", "web", "demo")
    assert judged(*where, body=body, pods=pods) is good


def test_a_node_reads_what_its_pods_refer_to():
    spec = {
        "serviceAccountName": "default",
        "volumes": [{"name": "v", "secret": {"secretName": "s1"}}],
        "containers": [
            {
                "envFrom": [{"configMapRef": {"name": "c1"}}],
                "env": [{"valueFrom": {"secretKeyRef": {"name": "s2"}}}],
            }
        ],
    }
    pods = (on("n1", **spec),)
    assert judged("get", "secrets", "s1", "demo", pods=pods)
    assert judged("get", "secrets", "s2", "demo", pods=pods)
    assert judged("get", "configmaps", "c1", "demo", pods=pods)
    assert judged("get", "serviceaccounts", "default", "demo", pods=pods)
    assert not judged("get", "serviceaccounts", "other", "demo", pods=pods)
    assert not judged("get", "secrets", "s3", "demo", pods=pods)
    assert not judged("get", "secrets", "s1", "other", pods=pods)
    assert not judged("get", "secrets", "s1", "demo", pods=(on("n2", **spec),))

"""The API server over TLS: who is let in, and tokens."""

import contextlib
import json
import socket
import time

import pytest
from secure_server import admin, client_of, pod, post, refused, secrets, server

from kproxy import errors
from kproxy.api import catalog, core, kinds
from kproxy.client import kubeconfig, rest
from kproxy.controlplane.access import kubeconfigs, tokens
from kproxy.controlplane.serving import conversation

__all__ = ["admin", "client_of", "secrets", "server"]


def test_an_admin_is_let_in(admin):
    assert len(admin.list(core.Namespace).items) == 4


def test_nobody_sees_only_whether_it_is_healthy(client_of):
    nobody = client_of()
    assert nobody.request("GET", "/healthz") == b"ok"
    assert b"gitVersion" in nobody.request("GET", "/version")
    code, message = refused(nobody, "GET", "/api/v1/pods")
    assert code == 403
    assert 'User "system:anonymous" cannot list resource "pods"' in message
    assert refused(nobody, "GET", "/api")[0] == 403


def test_a_wrong_token_is_401_and_no_body_is_read(client_of):
    stranger = client_of(token="wrong")
    assert refused(stranger, "GET", "/api/v1/pods")[0] == 401
    big = b"x" * 1_000_000
    assert refused(stranger, "POST", "/api/v1/namespaces", body=big)[0] == 401


def test_a_certificate_of_another_authority_is_no_proof(client_of, tmp_path, server, secrets):
    other = kubeconfigs.Credentials(tmp_path, [], "https://127.0.0.1:1")
    access = kubeconfig.load_kubeconfig(other.kubeconfig(kubeconfigs.ADMIN))
    stranger = client_of(cert_data=access.cert_data, key_data=access.key_data)
    with pytest.raises(rest.Unreachable):
        stranger.request("GET", "/api/v1/pods")


def test_a_node_may_do_what_is_its_own(admin, client_of, secrets):
    node = client_of(secrets.node_kubeconfig("n1"))
    post(node, kinds.NODE, "", {"metadata": {"name": "n1"}})
    lease = {"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1"}}
    post(node, catalog.LEASE, "kube-node-lease", lease)
    with pytest.raises(errors.ApiError) as caught:
        post(node, kinds.NODE, "", {"metadata": {"name": "n2"}})
    assert caught.value.code == 403
    post(admin, catalog.POD, "default", pod("mine", "n1"))
    post(admin, catalog.POD, "default", pod("other", "n2"))
    running = b'{"status":{"phase":"Running"}}'
    options = {"body": running, "content_type": rest.MERGE_PATCH}
    node.request("PATCH", catalog.POD.path("default", "mine", "status"), **options)
    other = catalog.POD.path("default", "other", "status")
    code, message = refused(node, "PATCH", other, **options)
    assert code == 403
    assert "can only access pods with spec.nodeName set to itself" in message
    query = {"fieldSelector": "spec.nodeName=n1"}
    listed = json.loads(node.request("GET", catalog.POD.path(), query=query))
    assert [item["metadata"]["name"] for item in listed["items"]] == ["mine"]
    assert refused(node, "GET", catalog.POD.path())[0] == 403
    assert refused(node, "GET", catalog.SECRET.path("default", "x"))[0] == 403


def test_a_node_gets_tokens_for_its_pods_and_keeps_its_taints(admin, client_of, secrets):
    node = client_of(secrets.node_kubeconfig("n1"))
    post(node, kinds.NODE, "", {"metadata": {"name": "n1"}})
    tainted = b'{"spec":{"taints":[{"key":"a","effect":"NoSchedule"}]}}'
    options = {"body": tainted, "content_type": rest.MERGE_PATCH}
    assert refused(node, "PATCH", kinds.NODE.path("", "n1"), **options)[0] == 403
    meta = post(admin, catalog.POD, "default", pod("mine", "n1"))["metadata"]
    ref = {"kind": "Pod", "name": "mine", "uid": meta["uid"]}
    spec = {"spec": {"boundObjectRef": ref}}
    given = post(node, catalog.SERVICE_ACCOUNT, "default", spec, "default", "token")
    holder = client_of(token=given["status"]["token"])
    assert b"APIGroupList" in holder.request("GET", "/apis")
    path = catalog.SERVICE_ACCOUNT.path("default", "default", "token")
    assert refused(node, "POST", path, body=b"{}")[0] == 403
    gone = json.dumps({"gracePeriodSeconds": 0}).encode()
    admin.request("DELETE", catalog.POD.path("default", "mine"), body=gone)
    admin.list(core.Namespace)  # the memory has seen it
    assert refused(holder, "GET", "/apis")[0] == 401


def test_a_token_of_a_service_account_lets_in_while_the_account_lives(admin, client_of):
    account = catalog.SERVICE_ACCOUNT
    post(admin, account, "kube-system", {"metadata": {"name": "kube-proxy"}})
    answer = post(admin, account, "kube-system", {"spec": {}}, "kube-proxy", "token")
    proxy = client_of(token=answer["status"]["token"])
    assert proxy.list(core.Service).items == []
    assert refused(proxy, "GET", catalog.SECRET.path())[0] == 403
    review = {"spec": {"resourceAttributes": {"verb": "list", "resource": "services"}}}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    asked = json.loads(proxy.request("POST", path, body=json.dumps(review).encode()))
    assert asked["status"]["allowed"]
    token = {"spec": {"token": answer["status"]["token"]}}
    path = "/apis/authentication.k8s.io/v1/tokenreviews"
    told = json.loads(admin.request("POST", path, body=json.dumps(token).encode()))["status"]
    assert told["user"]["username"] == "system:serviceaccount:kube-system:kube-proxy"
    admin.request("DELETE", account.path("kube-system", "kube-proxy"))
    admin.list(core.Namespace)  # accounts are looked up in memory; a list waits for the newest
    assert refused(proxy, "GET", kinds.SERVICE.path())[0] == 401


def test_a_token_that_has_expired_is_renewed_by_replacing_its_file(client_of, secrets, tmp_path):
    clock = [time.time() - 1000]
    signer = tokens.Signer(secrets.token_key().read_text().strip(), lambda: clock[0])

    def token(uid):
        return signer.sign("kube-system", "default", uid, 600)[0]

    admin = client_of(secrets.kubeconfig(kubeconfigs.ADMIN))
    path = catalog.SERVICE_ACCOUNT.path("kube-system", "default")
    uid = json.loads(admin.request("GET", path))["metadata"]["uid"]
    file = tmp_path / "token"
    file.write_text(token(uid))
    client = client_of(token_file=file)
    assert refused(client, "GET", "/apis")[0] == 401
    clock[0] += 999
    file.write_text(token(uid))
    assert b"APIGroupList" in client.request("GET", "/apis")
    file.write_text(token("another account's"))
    assert refused(client, "GET", "/apis")[0] == 401


def test_a_handshake_that_never_ends_holds_up_nobody(server, admin, monkeypatch):
    with socket.create_connection(server.server_address, timeout=60) as another:
        another.sendall(b"\x16\x03\x01")
        assert len(admin.list(core.Namespace).items) == 4
    monkeypatch.setattr(conversation, "HANDSHAKE_SECONDS", 0.2)
    with (
        contextlib.suppress(ConnectionError),  # we were the slower one, too
        socket.create_connection(server.server_address, timeout=60) as stalled,
    ):
        stalled.sendall(b"\x16\x03\x01")
        assert stalled.recv(1000) in (b"", b"\x15\x03\x01\x00\x02\x02\x32")


def test_plain_http_to_a_tls_port_holds_up_nobody(server, admin):
    with socket.create_connection(server.server_address, timeout=60) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while plain.recv(1000):
                pass
    assert len(admin.list(core.Namespace).items) == 4


def test_who_monitors_reads_metrics_and_watches_but_writes_nothing(client_of, secrets):
    who = client_of(secrets.kubeconfig(kubeconfigs.MONITORING))
    assert b"apiserver_open_connections" in who.request("GET", "/metrics")
    assert b"SliceList" in who.request("GET", "/apis/discovery.k8s.io/v1/endpointslices")
    assert refused(who, "GET", "/api/v1/secrets")[0] == 403
    assert refused(who, "DELETE", kinds.NODE.path("", "n1"))[0] == 403
    prober = client_of(secrets.kubeconfig(kubeconfigs.PROBER))
    assert refused(prober, "GET", "/metrics")[0] == 403
    assert prober.request("GET", kinds.SERVICE.path(""))

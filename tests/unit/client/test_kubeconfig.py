"""Reading kubeconfig files."""

import base64
import copy
import json
from pathlib import Path

import pytest

from kproxy.client.kubeconfig import load_kubeconfig, parse_kubeconfig
from kproxy.errors import InvalidObject, UsageError

CONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "lab",
    "clusters": [{"name": "lab", "cluster": {"server": "https://10.0.0.1:6443"}}],
    "users": [{"name": "me", "user": {}}],
    "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "me"}}],
}


def parse(config, **more):
    return parse_kubeconfig(json.dumps(config), "kubeconfig k", Path("/etc/k"), **more)


def changed(cluster=None, user=None, **top):
    config = copy.deepcopy(CONFIG)
    config["clusters"][0]["cluster"] |= cluster or {}
    config["users"][0]["user"] |= user or {}
    return config | top


def test_the_server_of_the_current_context():
    assert parse(CONFIG).server == "https://10.0.0.1:6443"
    assert parse(CONFIG, server="http://other").server == "http://other"


def test_the_only_context_needs_no_choice():
    assert parse(changed(**{"current-context": ""})).server == "https://10.0.0.1:6443"


def test_no_user_is_needed():
    config = changed(users=None, contexts=[{"name": "lab", "context": {"cluster": "lab"}}])
    assert parse(config).token == ""


def test_all_ways_to_prove_oneself():
    pem = "-----BEGIN CERTIFICATE-----\n"
    data = base64.b64encode(pem.encode()).decode()
    access = parse(
        changed(
            cluster={"certificate-authority": "ca.pem", "certificate-authority-data": data,
                     "tls-server-name": "api"},
            user={"client-certificate": "/c.pem", "client-certificate-data": data,
                  "client-key": "key.pem", "client-key-data": data,
                  "token": "t", "tokenFile": "token"},
        )
    )  # fmt: skip
    assert (access.ca_file, access.ca_data) == (Path("/etc/k/ca.pem"), pem)
    assert (access.insecure, access.tls_server_name) == (False, "api")
    assert (access.cert_file, access.cert_data) == (Path("/c.pem"), pem)
    assert (access.key_file, access.key_data) == (Path("/etc/k/key.pem"), pem)
    assert (access.token, access.token_file) == ("t", Path("/etc/k/token"))


def test_servers_are_trusted_blindly_only_if_somebody_says_so():
    assert not parse(CONFIG).insecure
    assert not parse(changed(cluster={"insecure-skip-tls-verify": None})).insecure
    assert parse(changed(cluster={"insecure-skip-tls-verify": True})).insecure


def test_yaml_is_read(tmp_path):
    path = tmp_path / "config"
    path.write_text(
        "current-context: a\n"
        "clusters: [{name: c, cluster: {server: http://127.0.0.1:8001}}]\n"
        "contexts: [{name: a, context: {cluster: c}}]\n"
    )
    assert load_kubeconfig(path).server == "http://127.0.0.1:8001"


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (changed(**{"current-context": "x"}), "current-context: has no entry 'x' .*one of: lab"),
        (changed(clusters=[]), "clusters: has no entry 'lab'"),
        (changed(clusters={}), "clusters: must be a list"),
        (changed(clusters=[3]), r"clusters\[0\]: must have name and cluster"),
        (changed(cluster={"server": "10.0.0.1"}), r"clusters\[0\].cluster.server: '10.0.0.1' is"),
        (changed(cluster={"server": 3}), "server: must be text"),
        (changed(user={"client-key-data": "%"}), "client-key-data: is not base64"),
        (changed(user={"exec": {"command": "aws"}}), "user.exec: logging in by a program is not"),
        (changed(user={"auth-provider": {"name": "x"}}), "auth-provider: this way to log in"),
        (changed(user={"username": "x"}), "username: logging in by a password"),
        (changed(user={"as": "x"}), "as: acting as somebody else is not supported"),
        (changed(cluster={"proxy-url": "http://p"}), "proxy-url: reaching the API server through"),
        (changed(cluster={"insecure-skip-tls-verify": "true"}), "verify: must be true or false"),
        (
            changed(cluster={"insecure-skip-tls-verify": True, "certificate-authority": "x"}),
            "insecure-skip-tls-verify: contradicts certificate-authority",
        ),
        (changed(user={"client-certificate": "x"}), "user.client-key: is missing"),
        (changed(user={"client-key": "x"}), "user.client-certificate: is missing"),
        ([], "kubeconfig k: is not a mapping"),
    ],
)
def test_mistakes_name_the_field(config, told):
    with pytest.raises(InvalidObject, match=told):
        parse(config)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read kubeconfig .*: No such file"):
        load_kubeconfig(tmp_path / "gone")

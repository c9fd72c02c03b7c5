"""A pod's token expires and is renewed in time; in virtual time, where half an hour is nothing."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import kubelet_lab
import pytest
from kubelet_lab import KubeletLab

from kproxy.client.kubeconfig import SERVICE_ACCOUNT
from netns.kernels import base
from netns.process import Process

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(base.clock() is not base.Clock.VIRTUAL, reason="needs the virtual clock"),
]

LIFETIME_S = 600
"""The shortest that Kubernetes allows."""
EVERY_S = 100
QUESTIONS = 2 * LIFETIME_S // EVERY_S + 3
PATIENCE_S = 3 * LIFETIME_S
ACCOUNT = "system:serviceaccount:default:default"

ASKS = f"""
import json, time
from kproxy.cli import nodeproxy
from kproxy.client.rest import Rest
from kproxy.errors import ApiError
access = nodeproxy.api_access("", "")
with Rest(access) as rest:
    while True:
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        kind = {{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}}
        token = access.token_file.read_text()
        try:
            answer = json.loads(rest.request("POST", path, body=json.dumps(kind).encode()))
            told = answer["status"]["userInfo"]["username"]
        except ApiError as error:
            told = str(error.code)
        print(json.dumps({{"token": token, "told": told}}), flush=True)
        time.sleep({EVERY_S})
"""
"""A program in a pod that asks the API server who it is, and tells its token."""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[KubeletLab]:
    with kubelet_lab.running(tmp_path / "state") as made:
        made.start_secure_api()
        made.kubelet = start_kubelet(made)
        yield made


def start_kubelet(lab: KubeletLab) -> Process:
    access = ("--kubeconfig", str(lab.kubelet_config))
    return lab.start_kubelet(*access, "--service-account-token-seconds", str(LIFETIME_S))


def start_asking(lab: KubeletLab) -> Path:
    """Start the pod; return the directory of its token."""
    lab.create("asks", {"command": [sys.executable, "-c", ASKS]}, hostNetwork=True)
    lab.until(lambda: lab.ready("asks"), "the pod to run")
    (directory,) = lab.files.accounts("node1").iterdir()
    return directory


def answers(lab: KubeletLab) -> list[tuple[str, str]]:
    """Return what the pod heard, and with which tokens."""
    count = f"{QUESTIONS} answers"
    lab.until(lambda: lab.log("asks").count("\n") >= QUESTIONS, count, PATIENCE_S, EVERY_S)
    asked = [json.loads(line) for line in lab.log("asks").splitlines()[:QUESTIONS]]
    return [(one["told"], one["token"]) for one in asked]


def test_a_pod_is_known_for_more_than_two_lifetimes_of_its_token(lab: KubeletLab) -> None:
    directory = start_asking(lab)
    heard = answers(lab)
    assert [told for told, _ in heard] == [ACCOUNT] * QUESTIONS
    # One at the start, then one after each 480 of the 1400 seconds.
    assert len({token for _, token in heard}) == 3
    last = (directory / "token").read_text()
    assert lab.valid(last)
    lab.delete("asks")
    lab.until(lambda: lab.get("asks") is None, "the pod to go")
    assert not lab.valid(last)
    assert list(directory.parent.iterdir()) == []


def test_a_pod_of_its_own_network_finds_the_files_where_kubernetes_has_them(
    lab: KubeletLab,
) -> None:
    run = sorted(Path("/run").iterdir())
    script = f"cd {SERVICE_ACCOUNT}; cat namespace; while echo; do cat token; sleep 1; done"
    lab.create("clients", {"command": ["sh", "-c", script]})
    lab.until(lambda: lab.ready("clients"), "the pod to run")
    (directory,) = lab.files.accounts("node1").iterdir()
    token = (directory / "token").read_text()
    lab.until(lambda: lab.log("clients").startswith(f"default\n{token}\n"), "the token to be read")
    (directory / "new").write_text("another")
    (directory / "new").replace(directory / "token")
    lab.until(lambda: lab.log("clients").endswith("another\n"), "a replaced token to be read")
    lab.delete("clients")
    lab.until(lambda: lab.get("clients") is None, "the pod to go")
    assert sorted(Path("/run").iterdir()) == run


def test_without_a_kubelet_the_token_expires_and_the_next_one_renews_it(lab: KubeletLab) -> None:
    directory = start_asking(lab)
    token = (directory / "token").read_text()
    lab.kubelet.kill()
    gone = LIFETIME_S + EVERY_S
    lab.until(lambda: not lab.valid(token), "the token to expire", gone, EVERY_S / 2)
    time.sleep(EVERY_S)  # nothing tells: so long the pod may take to notice
    lab.kubelet = start_kubelet(lab)
    lab.until(lambda: token != (directory / "token").read_text(), "the next token")
    lab.until(lab.serves, "the kubelet's server")
    told = [one for one, _ in answers(lab)]
    refused = [one for one in told if one != ACCOUNT]
    assert 1 <= len(refused) <= 2
    assert set(refused) == {"401"}
    assert told[-1] == ACCOUNT
    assert lab.state("asks")["restartCount"] == 0

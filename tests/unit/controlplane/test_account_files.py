"""Tokens of pods: asked for, renewed at 80 % of their time, tried again, gone with the pod."""

import io
import threading
from pathlib import Path

import pytest
from kubelet_node import Node

from kproxy import errors, logs
from kproxy.api import codec
from kproxy.api.pods import Pod
from kproxy.client.kubeconfig import SERVICE_ACCOUNT, SERVICE_ACCOUNT_VARIABLE, Access
from kproxy.controlplane.accountfiles import TOKEN_SECONDS, AccountFiles, Source

ACCESS = Access(server="https://192.0.2.10:6443", ca_data="authority", token="kubelet")


class Server:
    """Gives out tokens t1, t2, …, or fails as told; ``granted``: seconds, None: as asked."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.granted: int | None = None
        self.asked: list[tuple[str, str, dict]] = []
        self.meanwhile = lambda: None

    def __call__(self, namespace, account, request):
        self.asked.append((namespace, account, request["spec"]))
        self.meanwhile()
        if self.failure:
            raise self.failure
        seconds = self.granted or request["spec"]["expirationSeconds"]
        token = f"t{len(self.asked)}"
        return {"spec": {"expirationSeconds": seconds}, "status": {"token": token}}


class World:
    """The files of one node on the clock of a test."""

    def __init__(self, directory: Path, **source) -> None:
        self.directory = directory
        self.server = Server()
        self.time = 1000.0
        self.woken = 0
        self.files = AccountFiles(
            Source(directory=directory, access=ACCESS, **source),
            self.server,
            logs.Log("kubelet", stream=io.StringIO()),
            wake=self.wake,
            now=lambda: self.time,
        )

    def wake(self) -> None:
        self.woken += 1

    def token(self, uid: str = "u1") -> str:
        return (self.directory / uid / "token").read_text()

    def left(self) -> list[str]:
        return sorted(one.name for one in self.directory.glob("*"))


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "accounts")


def pod(uid: str = "u1", **spec) -> Pod:
    meta = {"namespace": "d", "name": f"pod-{uid}", "uid": uid}
    return codec.from_dict({"metadata": meta, "spec": {"serviceAccountName": "a", **spec}}, Pod)


def test_a_pod_waits_for_its_first_token_and_finds_three_files(world):
    assert world.files.obtain(pod()) == ""
    assert world.left() == []
    assert world.files.renew() == pytest.approx(0.8 * TOKEN_SECONDS)
    assert world.woken == 1
    assert world.files.obtain(pod()) is None
    found = {one.name: one.read_text() for one in (world.directory / "u1").iterdir()}
    assert found == {"token": "t1", "ca.crt": "authority", "namespace": "d"}
    bound = {"kind": "Pod", "apiVersion": "v1", "name": "pod-u1", "uid": "u1"}
    spec = {"expirationSeconds": TOKEN_SECONDS, "boundObjectRef": bound}
    assert world.server.asked == [("d", "a", spec)]


def test_nobody_else_can_read_the_token(world):
    world.files.obtain(pod())
    world.files.renew()
    assert (world.directory / "u1").stat().st_mode & 0o777 == 0o700
    assert (world.directory / "u1" / "token").stat().st_mode & 0o777 == 0o600


def test_a_token_is_renewed_at_80_percent_of_what_was_granted_and_no_sooner(world):
    world.server.granted = 1000
    world.files.obtain(pod())
    assert world.files.renew() == 800
    world.time += 799
    assert world.files.renew() == 1
    assert world.token() == "t1"
    before = (world.directory / "u1" / "token").open()
    world.time += 1
    assert world.files.renew() == 800
    assert world.token() == "t2"
    with before:
        assert before.read() == "t1", "who has the old file open reads all of the old token"
    assert world.woken == 1, "who has a token is not waited for"


def test_while_the_api_is_away_the_old_token_stays_and_one_pod_asks_for_all(world):
    for uid in ("u1", "u2"):
        world.files.obtain(pod(uid))
    world.files.renew()
    world.time += TOKEN_SECONDS
    world.server.failure = errors.KproxyError("unreachable")
    waits = []
    for _ in range(10):
        waits.append(world.files.renew())
        world.time += waits[-1]
    assert waits[:4] == pytest.approx([0.05, 0.1, 0.2, 0.4])
    assert waits[-1] == pytest.approx(2.0)
    assert len(world.server.asked) == 2 + 10
    assert (world.token("u1"), world.token("u2")) == ("t1", "t2")
    world.server.failure = None
    assert world.files.renew() == pytest.approx(0.8 * TOKEN_SECONDS)
    assert (world.token("u1"), world.token("u2")) == ("t13", "t14")


def test_one_account_that_is_not_there_stops_no_other(world):
    world.files.obtain(pod("u1"))
    world.files.obtain(pod("u2"))

    def refuse_the_first():
        first = len(world.server.asked) == 1
        world.server.failure = errors.ApiError(404, "NotFound", "no account a") if first else None

    world.server.meanwhile = refuse_the_first
    assert world.files.renew() == pytest.approx(0.05)
    assert "no account a" in world.files.obtain(pod("u1"))
    assert world.files.obtain(pod("u2")) is None
    assert world.woken == 2


def test_an_answer_that_is_none_is_a_failure(world):
    world.files._ask = lambda *_: {"status": {}}
    world.files.obtain(pod())
    assert world.files.renew() == pytest.approx(0.05)
    assert "no TokenRequest" in world.files.obtain(pod())


def test_the_files_go_with_the_pod_and_do_not_come_back(world):
    world.files.obtain(pod())
    world.files.renew()
    world.files.forget("u1")
    assert world.left() == []
    assert world.files.renew() is None
    world.files.obtain(pod("u2"))
    world.server.meanwhile = lambda: world.files.forget("u2")
    assert world.files.renew() is None
    assert world.left() == []
    world.files.forget("u2")


def test_what_a_former_kubelet_left_of_other_pods_is_removed(world):
    world.files.retain([])
    for uid in ("u1", "u2"):
        world.files.obtain(pod(uid))
    world.files.renew()
    after = World(world.directory)
    after.files.retain(["u2"])
    assert after.left() == ["u2"]
    assert after.files.obtain(pod("u2")) == "", "how long the old one is valid nobody knows"
    (world.directory / "u2" / ".token.new").write_text("torn")
    after.files.renew()
    assert after.token("u2") == "t1"


@pytest.mark.parametrize(
    "spec", [{"automountServiceAccountToken": False}, {"serviceAccountName": ""}]
)
def test_nothing_for_pods_without_a_token(world, spec):
    assert world.files.obtain(pod(**spec)) is None
    assert world.files.renew() is None
    assert world.server.asked == []
    assert world.files.environment(pod(**spec)) == {
        "KUBERNETES_SERVICE_HOST": "192.0.2.10",
        "KUBERNETES_SERVICE_PORT": "6443",
    }


def test_the_environment_says_where_the_files_are(world):
    assert world.files.environment(pod())[SERVICE_ACCOUNT_VARIABLE] == str(world.directory / "u1")


def test_pods_have_the_files_where_kubernetes_has_them_but_on_the_nodes_network(world):
    assert world.files.mounts(pod()) == {SERVICE_ACCOUNT: world.directory / "u1"}
    assert world.files.mounts(pod(hostNetwork=True)) == {}
    assert world.files.mounts(pod(automountServiceAccountToken=False)) == {}


def test_an_api_server_that_signs_no_tokens_holds_up_no_pod(world):
    world.server.failure = errors.ApiError(501, "NotImplemented", "signs no tokens")
    world.files.obtain(pod())
    assert world.files.renew() is None
    assert world.woken == 1
    assert world.files.obtain(pod()) is None
    assert SERVICE_ACCOUNT_VARIABLE not in world.files.environment(pod())
    assert world.files.mounts(pod()) == {}


@pytest.mark.parametrize(
    ("access", "useful"),
    [
        (ACCESS, True),
        (Access(server="http://x:1", ca_data="a", token="t"), False),
        (Access(server="https://x:1", token="t"), False),
        (Access(server="https://x:1", ca_data="a"), False),
    ],
)
def test_without_tls_or_credentials_there_are_no_tokens(tmp_path, access, useful):
    assert Source(directory=tmp_path, access=access).useful() is useful


def test_the_api_servers_address_may_be_of_either_family_and_without_a_port(tmp_path):
    access = Access(server="https://[fd00::1]")
    assert Source(directory=tmp_path, access=access).address() == ("fd00::1", 443)


def test_the_thread_asks_at_once_and_ends(tmp_path):
    woken = threading.Event()
    files = AccountFiles(
        Source(directory=tmp_path, access=ACCESS),
        Server(),
        logs.Log("kubelet", stream=io.StringIO()),
        wake=woken.set,
    )
    thread = threading.Thread(target=files.run)
    thread.start()
    files.obtain(pod())
    assert woken.wait(60)
    files.stop()
    thread.join(60)
    assert not thread.is_alive()
    assert (tmp_path / "u1" / "token").read_text() == "t1"


@pytest.fixture
def node(tmp_path):
    world = World(tmp_path / "accounts")
    made = Node(accounts=world.files)
    made.world = world
    yield made
    made.close()


def test_a_kubelet_starts_a_pod_when_it_has_its_token(node):
    uid = node.create()
    assert node.turn() is None, "it is woken, and does not ask"
    assert node.runtime.calls == []
    node.world.server.failure = errors.ApiError(404, "NotFound", "no such account")
    node.world.files.renew()
    node.turn()
    node.turn()
    (told,) = node.pod_events()
    assert told[0] == "FailedMount"
    assert "no such account" in told[1]
    assert node.status()["phase"] == "Pending"
    node.world.server.failure = None
    node.world.time += 1
    node.world.files.renew()
    node.turn()
    assert node.status()["phase"] == "Running"
    assert node.world.left() == [uid]
    spec = node.kubelet.workers[uid].containers[0].spec
    assert spec is not None
    variables = dict(spec.env)
    assert variables[SERVICE_ACCOUNT_VARIABLE] == str(node.world.directory / uid)
    assert variables["KUBERNETES_SERVICE_HOST"] == "192.0.2.10"


def test_a_kubelet_removes_the_files_with_the_pod(node):
    node.create()
    node.turn()
    node.world.files.renew()
    node.turn()
    node.delete()
    node.run(until=60)
    assert node.get() is None
    assert node.world.left() == []


def test_a_kubelet_removes_the_files_of_a_pod_that_has_ended(node):
    uid = node.create(restartPolicy="Never")
    node.turn()
    node.world.files.renew()
    node.turn()
    node.runtime.kill(uid, code=0)
    node.turn()
    assert node.status()["phase"] == "Succeeded"
    assert node.world.left() == []


def test_the_next_kubelet_renews_what_runs_and_removes_the_rest(node):
    kept, gone = node.create("kept"), node.create("gone")
    node.turn()
    node.world.files.renew()
    node.turn()
    assert node.world.left() == sorted([kept, gone])
    node.delete("gone", grace=0)
    after = World(node.world.directory)
    node.accounts = after.files
    node.boot()
    assert after.left() == [kept]
    after.files.renew()
    assert len(after.server.asked) == 1
    assert after.token(kept) == "t1"

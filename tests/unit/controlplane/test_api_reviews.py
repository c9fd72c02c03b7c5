"""Questions to the API server, tokens for others, and parts of objects that make no sense."""

import msgspec
import pytest
from local_cluster import new_api

from kproxy import errors
from kproxy.controlplane import apiserver, reviews, routes, status, versions
from kproxy.controlplane.access import identity, tokens
from kproxy.controlplane.access.authentication import Authenticator
from kproxy.controlplane.requests import DEFAULT, Options
from kproxy.controlplane.rest import Api

KEY = "0123456789abcdef0123456789abcdef"
ADMIN = identity.authenticated("admin", (identity.ADMINS,))
AUTHORIZATION, AUTHENTICATION = "/apis/authorization.k8s.io/v1", "/apis/authentication.k8s.io/v1"
ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"


def asked(path, spec, authenticator=None):
    target = routes.review(path)
    body = msgspec.json.encode({"spec": spec})
    answer = reviews.answer(target, ADMIN, body, DEFAULT, authenticator or Authenticator())
    return msgspec.json.decode(answer.body)["status"]


def code(call, *args):
    with pytest.raises((errors.KproxyError, ExceptionGroup)) as caught:
        call(*args)
    return status.failure(caught.value)["code"]


@pytest.mark.parametrize(
    ("path", "spec"),
    [
        (f"{AUTHORIZATION}/selfsubjectaccessreviews", "x"),
        (f"{AUTHORIZATION}/selfsubjectaccessreviews", {"resourceAttributes": "x"}),
        (f"{AUTHORIZATION}/selfsubjectaccessreviews", {"nonResourceAttributes": [1]}),
        (f"{AUTHORIZATION}/subjectaccessreviews", {"user": "u", "groups": 5}),
        (f"{AUTHORIZATION}/subjectaccessreviews", {"user": "u", "groups": [5]}),
        (f"{AUTHENTICATION}/tokenreviews", {"token": "t", "audiences": "here"}),
    ],
)
def test_reviews_that_make_no_sense_are_400(path, spec):
    assert code(asked, path, spec) == 400


def test_a_review_asks_one_thing():
    path = f"{AUTHORIZATION}/selfsubjectaccessreviews"
    assert code(asked, path, {}) == 422
    both = {"resourceAttributes": {"verb": "get"}, "nonResourceAttributes": {"path": "/"}}
    assert code(asked, path, both) == 422
    assert asked(path, {"nonResourceAttributes": {"path": "/metrics", "verb": "get"}})["allowed"]


def token_for(*audiences):
    signer = tokens.Signer(KEY, lambda: 1.0)
    return signer.sign("demo", "web", "1", 600, audiences=audiences)[0]


def test_a_token_is_reviewed_for_whom_it_is():
    def told(token, audiences=None):
        who = Authenticator(
            static={"static": ADMIN},
            signer=tokens.Signer(KEY, lambda: 2.0),
            exists=lambda *_: True,
        )
        spec = {"token": token} | ({"audiences": audiences} if audiences else {})
        found = asked(f"{AUTHENTICATION}/tokenreviews", spec, who)
        return found["authenticated"] and found["audiences"]

    here = tokens.AUDIENCE
    assert told(token_for(here)) == [here]
    assert told(token_for(here), ["vault"]) is False
    assert told(token_for("vault")) is False
    assert told(token_for("vault"), ["vault"]) == ["vault"]
    assert told(token_for("vault", here), ["vault", "x", here]) == ["vault", here]
    assert told("static") == [here]
    assert told("static", ["vault"]) is False
    assert told("static", ["vault", here]) == [here]


def test_a_token_for_others_does_not_let_in():
    signer = tokens.Signer(KEY, lambda: 2.0)
    who = Authenticator(signer=signer, exists=lambda *_: True)
    with pytest.raises(errors.ApiError):
        who.user(None, f"Bearer {token_for('vault')}")
    assert who.user(None, f"Bearer {token_for(tokens.AUDIENCE)}").uid == "1"


class LaggingStore:
    """A store whose memory knows another account than there is now."""

    def __init__(self, remembered, there):
        self.remembered, self.there = remembered, there

    def peek(self, resource, key):
        return self.remembered and versions.item({"metadata": {"uid": self.remembered}}, 1)

    def find(self, resource, key):
        return self.there and versions.item({"metadata": {"uid": self.there}}, 2)


@pytest.mark.parametrize(
    ("remembered", "there", "expected"),
    [
        ("1", "1", True),
        ("old", "1", True),
        (None, "1", True),
        ("old", None, False),
        (None, None, False),
        ("old", "other", False),
    ],
)
def test_an_account_that_is_newer_than_the_memory_is_believed(remembered, there, expected):
    exists = apiserver._looking_into(LaggingStore(remembered, there))
    assert exists("serviceaccounts", "demo", "web", "1") is expected


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"{ACCOUNT}/token", {"spec": "x"}),
        (f"{ACCOUNT}/token", {"spec": {"audiences": 5}}),
        (f"{ACCOUNT}/token", {"spec": {"boundObjectRef": "x"}}),
        ("/api/v1/namespaces/default/pods/a/binding", {"target": "n1"}),
        (
            "/api/v1/namespaces/default/pods/a/binding",
            {"target": {"name": "n"}, "metadata": {"annotations": 1}},
        ),
        ("/api/v1/namespaces/default/pods/a/eviction", {"deleteOptions": "x"}),
    ],
)
def test_parts_of_objects_that_make_no_sense_are_400(path, body):
    api = new_api()
    api = Api(api.store, api._writes._allocations, tokens.Signer(KEY))
    pod = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}]}}
    target = routes.target("/api/v1/namespaces/default/pods")
    api.create(target, msgspec.json.encode(pod))
    assert code(api.create, routes.target(path), msgspec.json.encode(body)) == 400


class TestFinalize:
    PATH = "/api/v1/namespaces/demo"

    @pytest.fixture
    def api(self):
        api = new_api()
        target = routes.target("/api/v1/namespaces")
        api.create(target, msgspec.json.encode({"metadata": {"name": "demo"}}))
        return api

    def finalize(self, api, body, **options):
        target = routes.target(f"{self.PATH}/finalize")
        return api.replace(target, msgspec.json.encode(body), Options(**options))

    def finalizers(self, api):
        found = msgspec.json.decode(api.get(routes.target(self.PATH)).body)
        return found["spec"]["finalizers"]

    def test_finalizers_are_replaced(self, api):
        self.finalize(api, {"spec": {"finalizers": ["x/y"]}})
        assert self.finalizers(api) == ["x/y"]

    def test_a_dry_run_changes_nothing(self, api):
        answer = self.finalize(api, {"spec": {"finalizers": ["x/y"]}}, dry_run=True)
        assert msgspec.json.decode(answer.body)["spec"]["finalizers"] == ["x/y"]
        assert self.finalizers(api) == ["kubernetes"]

    @pytest.mark.parametrize("meta", [{"resourceVersion": "1"}, {"uid": "another"}])
    def test_of_another_version_it_is_a_conflict(self, api, meta):
        body = {"metadata": {"name": "demo", **meta}, "spec": {}}
        assert code(self.finalize, api, body) == 409
        assert self.finalizers(api) == ["kubernetes"]

    @pytest.mark.parametrize("spec", ["x", {"finalizers": "x"}, {"finalizers": [1]}])
    def test_what_makes_no_sense_is_400(self, api, spec):
        assert code(self.finalize, api, {"spec": spec}) == 400

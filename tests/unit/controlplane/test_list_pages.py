"""Lists in pages: every page shows the version of the first, or is 410."""

import contextlib
from collections.abc import Iterator

import pytest

from kproxy import errors
from kproxy.controlplane import pages
from kproxy.controlplane.storage.memory import MemoryStorage
from kproxy.controlplane.store import Store


def pod(name: str, namespace: str = "demo", **spec: object) -> dict:
    return {"kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


@pytest.fixture
def store() -> Iterator[Store]:
    with contextlib.closing(Store(MemoryStorage(), history=10)) as made:
        for name in "abcde":
            made.create("pods", pod(name))
        yield made


def names(page: pages.Page) -> list[str]:
    return [item.obj["metadata"]["name"] for item in page.items]


def test_pages_are_all_of_one_version_whatever_happens_meanwhile(store):
    first = pages.page(store, "pods", limit=2)
    assert (names(first), first.remaining) == (["a", "b"], 3)
    original = store.get("pods", ("demo", "d"))
    store.delete("pods", ("demo", "c"))
    store.create("pods", pod("bb"))
    store.update("pods", ("demo", "d"), lambda old: {**old, "spec": {"x": 1}})
    second = pages.page(store, "pods", limit=2, token=first.token)
    assert (names(second), second.remaining) == (["c", "d"], 1)
    assert second.items[1] == original
    last = pages.page(store, "pods", limit=2, token=second.token)
    assert (names(last), last.token) == (["e"], "")
    assert first.version == second.version == last.version
    assert names(pages.page(store, "pods", limit=0)) == ["a", "b", "bb", "d", "e"]


def test_a_page_of_what_matches_does_not_tell_how_many_follow(store):
    page = pages.page(store, "pods", limit=1, selected=lambda pod: pod["metadata"]["name"] in "bd")
    assert (names(page), page.remaining) == (["b"], None)
    page = pages.page(
        store,
        "pods",
        limit=1,
        token=page.token,
        selected=lambda pod: pod["metadata"]["name"] in "bd",
    )
    assert (names(page), page.token) == (["d"], "")


def test_a_token_that_is_too_old_is_gone(store):
    first = pages.page(store, "pods", limit=2)
    for value in range(30):
        store.update("pods", ("demo", "d"), lambda old, value=value: {**old, "spec": {"x": value}})
    store.list("pods")
    with pytest.raises(errors.Gone):
        pages.page(store, "pods", limit=2, token=first.token)


@pytest.mark.parametrize("token", ["x", "e30", "!!!", "eyJ2ZXJzaW9uIjoxfQ", "\u00e9"])
def test_what_is_no_token_is_a_bad_request(store, token):
    with pytest.raises(errors.ApiError) as caught:
        pages.page(store, "pods", limit=2, token=token)
    assert caught.value.code == 400

"""Fixtures of the contract suites: a namespace, and clients that skip where the kernel cannot."""

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import pytest
from fresh_netns import fresh_namespace
from nft_tables import needs_nftables

from kproxy.kernel.inet import Family
from kproxy.kernel.nft.client import Nft


class Client(Protocol):
    """What every client of a kernel facility can do."""

    def close(self) -> None: ...


ClientType = TypeVar("ClientType", bound=Client)


@pytest.fixture
def namespace() -> Iterator[None]:
    """Let the test run in a network namespace of its own."""
    with fresh_namespace():
        yield


@pytest.fixture
def opened(request: pytest.FixtureRequest) -> Iterator[Callable[[ClientType], ClientType]]:
    """Return a function that skips unless the kernel supports a client, and closes it later."""
    request.getfixturevalue("namespace")
    clients: list[Client] = []

    def register(client: ClientType) -> ClientType:
        clients.append(client)
        why = client.supported() if hasattr(client, "supported") else None
        if why is not None:
            pytest.skip(f"needs a kernel that can: {why}")
        return client

    yield register
    for client in clients:
        client.close()


@pytest.fixture
def kernel_nft(request: pytest.FixtureRequest) -> Nft:
    client: Nft = request.getfixturevalue("opened")(Nft(Family.IPV4, "kube-proxy"))
    needs_nftables(client)
    return client

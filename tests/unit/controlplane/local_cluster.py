"""A cluster for tests whose API is in the same process: no sockets, no waiting."""

import random
from collections.abc import Mapping
from typing import Any

from kproxy.client import rest
from kproxy.client.objects import ObjectClient
from kproxy.controlplane import addresses, routes
from kproxy.controlplane.allocations import Allocations
from kproxy.controlplane.rest import Api
from kproxy.controlplane.storage.memory import MemoryStorage
from kproxy.controlplane.store import Store


def new_api(**options: Any) -> Api:
    """Return the API of an empty cluster; ``options`` go to its store."""
    store = Store(MemoryStorage(), **options)
    cidrs = addresses.parse_cidrs("10.96.0.0/16")
    return Api(store, Allocations(store, cidrs, draw=random.Random(1)))


class LocalCluster(ObjectClient):
    """The objects of an API in this process, by the paths that a client asks for."""

    def __init__(self, api: Api) -> None:
        super().__init__(_Direct(api))
        self.api = api


class _Direct:
    """Stands for :class:`kproxy.client.rest.Rest`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        content_type: str = rest.JSON,
    ) -> bytes:
        """Return the body of the answer. Raises ``ApiError``."""
        target = routes.target(path)
        match method, content_type:
            case "GET", _ if target.name:
                return self._api.get(target).body
            case "GET", _:
                return self._api.list(target, query or {}).body
            case "POST", rest.JSON:
                return self._api.create(target, body).body
            case "PUT", rest.JSON:
                return self._api.replace(target, body).body
            case "PATCH", rest.MERGE_PATCH:
                return self._api.merge_patch(target, body).body
            case "DELETE", _:
                return self._api.delete(target, {}, body).body
        raise AssertionError(f"{method} of {content_type}")

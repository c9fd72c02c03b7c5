"""Fixtures of the tests of the node's lock: its name, and proxies that want it."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest
from lock_proxies import PATIENCE_S, Make, Proxy

from kproxy.agent import handover, nodelock

_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    return f"kproxy/test-{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def make(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    # On a slow machine somebody is late who is neither stuck nor gone.
    for limit in ("OFFER_S", "SILENCE_S", "LEAVING_S"):
        monkeypatch.setattr(handover, limit, PATIENCE_S)
    monkeypatch.setattr(nodelock, "NOBODY_S", PATIENCE_S)
    with contextlib.ExitStack() as stack:

        def made(**options: Any) -> Proxy:
            proxy = Proxy(name, **options)
            stack.callback(proxy.close)
            return proxy

        yield made

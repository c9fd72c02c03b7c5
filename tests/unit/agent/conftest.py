"""Fixtures of the tests of the node's lock: its name, and proxies that want it."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest
from lock_proxies import Make, Proxy

_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    return f"kproxy/test-{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def make(name: str) -> Iterator[Make]:
    with contextlib.ExitStack() as stack:

        def made(**options: Any) -> Proxy:
            proxy = Proxy(name, **options)
            stack.callback(proxy.close)
            return proxy

        yield made

"""Flows of different trials never share a source port, whatever port the seed begins with."""

import itertools

import pytest

from kproxy.lab import generators

EPHEMERAL_FROM = 32768
"""Where the kernel's own choice of ports begins (ip_local_port_range)."""


@pytest.mark.parametrize("base", [0, 1, generators.SOURCE_PORTS - 1])
@pytest.mark.parametrize("targets", [1, 6])
def test_trials_have_ports_of_their_own(base: int, targets: int) -> None:
    flows = generators.FLOWS_PER_SERVICE * targets
    trials = generators.SOURCE_PORTS // flows - 1
    starts = sorted(generators.first_port(base, trial, targets) for trial in range(trials))
    assert all(b - a >= flows for a, b in itertools.pairwise(starts))
    assert starts[0] >= generators.FIRST_SOURCE_PORT
    assert starts[-1] + flows < EPHEMERAL_FROM

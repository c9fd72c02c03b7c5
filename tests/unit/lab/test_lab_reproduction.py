"""A result file says how it was made, and what came out differently the second time."""

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kproxy import errors
from kproxy.lab import comparison, generators, reproduction, setups
from kproxy.traffic import resultset
from kproxy.traffic.resultset import ResultSet, Row, Spread

ROW = Row(
    mode="ipvs",
    scenario="endpoint-crash",
    node="hit",
    traffic="udp",
    trials=3,
    offered_pps=2000.0,
    sent=9000,
    received=8910,
    lost=90,
    duplicated=0,
    reordered=0,
    failover_packet_loss=Spread(median=30, min=28, max=32),
    failover_time_ms=Spread(median=64.5, min=60.25, max=70.0),
    restart_to_synced_ms=None,
    tcp=None,
    accuracy_ms=16.0,
    valid=True,
)
PARAMETERS = comparison.Parameters(
    modes=("ipvs",),
    policies=(setups.Policy.KEEP, setups.Policy.FLUSH_AT_START),
    pairs=(("ipvs", "nftables"),),
    node_rules="table ip cni {}",
    trials=2,
    rates=generators.Rates(udp_pps=500.0),
)


def result(*rows: Row, **changes: Any) -> ResultSet:
    parameters: dict[str, Any] = {
        **dataclasses.asdict(PARAMETERS),
        "manifests": [{"kind": "Namespace", "metadata": {"name": "shop"}}],
        "notes": [],
        "seed": 7,
        "costs": {"name": "mine", "model": {"name": "mine"}},
        "started": "2026-01-01T00:00:00+00:00",
        **changes,
    }
    kernel = {"release": "6.12.1", "clock": "virtual"}
    return ResultSet(kernel=kernel, host={}, parameters=parameters, trials=(), summary=rows)


def test_the_recipe_survives_the_file(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    resultset.write(result(ROW), path)
    recipe = reproduction.recipe(resultset.read(path), path)
    assert recipe.parameters == PARAMETERS
    assert [m["kind"] for m in recipe.workload.manifests] == ["Namespace"]
    assert (recipe.clock, recipe.seed, recipe.release) == ("virtual", 7, "6.12.1")
    assert recipe.cost_model == {"name": "mine"}


def test_an_older_file_has_one_policy_and_no_pairs() -> None:
    older = result(ROW)
    del older.parameters["policies"], older.parameters["pairs"]
    recipe = reproduction.recipe(older, Path("x"))
    assert recipe.parameters.policies == (setups.Policy.KEEP,)
    assert recipe.parameters.pairs == ()


def test_the_recipe_names_the_kernel_and_its_memory() -> None:
    kernel = {
        "release": "6.12.1",
        "clock": "virtual",
        "name": "6.12.1-ab",
        "memory_limit_bytes": 5,
    }
    named = reproduction.recipe(dataclasses.replace(result(ROW), kernel=kernel), Path("x"))
    assert (named.kernel, named.memory) == ("6.12.1-ab", 5)
    older = reproduction.recipe(result(ROW), Path("x"))
    assert (older.kernel, older.memory) == (None, None)


def test_the_machines_own_kernel_is_named_too() -> None:
    kernel = {"provider": "native", "clock": "real", "name": None, "memory_limit_bytes": None}
    recipe = reproduction.recipe(dataclasses.replace(result(ROW), kernel=kernel), Path("x"))
    assert (recipe.kernel, recipe.memory) == ("native", None)


@pytest.mark.parametrize(
    "wrong", [{"clock": "sundial"}, {"memory_limit_bytes": "1G"}, {"name": 6.12}]
)
def test_a_kernel_that_cannot_be_is_refused_with_the_field(wrong: dict[str, Any]) -> None:
    found = dataclasses.replace(result(ROW), kernel={"release": "6.12.1", **wrong})
    with pytest.raises(errors.UsageError, match=f"kernel: .*{next(iter(wrong))}"):
        reproduction.recipe(found, Path("x"))


@pytest.mark.parametrize("field", ["modes", "manifests", "rates", "seed"])
def test_a_file_that_does_not_say_is_refused_with_the_field(field: str) -> None:
    whole = result(ROW)
    parameters = {name: value for name, value in whole.parameters.items() if name != field}
    cut = dataclasses.replace(whole, parameters=parameters)
    with pytest.raises(errors.UsageError, match=field):
        reproduction.recipe(cut, Path("result.json"))


def test_what_this_version_does_not_know_is_refused() -> None:
    with pytest.raises(errors.UsageError, match="proxy-nap"):
        reproduction.recipe(result(ROW, scenarios=["proxy-nap"]), Path("result.json"))


def test_equal_summaries_do_not_differ_whatever_else_does() -> None:
    again = result(ROW, started="2027-01-01T00:00:00+00:00")
    assert reproduction.differences(result(ROW), again) == []


def test_every_differing_figure_is_named_with_both_values() -> None:
    now = dataclasses.replace(
        ROW, lost=91, failover_time_ms=Spread(median=64.5, min=60.25, max=None)
    )
    assert reproduction.differences(result(ROW), result(now)) == [
        "ipvs endpoint-crash hit udp failover_time_ms max: 70.0, now null",
        "ipvs endpoint-crash hit udp lost: 90, now 91",
    ]


def test_missing_and_new_rows_are_told() -> None:
    other = dataclasses.replace(ROW, node="other")
    assert reproduction.differences(result(ROW), result(other)) == [
        "ipvs endpoint-crash hit udp: only before",
        "ipvs endpoint-crash other udp: only now",
    ]


def test_every_figure_of_a_row_is_compared() -> None:
    changed = {"offered_pps": 1.0, "valid": False, "trials": 9, "accuracy_ms": 1.0}
    for name, value in changed.items():
        now = dataclasses.replace(ROW, **{name: value})
        (line,) = reproduction.differences(result(ROW), result(now))
        assert f" {name}: " in line
    names = {field.name for field in dataclasses.fields(Row)}
    assert changed.keys() < names
    assert msgspec.to_builtins(ROW).keys() == names


def test_what_was_not_the_same_around_the_runs_is_told() -> None:
    before = dataclasses.replace(
        result(ROW), host={"kproxy": "0.1.0", "memory_bytes": 1, "guest": {"memory_bytes": 700}}
    )
    after = dataclasses.replace(
        result(ROW),
        kernel={"release": "6.12.2", "clock": "virtual"},
        host={"kproxy": "0.1.0", "memory_bytes": 2, "guest": {"memory_bytes": 1000}},
    )
    assert reproduction.circumstances(before, after) == [
        "kernel release: 6.12.1, now 6.12.2",
        "guest memory_bytes: 700, now 1000",
    ]

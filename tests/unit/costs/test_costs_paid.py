"""A process with a cost model sleeps what it says, and logs it; one without does nothing."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from kproxy import costfile, costs
from kproxy.errors import UsageError
from kproxy.logs import Log

ENTRY = {
    "process": "proxy",
    "place": "sync-full",
    "mode": "ipvs",
    "seconds": {"constant": 0.5, "per_service": 0.01, "per_endpoint": 0.002},
    "kernel": "native 6.18",
    "machine": "x86_64",
    "date": "2026-01-02",
    "points": [
        {"services": 10, "endpoints": 100, "n": 5, "median": 0.8, "min": 0.7, "max": 1.0}
    ],
}  # fmt: skip
ANY_MODE = {**ENTRY, "place": "start", "mode": "", "seconds": {"constant": 0.25}}


def model(*entries: dict[str, object]) -> bytes:
    return json.dumps({"format": costfile.FORMAT, "name": "test", "entries": entries}).encode()


class Sleeper:
    """Notes how long it was to sleep."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)


def test_a_place_costs_what_the_model_says_of_its_size() -> None:
    sleep, out = Sleeper(), io.StringIO()
    parsed = costfile.parse(model(ENTRY, ANY_MODE), "m")
    cost = costs.Costs("proxy", Log("proxy", stream=out), parsed, sleep, node="node1")
    cost.pay(costs.SYNC_FULL, mode="ipvs", services=10, endpoints=100)
    cost.pay(costs.START, mode="iptables")
    assert sleep.slept == [0.8, 0.25]
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    told = [(e["msg"], e["place"], e["mode"], e["seconds"], e["node"]) for e in events]
    assert told == [
        ("cost paid", "sync-full", "ipvs", 0.8, "node1"),
        ("cost paid", "start", "iptables", 0.25, "node1"),
    ]


def test_what_the_model_does_not_name_costs_nothing() -> None:
    sleep, out = Sleeper(), io.StringIO()
    cost = costs.Costs("proxy", Log("proxy", stream=out), costfile.parse(model(ENTRY), "m"), sleep)
    cost.pay(costs.SYNC_FULL, mode="iptables", services=10)
    cost.pay(costs.LIST, mode="ipvs")
    assert (sleep.slept, out.getvalue()) == ([], "")


def test_without_the_variable_nothing_is_paid() -> None:
    cost = costs.of("proxy", environment={})
    assert not cost.modelled
    cost.pay(costs.START)
    assert not costs.of("proxy", environment={costs.VARIABLE: ""}).modelled


def test_without_the_variable_no_file_format_is_imported() -> None:
    program = (
        "import sys; from kproxy import costs; costs.of('proxy', environment={}).pay('start')\n"
        "print([name for name in sys.modules if name in ('kproxy.costfile', 'msgspec', 'json')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_variable_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_bytes(model(ANY_MODE))
    assert costs.of("proxy", environment={costs.VARIABLE: str(path)}).modelled


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[]", "no JSON object"),
        (b"{", "no JSON object"),
        (b'{"format": "other/1"}', "format: is 'other/1'"),
        (model({**ENTRY, "seconds": {"constant": -1}}), "seconds.constant: -1 is less than"),
        (model({**ENTRY, "seconds": {"constants": 1}}), "constants"),
        (model({**ENTRY, "seconds": {"constant": "1"}}), "$.entries[0].seconds.constant"),
        (model(ENTRY, ENTRY), "entries[1] (proxy sync-full ipvs): is there twice"),
    ],
)
def test_a_wrong_model_is_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        costfile.parse(data, "cost model x.json")
    assert str(caught.value).startswith("cost model x.json: ")
    assert words in str(caught.value)


def test_a_missing_model_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.json: No such file.*bench costs"):
        costfile.read(tmp_path / "nowhere.json")


def test_a_model_comes_back_whole() -> None:
    parsed = costfile.parse(model(ENTRY, ANY_MODE), "m")
    assert costfile.parse(costfile.encode(parsed), "m") == parsed


def test_the_later_of_two_models_wins() -> None:
    first = costfile.parse(model(ENTRY, ANY_MODE), "m")
    second = costfile.parse(model({**ENTRY, "kernel": "other"}), "m")
    both = costfile.merged(first, second)
    assert [entry.kernel for entry in both.entries] == ["native 6.18", "other"]


@pytest.mark.parametrize(
    ("first", "writes", "places"),
    [
        (True, 0, [costs.SYNC_ADOPT]),
        (True, 50, [costs.SYNC_FULL]),
        (True, 2, [costs.SYNC_ADOPT, costs.SYNC_PARTIAL]),
        (False, 2, [costs.SYNC_PARTIAL]),
        (False, 50, [costs.SYNC_PARTIAL]),
        (False, 0, []),
    ],
)
def test_which_sync_it_is(first: bool, writes: int, places: list[str]) -> None:
    assert list(costs.sync_places(first=first, writes=writes, objects=30)) == places

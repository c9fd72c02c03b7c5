"""Which setups a comparison has: modes, restart policies, and pairs of modes to switch between."""

import itertools

import pytest

from kproxy import errors
from kproxy.lab import comparison, setups, switching
from kproxy.lab.comparison import Parameters
from kproxy.lab.modes import MODES
from kproxy.lab.setups import Policy, Setup


def test_pairs_are_all_changes_or_those_named() -> None:
    assert setups.pairs(MODES) == tuple(itertools.permutations(MODES, 2))
    assert len(setups.pairs(MODES)) == 6
    assert setups.pairs(MODES, "ipvs") == (("ipvs", "iptables"), ("ipvs", "nftables"))
    assert setups.pairs(MODES, "", "ipvs") == (("iptables", "ipvs"), ("nftables", "ipvs"))
    assert setups.pairs(MODES, "ipvs", "nftables") == (("ipvs", "nftables"),)


@pytest.mark.parametrize(
    ("modes", "old", "new", "said"),
    [
        (MODES, "ipvs", "ipvs", "--from ipvs --to ipvs: that is no change"),
        (MODES, "userspace", "", "--from userspace"),
        (("ipvs", "nftables"), "ipvs", "iptables", "--to iptables"),
        (("ipvs",), "", "", "mode ipvs alone"),
    ],
)
def test_what_is_no_change_is_refused(
    modes: tuple[str, ...], old: str, new: str, said: str
) -> None:
    with pytest.raises(errors.UsageError, match=said):
        setups.pairs(modes, old, new)


def test_policies_are_named_once() -> None:
    assert setups.policies(["keep", "cleanup-at-exit", "keep"]) == (
        Policy.KEEP,
        Policy.CLEANUP_AT_EXIT,
    )
    with pytest.raises(errors.UsageError, match="flush-at-start"):
        setups.policies(["flush"])


def test_labels_show_policy_and_pair() -> None:
    assert Setup(mode="ipvs").label == "ipvs"
    assert Setup(mode="ipvs", policy=Policy.FLUSH_AT_START).label == "ipvs+flush-at-start"
    assert Setup(mode="ipvs", to="nftables").label == "ipvs>nftables"
    every = Parameters(
        policies=tuple(Policy), pairs=setups.pairs(MODES), scenarios=("baseline", *switching.WAYS)
    ).all_setups()
    names = [one.file_name for one in every]
    assert len(set(names)) == len(names) == 15
    assert not any(set(name) & set("/> +") for name in names)


def test_each_setup_has_the_scenarios_that_are_for_it() -> None:
    parameters = Parameters(
        modes=("ipvs", "nftables"),
        policies=(Policy.KEEP, Policy.FLUSH_AT_START),
        pairs=(("ipvs", "nftables"),),
        scenarios=("baseline", "proxy-crash", "mode-switch-new-first"),
        trials=2,
    )
    labels = [one.label for one in parameters.all_setups()]
    assert labels == [
        "ipvs",
        "ipvs+flush-at-start",
        "nftables",
        "nftables+flush-at-start",
        "ipvs>nftables",
    ]
    assert parameters.total == 2 * (4 * 2 + 1)
    alone = [parameters.alone(one) for one in parameters.all_setups()]
    assert [one.all_setups() for one in alone] == [(one,) for one in parameters.all_setups()]
    assert sum(one.total for one in alone) == parameters.total
    assert comparison.unpromised(parameters) == ["ipvs+flush-at-start", "nftables+flush-at-start"]


def test_changes_of_mode_alone_need_no_other_setup() -> None:
    parameters = Parameters(pairs=(("ipvs", "nftables"),), scenarios=tuple(switching.WAYS))
    assert [one.label for one in parameters.all_setups()] == ["ipvs>nftables"]

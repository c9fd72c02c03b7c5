"""Reading, merging and checking configurations of kernels."""

import pytest

from netns.kernels import base, configuration

TEXT = """
#
# a comment
CONFIG_NET=y
CONFIG_HZ=100
CONFIG_NAME="a b"
# CONFIG_MODULES is not set
"""
OPTIONS = {"NET": "y", "HZ": "100", "NAME": '"a b"', "MODULES": "n"}


def test_options_are_read_and_comments_are_not() -> None:
    assert configuration.parse(TEXT) == OPTIONS


def test_what_is_rendered_is_read_again() -> None:
    assert configuration.parse(configuration.render(OPTIONS)) == OPTIONS


@pytest.mark.parametrize("line", ["NET=y", "CONFIG_NET", "CONFIG_NET=", "CONFIG_N-T=y"])
def test_what_is_no_option_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(ValueError, match=f"line 2 is no option: '{line}'"):
        configuration.parse(f"CONFIG_A=y\n{line}\n")


@pytest.mark.parametrize("again", ["CONFIG_A=m", "# CONFIG_A is not set"])
def test_an_option_that_is_set_twice_is_refused(again: str) -> None:
    with pytest.raises(ValueError, match="line 2 sets CONFIG_A again"):
        configuration.parse(f"CONFIG_A=y\n{again}\n")


def test_the_fragment_wins_and_comes_last() -> None:
    merged = configuration.merge({"A": "y", "B": "n", "C": "y"}, {"B": "y"})
    assert list(merged.items()) == [("A", "y"), ("C", "y"), ("B", "y")]


def test_what_did_not_come_out_is_named() -> None:
    wanted = {"A": "y", "B": "y", "C": "y", "D": "n", "E": "n", "F": "100"}
    result = {"A": "y", "B": "m", "E": "y", "F": "250"}
    unmet = configuration.unmet(wanted, result)
    assert unmet == ["CONFIG_B=y", "CONFIG_C=y", "# CONFIG_E is not set", "CONFIG_F=100"]


def test_order_and_comments_do_not_change_the_digest() -> None:
    one = configuration.parse("# why\nCONFIG_A=y\nCONFIG_B=y\n")
    other = configuration.parse("CONFIG_B=y\nCONFIG_A=y\n")
    assert configuration.digest(one) == configuration.digest(other)
    assert configuration.digest(one) != configuration.digest({"A": "y"})


def test_a_feature_needs_all_its_options() -> None:
    options = {"NFT_COMPAT": "y", "NF_TABLES_IPV4": "y", "NET_SCH_NETEM": "m"}
    assert configuration.features(options) == (base.Feature.NETEM,)
    options |= {"NF_TABLES_IPV6": "y"}
    assert configuration.features(options) == (base.Feature.IPTABLES_NFT, base.Feature.NETEM)

"""YAML texts that say little and mean much: aliases are written out only up to a limit."""

import pytest

from kproxy import errors
from kproxy.api import yamltext


def growing(line):
    """Return ten lines, of which each names the one before nine times."""
    lines = ["a0: &a0 {x: 1}"]
    for number in range(1, 11):
        names = ",".join([f"*a{number - 1}"] * 9)
        lines.append(line.format(number=number, names=names))
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(growing("a{number}: &a{number} [{names}]"), id="lists"),
        pytest.param(growing("a{number}: &a{number} {{<<: [{names}]}}"), id="merged maps"),
        pytest.param("a: &a [*a]", id="a list within itself"),
        pytest.param("a: &a {b: *a}", id="a map within itself"),
    ],
)
def test_aliases_cannot_fill_the_memory(text):
    with pytest.raises(errors.InvalidObject, match="aliases stand for more than"):
        yamltext.parse_one(text, "shop.yaml")


def test_aliases_mean_what_they_name():
    text = "base: &base {x: 1}\none: *base\ntwo: {<<: *base, y: '*'}\n"
    assert yamltext.parse_one(text, "shop.yaml") == {
        "base": {"x": 1},
        "one": {"x": 1},
        "two": {"x": 1, "y": "*"},
    }

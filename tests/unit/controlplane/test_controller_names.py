"""Names of pods: every number has its own letters and comes back; hashes tell templates apart."""

from hypothesis import given
from hypothesis import strategies as st

from kproxy.controlplane.controllers import names

ALL = len(names.LETTERS) ** names.SUFFIX


@given(st.text(), st.integers(0, ALL - 1))
def test_a_number_comes_back_from_its_letters(uid, number):
    letters = names.suffix(uid, number)
    assert len(letters) == names.SUFFIX
    assert set(letters) <= set(names.LETTERS)
    assert names.number(uid, f"web-{letters}") == number


def test_numbers_of_one_owner_look_unlike_and_differ_between_owners():
    first = [names.suffix("a", number) for number in range(1000)]
    assert len(set(first)) == 1000
    assert not set(first[:100]) & {names.suffix("b", number) for number in range(100)}


def test_the_next_number_is_above_all_that_are_known():
    used = [f"web-{names.suffix('u', number)}" for number in (3, 7)]
    assert names.next_number("u", "web", used, 0) == 8
    assert names.next_number("u", "web", used, 9) == 10
    assert names.next_number("u", "web", [], 0) == 1


def test_an_adopted_pod_of_any_name_does_not_send_numbers_far_ahead():
    far = f"web-{names.suffix('u', 5_000_000)}"
    assert names.next_number("u", "web", [far, "web-0", "web-", "other"], 2) == 3


def test_hashes_depend_on_the_template_alone():
    one = names.template_hash({"a": 1, "b": {"c": 2}})
    assert one == names.template_hash({"b": {"c": 2}, "a": 1})
    assert one != names.template_hash({"a": 1, "b": {"c": 3}})
    assert one != names.template_hash({"a": 1, "b": {"c": 2}}, salt=1)

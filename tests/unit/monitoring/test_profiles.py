"""Profile lab: the rules of production with a minute made a second, and nothing else changed."""

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kproxy.monitoring import profiles
from kproxy.monitoring.profiles import Profile


def halved(text: str, kind: str) -> str:
    return f"{kind}:{profiles.duration(profiles.milliseconds(text) // 2)}"


def by_alert(profile: str) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for document in profiles.rules(profile).values():
        for group in document["groups"]:
            for rule in group["rules"]:
                found.setdefault(rule.get("alert") or rule["record"], []).append(rule)
    return found


def test_the_files_are_those_of_production() -> None:
    files = {path.name: path for path in (profiles.DEPLOY / "rules").glob("*.yaml")}

    assert profiles.rules(Profile.PRODUCTION) == {
        name: yaml.safe_load(path.read_text()) for name, path in files.items()
    }


def test_both_profiles_have_the_same_alerts_in_the_same_words() -> None:
    production, lab = by_alert(Profile.PRODUCTION), by_alert(Profile.LAB)

    for name, rules in production.items():
        for one, other in zip(rules, lab.pop(name), strict=True):
            assert one.get("labels") == other.get("labels")
            assert one.get("annotations") == other.get("annotations")
    assert lab == {}


def test_in_a_lab_a_minute_is_a_second() -> None:
    (down,) = by_alert(Profile.LAB)["KubeProxyDown"]
    (record,) = by_alert(Profile.LAB)["namespace_service:kproxy_probe_loss:ratio_rate1h"]

    assert down["for"] == "15s"
    assert "[1m]" in record["expr"]


def test_no_window_is_too_short_for_a_rate() -> None:
    scrape = profiles.milliseconds(profiles.intervals(Profile.LAB).scrape)
    windows = {
        window
        for rules in by_alert(Profile.LAB).values()
        for rule in rules
        for window in re.findall(r"\[(\w+)\]", rule["expr"])
    }

    assert min(map(profiles.milliseconds, windows)) >= 4 * scrape


def test_numbers_of_seconds_that_a_profile_names_belong_to_a_rule() -> None:
    said = yaml.safe_load((profiles.DEPLOY / "profiles" / "lab.yaml").read_text())

    rules = by_alert(Profile.PRODUCTION)
    assert said["seconds"].keys() <= rules.keys()
    for name, numbers in said["seconds"].items():
        assert not isinstance(numbers, list) or len(numbers) == len(rules[name])


def test_every_age_that_an_alert_asks_for_is_another_one_in_a_lab() -> None:
    """Whoever compares ``time()`` or a metric of seconds has a number that has to be divided."""
    said = yaml.safe_load((profiles.DEPLOY / "profiles" / "lab.yaml").read_text())["seconds"]
    asks = {
        name
        for name, rules in by_alert(Profile.PRODUCTION).items()
        for rule in rules
        if "alert" in rule and re.search(r"time\(\)|(draining|processor)_seconds", rule["expr"])
    }

    assert asks <= said.keys()


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(ValueError, match="fast"):
        profiles.rules("fast")


def test_runbooks_are_where_a_site_keeps_them() -> None:
    documents = profiles.rules(Profile.PRODUCTION, runbooks=f"{profiles.RUNBOOKS}v2/")
    urls = {
        rule["annotations"]["runbook_url"]
        for document in documents.values()
        for group in document["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }

    assert f"{profiles.RUNBOOKS}v2/KproxyServiceLossBudgetBurn.md" in urls
    assert all(url.count("/v2/") == 1 for url in urls)


@pytest.mark.parametrize(
    ("expression", "scaled"),
    [
        ("rate(a[2m])", "rate(a[range:1m])"),
        ("a offset 4s > 10", "a offset offset:2s > 10"),
        ("max(rate(a[2m])[1h:1m])", "max(rate(a[range:1m])[range:30m:interval:30s])"),
        ("max_over_time(a[1h:])", "max_over_time(a[range:30m:])"),
        ('a{b="x[2m] offset 4s"}', 'a{b="x[2m] offset 4s"}'),
        ("job:a:rate5m + b_5m", "job:a:rate5m + b_5m"),
        ("a[1h30m]", "a[range:45m]"),
    ],
)
def test_durations_are_found_where_promql_has_them(expression: str, scaled: str) -> None:
    assert profiles.expression(expression, halved, {}) == scaled


def test_numbers_are_found_where_they_are_no_part_of_something_else() -> None:
    text = 'a60 > 60 and b{c="60"} > 600 and d[60s] > 6.0'

    found = profiles.expression(text, lambda duration, _: duration, {60: 1})

    assert found == text.replace("> 60 and b", "> 1 and b")


@pytest.mark.parametrize("text", ["a > 61", "a > 60 and b > 60"])
def test_a_number_that_is_not_there_just_once_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="60 occurs"):
        profiles.expression(text, halved, {60: 1})


@given(st.integers(min_value=0, max_value=10**10))
def test_durations_survive_being_written(total: int) -> None:
    assert profiles.milliseconds(profiles.duration(total)) == total


@pytest.mark.parametrize("text", ["", "5", "m", "5x", "-5m", "5m "])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        profiles.milliseconds(text)


def test_who_is_told_can_be_given() -> None:
    document = profiles.alertmanager(
        Profile.LAB,
        "http://192.0.2.1:9095/alerts",
        "/secrets/token",
        humans_url="http://192.0.2.2/humans",
        dead_man_url="http://192.0.2.2/dead-man",
    )

    receivers = {one["name"]: one for one in document["receivers"]}
    (webhook,) = receivers["remediation"]["webhook_configs"]
    assert webhook["url"] == "http://192.0.2.1:9095/alerts"
    assert webhook["http_config"]["authorization"]["credentials_file"] == "/secrets/token"
    assert receivers["humans"]["webhook_configs"][0]["url"] == "http://192.0.2.2/humans"
    assert receivers["dead-man"]["webhook_configs"][0]["url"] == "http://192.0.2.2/dead-man"


def test_waits_of_routes_are_divided_and_never_nothing_where_that_is_refused() -> None:
    production = profiles.alertmanager(Profile.PRODUCTION)["route"]
    lab = profiles.alertmanager(Profile.LAB)["route"]

    assert (production["group_wait"], lab["group_wait"]) == ("30s", "500ms")
    for route in (lab, *lab["routes"]):
        assert route.get("group_interval", "1s") != "0s"
        assert route.get("repeat_interval", "1s") != "0s"

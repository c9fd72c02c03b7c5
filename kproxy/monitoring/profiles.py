"""The rules of ``deploy/monitoring``, as they are for production or with every duration divided.

No rule is written twice: profile ``lab`` is made of production's files and of what
``profiles/lab.yaml`` says. Names stay, also those of recorded series: ``…:rate5m`` in a lab is
over five seconds, so that dashboards fit both.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parent / "deploy"
"""The files that are installed on a real cluster."""
RUNBOOKS = "https://kproxy.example/docs/runbooks/"
"""Stands in the files where a site writes where it keeps the runbooks."""

Document = dict[str, Any]

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION = r"(?:\d+(?:ms|[smhdw]))+"
_TOKENS = re.compile(
    r"(?P<text>\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|`[^`]*`)"
    rf"|\[\s*(?P<range>{_DURATION})\s*(?::\s*(?P<step>{_DURATION})?\s*)?\]"
    rf"|\boffset\s+(?P<offset>-?{_DURATION})"
    r"|(?P<name>[A-Za-z_:][A-Za-z0-9_:]*)"
    r"|(?P<number>\d+(?:\.\d+)?)"
)


class Profile(StrEnum):
    """How fast things are noticed."""

    PRODUCTION = "production"
    LAB = "lab"


@dataclass(frozen=True, slots=True)
class Intervals:
    """What goes into the section ``global`` of Prometheus' configuration, as durations."""

    scrape: str
    timeout: str
    evaluation: str


@dataclass(frozen=True, slots=True)
class _Scale:
    """What a profile does to production's rules."""

    divide: int
    intervals: Intervals
    floors: Mapping[str, str]
    seconds: Mapping[str, Mapping[float, float] | list[Mapping[float, float]]]
    """By the rules' names; a list has one entry for each rule of that name."""

    def duration(self, text: str, kind: str) -> str:
        """Return a duration in this profile; ``kind`` names its floor."""
        sign = "-" if text.startswith("-") else ""
        least = milliseconds(self.floors.get(kind, "0s"))
        return sign + duration(max(least, milliseconds(text.lstrip("-")) // self.divide))


_PRODUCTION = _Scale(1, Intervals("30s", "10s", "30s"), {}, {})


def rules(profile: str, *, runbooks: str = RUNBOOKS) -> dict[str, Document]:
    """Return all rule documents of Prometheus by file name.

    ``runbooks`` is where their pages are kept: what ``runbook_url`` begins with. Raises ValueError
    for a profile that does not exist.
    """
    scale = _scale(profile)
    files = sorted((DEPLOY / "rules").glob("*.yaml"))
    return {file.name: _scaled(_load(file), scale, runbooks) for file in files}


def intervals(profile: str) -> Intervals:
    """Return how often Prometheus scrapes and evaluates. Raises ValueError like :func:`rules`."""
    return _scale(profile).intervals


def divisor(profile: str) -> int:
    """Return by what production's durations are divided. Raises ValueError like :func:`rules`."""
    return _scale(profile).divide


def alertmanager(
    profile: str,
    webhook_url: str | None = None,
    credentials_file: str | None = None,
    *,
    humans_url: str | None = None,
    dead_man_url: str | None = None,
) -> Document:
    """Return Alertmanager's configuration; what is None stays as the file has it.

    ``webhook_url`` and ``credentials_file`` (a bearer token) are those of remediation;
    ``humans_url`` and ``dead_man_url`` are webhooks that take what is for people, and Watchdog.
    Raises ValueError like :func:`rules`.
    """
    scale = _scale(profile)
    document = _load(DEPLOY / "alertmanager" / "alertmanager.yml")
    _scale_route(document["route"], scale)
    receivers = {receiver["name"]: receiver for receiver in document["receivers"]}
    (webhook,) = receivers["remediation"]["webhook_configs"]
    if webhook_url is not None:
        webhook["url"] = webhook_url
    if credentials_file is not None:
        webhook["http_config"]["authorization"]["credentials_file"] = credentials_file
    if humans_url is not None:
        receivers["humans"]["webhook_configs"] = [{"url": humans_url, "send_resolved": True}]
    if dead_man_url is not None:
        receivers["dead-man"]["webhook_configs"][0]["url"] = dead_man_url
    return document


def milliseconds(text: str) -> int:
    """Return a duration of Prometheus, such as ``1m30s``, in milliseconds."""
    if not re.fullmatch(_DURATION, text):
        raise ValueError(f"not a duration of Prometheus: {text!r}")
    parts = re.findall(r"(\d+)(ms|[smhdw])", text)
    return sum(int(count) * _UNITS[unit] for count, unit in parts)


def duration(total: int) -> str:
    """Return milliseconds as Prometheus writes a duration."""
    text = ""
    for unit in ("d", "h", "m", "s", "ms"):
        count, total = divmod(total, _UNITS[unit])
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def expression(
    text: str, scaled: Callable[[str, str], str], seconds: Mapping[float, float]
) -> str:
    """Return a PromQL expression with other durations and other numbers of seconds.

    ``scaled`` is given each duration and its kind (``range``, ``interval``, ``offset``). Raises
    ValueError if a number of ``seconds`` does not occur, or occurs more than once.
    """
    met = dict.fromkeys(seconds, 0)

    def replace(found: re.Match[str]) -> str:
        if found["range"] is not None:
            step = scaled(found["step"], "interval") if found["step"] else ""
            colon = ":" if ":" in found[0] else ""
            return f"[{scaled(found['range'], 'range')}{colon}{step}]"
        if found["offset"] is not None:
            return f"offset {scaled(found['offset'], 'offset')}"
        number = float(found["number"]) if found["number"] is not None else None
        if number is None or number not in met:
            return found[0]
        met[number] += 1
        return f"{seconds[number]:g}"

    result = _TOKENS.sub(replace, text)
    for number, times in met.items():
        if times != 1:
            raise ValueError(f"{number:g} occurs {times} times, not once, in: {text}")
    return result


def _scale(profile: str) -> _Scale:
    if Profile(profile) is Profile.PRODUCTION:
        return _PRODUCTION
    said = _load(DEPLOY / "profiles" / f"{profile}.yaml")
    return _Scale(said["divide"], Intervals(**said["intervals"]), said["floors"], said["seconds"])


def _scaled(document: Document, scale: _Scale, runbooks: str) -> Document:
    met: Counter[str] = Counter()
    for group in document["groups"]:
        if "interval" in group:
            group["interval"] = scale.duration(group["interval"], "interval")
        for rule in group["rules"]:
            name = rule.get("alert") or rule["record"]
            seconds = scale.seconds.get(name, {})
            if isinstance(seconds, list):
                seconds = seconds[met[name]]
            met[name] += 1
            rule["expr"] = expression(rule["expr"], scale.duration, seconds)
            for field in ("for", "keep_firing_for"):
                if field in rule:
                    rule[field] = scale.duration(rule[field], field)
            if "alert" in rule:
                told = rule["annotations"]  # YAML lets several rules have one and the same
                url = told["runbook_url"].replace(RUNBOOKS, runbooks, 1)
                rule["annotations"] = {**told, "runbook_url": url}
    return document


def _scale_route(route: Document, scale: _Scale) -> None:
    for field in ("group_wait", "group_interval", "repeat_interval"):
        if field in route:
            # Alertmanager refuses a group_interval of nothing.
            kind = "wait" if field == "group_wait" else "interval"
            route[field] = scale.duration(route[field], kind)
    for each in route.get("routes", []):
        _scale_route(each, scale)


def _load(path: Path) -> Document:
    loaded: Document = yaml.safe_load(path.read_text())
    return loaded

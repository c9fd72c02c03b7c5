"""Result files as a report needs them: of several kinds, and also what is left of damaged ones.

:func:`kproxy.traffic.resultfile.read` refuses a file that is not whole. A report shows what there
is and says what is missing, because a run of hours that was cut short is worth a look.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import msgspec

from kproxy.errors import UsageError
from kproxy.traffic import chainset, chainsummary, resultfile, resultset, summary
from kproxy.traffic.chainset import ChainSet, LinkTrial
from kproxy.traffic.resultset import ResultSet, Trial

RESULT = "result.json"
COMPARISON, CHAIN = (form.partition("/")[0] for form in (resultset.FORMAT, chainset.FORMAT))
FORMATS = {COMPARISON: resultset.FORMAT, CHAIN: chainset.FORMAT}


class _CostModel(TypedDict, total=False):
    entries: list[dict[str, Any]]


class _Costs(TypedDict, total=False):
    name: str
    model: _CostModel
    measured: list[str]


_Number = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
_Names = list[str]
PARAMETERS: Mapping[str, Any] = {
    **dict.fromkeys(("trials", "first"), _Number),
    **dict.fromkeys(("modes", "scenarios", "links", "policies", "unpromised"), _Names),
    **dict.fromkeys(("notes", "incomplete"), _Names),
    "pairs": list[list[str]],
    "costs": _Costs,
}
"""What those parameters are that a report does more with than to show them."""
OF_KIND: Mapping[str, Mapping[str, Any]] = {
    COMPARISON: {"lossless": _Names, "left_out": _Names},
    CHAIN: {"lossless": dict[str, _Names], "left_out": dict[str, str]},
}
"""The same, where it depends on the kind of result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A result file that was read. ``troubles``: what could not be, in words; empty: all was."""

    path: Path
    label: str
    results: ResultSet | ChainSet
    troubles: tuple[str, ...] = ()


def read(path: Path, label: str = "") -> Loaded:
    """Read a result of ``kproxy compare`` or ``kproxy chain``, or the directory it is in.

    Raises :class:`UsageError` for what is not there, is no such file, or holds nothing to show.
    """
    if path.is_dir():
        path = path / RESULT
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}", remedy="name a result.json, or its directory"
        ) from None
    troubles: list[str] = []
    top = _decoded(data, path, troubles)
    family = _family(path, top.get("format"), troubles)
    top = resultfile.upgraded(top)
    top = {**top, "parameters": _parameters(top.get("parameters"), family, troubles)}
    results = _converted(path, top, family, troubles)
    troubles += _missing(results)
    return Loaded(path=path, label=label or _name(path), results=results, troubles=tuple(troubles))


def _name(path: Path) -> str:
    return path.absolute().parent.name if path.name == RESULT else path.stem


def _decoded(data: bytes, path: Path, troubles: list[str]) -> dict[str, Any]:
    try:
        top = msgspec.json.decode(data)
    except (ValueError, RecursionError):  # a DecodeError is a ValueError
        top = salvaged(data.decode(errors="replace"))
        if not top:
            raise UsageError(f"{path}: not JSON", remedy="name a result.json of kproxy") from None
        troubles.append("the file is cut short: what comes after the cut is missing")
    if not isinstance(top, dict):
        raise UsageError(f"{path}: no JSON object", remedy="name a result.json of kproxy")
    return top


def salvaged(text: str) -> dict[str, Any]:
    """Return the fields of a JSON object up to where it was cut, a list with its whole elements.

    Empty if not even one field is there.
    """
    found: dict[str, Any] = {}
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        return found
    at += 1
    while True:
        name, at = _value(text, at)
        if not isinstance(name, str) or text[at : at + 1] != ":":
            return found
        start = _skip(text, at + 1)
        value, at = _value(text, start)
        if at < len(text):
            found[name] = value
        elif text[start : start + 1] == "[":
            found[name] = _elements(text, start + 1)
        if text[at : at + 1] != ",":
            return found
        at += 1


def _elements(text: str, at: int) -> list[Any]:
    """Return the elements of a cut list of which the end is there."""
    found: list[Any] = []
    while True:
        element, at = _value(text, at)
        if at >= len(text):
            return found
        found.append(element)
        at += 1


def _value(text: str, at: int) -> tuple[Any, int]:
    """Return a value and where the next sign after it is; the end of the text if it is cut.

    A number of which nothing follows may be cut, too.
    """
    try:
        value, at = json.JSONDecoder().raw_decode(text, _skip(text, at))
    except (ValueError, RecursionError):  # JSONDecodeError; a number or nesting without end
        return None, len(text)
    return value, _skip(text, at)


def _skip(text: str, at: int) -> int:
    while text[at : at + 1].isspace():
        at += 1
    return at


def _family(path: Path, form: object, troubles: list[str]) -> str:
    family, _, version = form.partition("/") if isinstance(form, str) else ("", "", "")
    if family not in FORMATS:
        raise UsageError(
            f"{path}: format: is {form!r}, not one of {', '.join(map(repr, FORMATS.values()))}",
            remedy="name a result.json of `kproxy compare` or `kproxy chain`",
        )
    known = FORMATS[family].partition("/")[2]
    if version != known and version not in map(str, range(1, int(known))):
        troubles.append(
            f"format {form!r} is newer than what this kproxy knows ({FORMATS[family]!r}): what it "
            "does not know is left out"
        )
    return family


def _parameters(told: Any, family: str, troubles: list[str]) -> dict[str, Any]:
    """Return the parameters; those that are not as they should be are left out and told.

    They are kept as they were written: a file of a later version may say more.
    """
    if not isinstance(told, dict):
        troubles.append("parameters cannot be read: they are no object")
        return {}
    kinds = {**PARAMETERS, **OF_KIND[family]}
    found = {name: value for name, value in told.items() if value is not None}
    for name in kinds.keys() & found.keys():
        try:
            msgspec.convert(found[name], kinds[name])
        except msgspec.ValidationError as error:
            del found[name]
            troubles.append(f"parameters.{name} cannot be read: {error}")
    return found


def _converted(
    path: Path, top: dict[str, Any], family: str, troubles: list[str]
) -> ResultSet | ChainSet:
    """Return the results; trials that are not as they should be are left out and told."""
    wanted: type[ResultSet | ChainSet] = ResultSet if family == COMPARISON else ChainSet
    try:
        return msgspec.convert(top, wanted)
    except msgspec.ValidationError as error:
        why = str(error)
    said = len(troubles)
    names = ("kernel", "host", "parameters", *(["left_out"] if wanted is ChainSet else []))
    parts: Mapping[str, Any] = {name: _object(top, name, troubles) for name in names}
    raw = top.get("trials")
    trials: list[Any] = list(
        _trials(
            raw if isinstance(raw, list) else [],
            Trial if wanted is ResultSet else LinkTrial,
            troubles,
        )
    )
    rows = _rows(top, wanted)
    if not trials and not rows:
        raise UsageError(f"{path}: nothing in it can be shown: {why}", remedy="run again")
    if not rows:
        troubles.append("the summary cannot be read: it is made of the trials that can be")
    if not troubles[said:]:
        troubles.append(f"not all of it can be read: {why}")
    found: ResultSet | ChainSet
    if wanted is ResultSet:
        if not rows:
            rows = list(summary.judged(trials))
        found = ResultSet(**parts, trials=tuple(trials), summary=tuple(rows))
    else:
        if not rows:
            words = {t.link: chainsummary.Words(t.link, "") for t in trials}
            rows = list(chainsummary.summarise(trials, words))
        found = ChainSet(**parts, trials=tuple(trials), summary=tuple(rows))
    return dataclasses.replace(found, format=str(top["format"]))


def _object(top: Mapping[str, Any], name: str, troubles: list[str]) -> dict[str, Any]:
    """Return a field that is an object; if it is something else that is told, and it is empty."""
    found = top.get(name, {})
    if isinstance(found, dict):
        return found
    troubles.append(f"{name} cannot be read: it is no object")
    return {}


def _rows(top: Mapping[str, Any], wanted: type[ResultSet | ChainSet]) -> list[Any]:
    """Return the summary as it was written; nothing if that cannot be read."""
    kind: Any = list[resultset.Row] if wanted is ResultSet else list[chainset.LinkRow]
    try:
        rows: list[Any] = msgspec.convert(top.get("summary", []), kind)
    except msgspec.ValidationError:
        return []
    return rows


def _trials(
    raw: list[Any], kind: type[Trial | LinkTrial], troubles: list[str]
) -> Iterable[Trial | LinkTrial]:
    for number, one in enumerate(raw, start=1):
        try:
            yield msgspec.convert(one, kind)
        except msgspec.ValidationError as error:
            troubles.append(f"trials[{number - 1}] cannot be read: {error}")


def _expected(results: ResultSet) -> list[tuple[str, ...]]:
    """Return what was to be run, a mode and a scenario each; beside it, whatever was.

    Where nodes change their mode, or proxies have several policies, only what was.
    """
    told = results.parameters
    names: dict[tuple[str, ...], None] = {}
    if not told.get("pairs") and (told.get("policies") or ["keep"]) == ["keep"]:
        for mode in told.get("modes") or ():
            names.update({(mode, scenario): None for scenario in told.get("scenarios") or ()})
    names.update({(one.mode, one.scenario): None for one in results.trials})
    return list(names)


def _missing(results: ResultSet | ChainSet) -> list[str]:
    """Return which trials should be there by the parameters and are not."""
    told = results.parameters
    numbers, first = told.get("trials"), told.get("first", 1)
    if not isinstance(numbers, int):
        return []
    names: list[tuple[str, ...]]
    there: set[tuple[str, ...]]
    if isinstance(results, ResultSet):
        names = _expected(results)
        there = {(one.mode, one.scenario, str(one.number)) for one in results.trials}
    else:
        names = [(link,) for link in told.get("links") or () if link not in results.left_out]
        there = {(one.link, str(one.number)) for one in results.trials}
    said = []
    for name in names:
        gone = [n for n in range(first, first + numbers) if (*name, str(n)) not in there]
        if gone:
            which = "all trials" if len(gone) == numbers else f"trial {', '.join(map(str, gone))}"
            said.append(f"missing: {' '.join(name)}: {which} of {numbers}")
    return said

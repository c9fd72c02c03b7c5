"""How single values are shown in the tables of ``kubectl get``."""

from collections.abc import Iterable, Mapping
from typing import Any

from kproxy import rfc3339

Object = dict[str, Any]


def at(obj: Any, *path: str) -> Any:
    """Return what is at a path of an object; None where there is nothing."""
    for name in path:
        obj = obj.get(name) if isinstance(obj, dict) else None
    return obj


def age(text: str | None, now: float) -> str:
    """Return how long ago a time was, as kubectl tells it: ``45s``, ``5m12s``, ``2d4h``."""
    then = rfc3339.seconds_of(text)
    return "<unknown>" if then is None else duration(max(int(now - then), 0))


def duration(seconds: int) -> str:
    """Return a duration in at most two units, the second only where the first is small."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 365 * 2:
        return f"{days}d"
    years = days // 365
    return f"{years}y{days % 365}d" if years < 8 and days % 365 else f"{years}y"


def joined(values: Iterable[Any] | None, empty: str = "<none>", most: int = 0) -> str:
    """Return values with commas between them; of more than ``most`` the rest is counted."""
    texts = [str(value) for value in values or ()]
    if most and len(texts) > most:
        return f"{','.join(texts[:most])} + {len(texts) - most} more..."
    return ",".join(texts) or empty


def selector(obj: Any) -> str:
    """Return a label selector, or a map of labels, as text."""
    if not isinstance(obj, dict) or not obj:
        return "<none>"
    if not ({"matchLabels", "matchExpressions"} & obj.keys()):
        return joined(f"{name}={value}" for name, value in sorted(obj.items()))
    parts = [f"{name}={value}" for name, value in sorted((obj.get("matchLabels") or {}).items())]
    for rule in obj.get("matchExpressions") or ():
        parts.append(_expression(rule))
    return joined(parts)


def _expression(rule: Mapping[str, Any]) -> str:
    key, values = rule.get("key"), ",".join(rule.get("values") or ())
    match rule.get("operator"):
        case "In":
            return f"{key} in ({values})"
        case "NotIn":
            return f"{key} notin ({values})"
        case "DoesNotExist":
            return f"!{key}"
    return str(key)


def containers(template: Any) -> list[Object]:
    """Return the containers of a pod, or of a template of pods."""
    return [one for one in at(template, "spec", "containers") or () if isinstance(one, dict)]


def condition(obj: Object, name: str) -> Object:
    """Return a condition of an object's status; empty if there is none."""
    found = (one for one in at(obj, "status", "conditions") or () if one.get("type") == name)
    return next(found, {})

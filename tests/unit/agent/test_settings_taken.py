"""Every field of the configuration has an effect, or is told to have none."""

from collections.abc import Iterator
from pathlib import Path

from kproxy.agent.settings import from_config
from kproxy.api.config import (
    Conntrack,
    KubeProxyConfiguration,
    Linux,
    Section,
    with_defaults,
)
from kproxy.api.configfile import NO_EFFECT

ROOT = Path(__file__).resolve().parents[3] / "kproxy"

READ_ELSEWHERE = {"cluster_cidrs", "config_hard_fail", "logging"}
"""Fields that are read by a method of the configuration, or while it is read."""


def fields(section: type[Section], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield path and attribute of every field that is no section."""
    names = zip(section.__struct_encode_fields__, section.__struct_fields__, strict=True)
    for encoded, name in names:
        inner = section.__annotations__[name]
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from fields(inner, f"{prefix}{encoded}.")
        else:
            yield f"{prefix}{encoded}", name


def test_no_field_is_ignored_in_silence() -> None:
    readers = [*(ROOT / "agent").glob("*.py"), ROOT / "cli" / "nodeproxy.py"]
    program = "\n".join(path.read_text() for path in readers)
    silent = [
        path
        for path, name in fields(KubeProxyConfiguration)
        if f".{name}" not in program and path not in NO_EFFECT and name not in READ_ELSEWHERE
    ]
    assert silent == []


def test_what_belongs_to_backends_and_services_gets_there() -> None:
    tracking = Conntrack(clean_last=True, tcp_be_liberal=True)
    made = from_config(
        with_defaults(
            KubeProxyConfiguration(
                service_proxy_name="mine",
                make_before_break=True,
                linux=Linux(conntrack=tracking, masquerade_all=True),
            )
        )
    )
    assert (made.options.clean_last, made.options.tcp_be_liberal) == (True, True)
    assert {one.proxy_name for one in made.families} == {"mine"}
    assert {one.masquerade_all for one in made.families} == {True}
    assert made.make_before_break

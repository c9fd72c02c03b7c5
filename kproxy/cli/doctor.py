"""``kproxy doctor``: what this machine can do, line by line, and the remedy for what it cannot."""

import json
from collections.abc import Iterable
from dataclasses import asdict

import click

from kproxy.cli import doctor_checks
from kproxy.cli.doctor_checks import Check
from netns import errors as netns_errors
from netns.kernels import base, choice, uml


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--boot/--no-boot", default=True, help="Try out the embedded kernel (2 seconds).")
def doctor(as_json: bool, boot: bool) -> int:
    """Tell what this machine can do, and the remedy for what it cannot.

    Exit code 0 if some kernel can be used, so that `kproxy compare` can run; otherwise 1.
    """
    checks = [
        *doctor_checks.native_kernel(),
        *doctor_checks.embedded_kernel(boot=boot),
        *doctor_checks.tools(),
        *doctor_checks.python(),
        *doctor_checks.machine(),
        *doctor_checks.network_cards(),
    ]
    kernel, verdict = judge(checks)
    if as_json:
        answer = {
            "usable": kernel is not None,
            "kernel": kernel,
            "verdict": verdict,
            "checks": [asdict(check) for check in checks],
        }
        click.echo(json.dumps(answer, indent=2))
    else:
        click.echo("\n".join([*lines(checks), "", verdict]))
    return 0 if kernel is not None else 1


def judge(checks: Iterable[Check]) -> tuple[str | None, str]:
    """Return the name of the kernel that the lab would use (None: none), and a sentence on it."""
    failed_boot = next((one for one in checks if one.name == "boots" and not one.ok), None)
    try:
        chosen = choice.choose(choice.AUTO)
    except netns_errors.KernelUnusable as error:
        return None, f"The lab cannot run: {error}."
    if base.inside_guest():
        return chosen.provider.name, "The lab runs here, inside an embedded kernel."
    if chosen.provider.name == uml.NAME and failed_boot is not None:
        return None, f"The lab cannot run: {chosen.because}; {failed_boot.detail}."
    why = f" ({chosen.because})" if chosen.because else ""
    return chosen.provider.name, f"The lab runs on {chosen.provider.describe()}{why}."


def lines(checks: Iterable[Check]) -> list[str]:
    """Return the report for people: groups, and in each a line per check."""
    text = []
    group = None
    for check in checks:
        if check.group != group:
            group = check.group
            text.append(click.style(group, bold=True))
        mark = click.style("ok     ", fg="green") if check.ok else click.style("missing", fg="red")
        text.append(f"  {mark}  {check.name}: {check.detail}")
        if not check.ok and check.remedy:
            text.append(f"           remedy: {check.remedy}")
    return text

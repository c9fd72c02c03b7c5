"""Picks the kernel for a command: this machine's if it will do, an embedded one otherwise."""

from dataclasses import dataclass

from netns import errors
from netns.kernels import base, native, registry, uml

AUTO = "auto"
KINDS = (AUTO, native.NAME, uml.NAME)


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen kernel; ``because`` tells why it is not this machine's (empty if it is)."""

    provider: base.Provider
    because: str = ""


def names() -> list[str]:
    """Return what can be chosen on this machine."""
    return [*KINDS, *(kernel.name for kernel in registry.kernels())]


def choose(
    wanted: str,
    here: base.Provider | None = None,
    embedded: base.Provider | None = None,
) -> Choice:
    """Choose by name.

    ``native`` is this machine's kernel, also without IPVS; ``uml`` is the newest that was built
    here, or Debian's; ``auto`` is the first of these two that has everything; any other name is
    that of one embedded kernel (:mod:`registry`). Raises KernelUnusable, with the remedy, if what
    is wanted is not there or cannot be used.
    """
    if wanted not in KINDS:
        named = uml.Uml(registry.find(wanted))
        _insist(named)
        return Choice(named)
    here = here or native.Native(whole=wanted != native.NAME)
    embedded = embedded or uml.Uml(registry.preferred())
    if wanted == embedded.name:
        _insist(embedded)
        return Choice(embedded)
    lacking = here.obstacle()
    if lacking is None:
        return Choice(here)
    if wanted == here.name:
        raise errors.KernelUnusable(lacking.reason, remedy=lacking.remedy)
    also = embedded.obstacle()
    if also is not None:
        raise errors.KernelUnusable(
            f"{lacking.reason}, and {also.reason}", remedy=f"{lacking.remedy}, or {also.remedy}"
        )
    return Choice(embedded, because=lacking.reason)


def _insist(provider: base.Provider) -> None:
    obstacle = provider.obstacle()
    if obstacle is not None:
        raise errors.KernelUnusable(obstacle.reason, remedy=obstacle.remedy)

"""The modes of the node proxy, and which of them the kernel at hand can do."""

from collections.abc import Mapping, Sequence

from kproxy.backends import base
from kproxy.desired.model import Family
from kproxy.errors import KproxyError, Unsupported, UsageError

MODES = tuple(base.BACKENDS)


def read(text: str) -> tuple[str, ...]:
    """Return the modes that a list with commas names, each once. Raises as :func:`check`."""
    modes = tuple(dict.fromkeys(mode for mode in text.split(",") if mode))
    check(modes)
    return modes


def check(modes: Sequence[str]) -> None:
    """Raise ``UsageError`` naming the option for modes that there are not, or none at all."""
    known = f"known: {', '.join(MODES)}"
    if not modes:
        raise UsageError("--modes: none is named", remedy=known)
    for mode in modes:
        if mode not in MODES:
            raise UsageError(f"--modes {mode}: there is no such mode", remedy=known)


def unsupported(mode: str) -> str | None:
    """Return None, or why the kernel of the current namespace cannot do this mode."""
    try:
        backend = base.loader(mode)(Family.IPV4, base.Options())
    except Unsupported as error:
        return str(error)
    try:
        return backend.supported()
    except KproxyError as error:
        return str(error)
    finally:
        backend.close()


def lacking(modes: Sequence[str]) -> Mapping[str, str]:
    """Return which of these modes the kernel of the current namespace cannot do, and why."""
    return {mode: why for mode in modes if (why := unsupported(mode)) is not None}

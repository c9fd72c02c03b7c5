"""The modes of the node proxy, and which of them the kernel at hand can do."""

from collections.abc import Mapping, Sequence

from kproxy.backends import base
from kproxy.desired.model import Family
from kproxy.errors import KproxyError, Unsupported

MODES = tuple(base.BACKENDS)


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

"""Removing everything of ours from a node: ``kproxy proxy --cleanup``."""

from kproxy.backends import base
from kproxy.desired.model import Family
from kproxy.errors import KernelError, KproxyError, Unsupported
from kproxy.logs import Log


def clean_up(log: Log) -> None:
    """Remove what every mode writes, in both families. Raises what stands in the way, at the end.

    A mode or family that this kernel does not know has left nothing.
    """
    failures: list[KproxyError] = []
    for mode in base.BACKENDS:
        for family in Family:
            try:
                backend = base.loader(mode)(family, base.Options())
                if (reason := backend.supported()) is not None:
                    log.debug("nothing to clean up", backend=mode, family=family, reason=reason)
                    continue
                removed = backend.cleanup()
                backend.close()
            except Unsupported as error:
                log.debug("nothing to clean up", backend=mode, family=family, reason=str(error))
            except KernelError as error:
                failures.append(error)
            else:
                log.info("cleaned up", backend=mode, family=family, removed=removed)
    if failures:
        raise failures[0]

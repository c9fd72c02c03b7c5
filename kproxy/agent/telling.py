"""What the log says of syncs: what was done, what failed, what is wrong with objects.

Events on standard error, for people and for the lab: ``synced`` (written only after the kernel has
acknowledged everything, in all families, of that round), ``sync failed``, ``refused by the
kernel``, ``invalid object``, ``family not served``.
"""

from collections.abc import Iterable, Mapping, Sequence

from kproxy.errors import InvalidObject
from kproxy.logs import Log
from kproxy.proxier import SyncReport

FAILURES_TOLD = 5


class Teller:
    """Logs what syncs came to; what stays wrong is told once, for as long as it is there."""

    def __init__(self, log: Log, mode: str) -> None:
        self._log = log
        self._mode = mode
        self._refused: frozenset[str] = frozenset()
        self._invalid: frozenset[str] = frozenset()

    def synced(
        self, reports: Iterable[SyncReport], versions: Mapping[str, str], *, first: bool
    ) -> None:
        """Tell of a sync that has ended well in all families."""
        for report in reports:
            self._log.info(
                "synced",
                backend=self._mode,
                family=report.family,
                first=first,
                writes=report.result.writes,
                services=report.services,
                endpoints=report.endpoints,
                duration_ms=report.duration_ns / 1e6,
                versions=versions,
            )

    def failed(self, reports: Iterable[SyncReport], again_in_s: float) -> None:
        """Tell of a sync that will be tried again."""
        failures = [str(error) for report in reports for error in report.result.failures]
        self._log.warning(
            "sync failed",
            backend=self._mode,
            failures=failures[:FAILURES_TOLD],
            count=len(failures),
            again_in_s=again_in_s,
        )

    def refused(self, reports: Sequence[SyncReport]) -> None:
        """Tell what could not be served, once for as long as it is there."""
        results = [report.result for report in reports]
        refused = frozenset(str(error) for result in results for error in result.refused)
        invalid = frozenset(str(error) for result in results for error in result.invalid)
        new = sorted(refused - self._refused)
        if new:
            told = new[:FAILURES_TOLD]
            self._log.warning("refused by the kernel", failures=told, count=len(new))
        for error in sorted(invalid - self._invalid):
            self._log.warning("invalid object", error=error)
        self._refused, self._invalid = refused, invalid

    def problems(self, invalid: Iterable[InvalidObject], disabled: Iterable[str]) -> None:
        """Tell of wrong objects, and of families that this kernel cannot serve."""
        for problem in invalid:
            self._log.warning("invalid object", error=str(problem))
        for reason in disabled:
            self._log.warning("family not served", reason=reason)

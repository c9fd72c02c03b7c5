"""A user script as an action.

It is called with what it should do as its first argument:

``check`` (exit code 0: it would help; 1: it would not; else it cannot tell), ``run`` (0: done),
``verify`` (0: the trouble is gone) and, if its manifest says ``dryRun``, ``rehearse``. The last
line that it says is the reason that the audit log shows.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from kproxy.errors import KproxyError
from kproxy.monitoring.remediation.seams import Finished, Limits, Outcome, Target, Verdict

from . import manifests, running
from .manifests import Manifest
from .running import User

_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,252}")
"""What a label's value must be to be given to a script: nothing that begins like an option, or
that means something to a shell that the script may start."""
_REASON_MOST = 300
_DESCRIPTORS = 256


class ScriptAction:
    """Fits ``seams.Action``. ``limits_of`` returns what the configuration makes of own limits."""

    def __init__(
        self, path: Path, manifest: Manifest, user: User, limits_of: Callable[[Limits], Limits]
    ) -> None:
        self._path = path
        self._manifest = manifest
        self._user = user
        self.name = path.name
        self.summary = manifest.summary
        self.needs = frozenset(manifest.needs)
        self.limits = manifest.limits.over(Limits())
        self._final = limits_of(self.limits)

    def check(self, target: Target) -> Verdict:
        """Ask the script whether it would help."""
        for label in sorted(self.needs):
            if not _VALUE.fullmatch(target.labels.get(label, "")):
                return Verdict(False, f"the label {label} has a value that no script is given")
        ended = self._call("check", target, self._final.check_within)
        if ended.code not in (0, 1):
            raise KproxyError(f"{self.name} check ended with {ended.code}: {_reason(ended)}")
        return Verdict(ended.code == 0, _reason(ended))

    def run(self, target: Target) -> Outcome:
        """Let the script repair."""
        ended = self._call("run", target, self._final.run_within)
        return Outcome(ended.code == 0, _reason(ended))

    def verify(self, target: Target) -> Verdict:
        """Ask the script whether the trouble is gone."""
        ended = self._call("verify", target, self._final.check_within)
        return Verdict(ended.code == 0, _reason(ended))

    def _call(self, what: str, target: Target, timeout: float) -> Finished:
        # Somebody may have changed them since the start.
        manifests.check_directory(self._path.parent)
        manifests.check_file(self._path, executable=True)
        values = {label: target.labels[label] for label in self.needs}
        for label, value in values.items():
            if not _VALUE.fullmatch(value):
                raise KproxyError(f"the label {label} has a value that no script is given")
        arguments = [
            manifests.PLACE.sub(lambda place: values[place[1]], text)
            for text in self._manifest.args
        ]
        env = {name: values[label] for name, label in self._manifest.env.items()}
        env["KPROXY_BEGUN"] = f"{target.begun:.6f}"
        ended = running.run(
            [str(self._path), what, *arguments], env, self._user, timeout, self._rlimits(timeout)
        )
        if ended.timed_out:
            raise KproxyError(f"{self.name} {what} was killed after {timeout:g} s")
        return ended

    def _rlimits(self, timeout: float) -> dict[str, int]:
        limits = {
            "RLIMIT_CORE": 0,
            "RLIMIT_NOFILE": _DESCRIPTORS,
            "RLIMIT_AS": self._manifest.memory_bytes,
            "RLIMIT_FSIZE": self._manifest.file_bytes,
            "RLIMIT_CPU": int(timeout) + 1,
        }
        if os.geteuid() == 0:
            # It counts all processes of a user: of ours there may be many more.
            limits["RLIMIT_NPROC"] = self._manifest.processes
        return limits


class RehearsingScript(ScriptAction):
    """A script that can tell what it would do."""

    def rehearse(self, target: Target) -> Outcome:
        """Ask the script what it would do."""
        ended = self._call("rehearse", target, self._final.run_within)
        return Outcome(ended.code == 0, _reason(ended))


def _reason(ended: Finished) -> str:
    lines = [line.strip() for line in ended.stdout.splitlines() if line.strip()]
    words = lines[-1] if lines else f"exit code {ended.code}, without a word"
    return "".join(one if one.isprintable() else "?" for one in words[:_REASON_MOST])


def load(
    directory: str, user: str, limits_of: Callable[[str, Limits], Limits]
) -> dict[str, ScriptAction]:
    """Return the actions of a directory of scripts by name; empty: there are none.

    Raises UsageError, InvalidObject: a directory that cannot be trusted is none to run from.
    """
    found: dict[str, ScriptAction] = {}
    for path, manifest in manifests.find(Path(directory)) if directory else []:
        kind = RehearsingScript if manifest.dry_run else ScriptAction
        as_user = running.user_named(manifest.user or user)
        found[path.name] = kind(path, manifest, as_user, _final(limits_of, path.name))
    return found


def _final(limits_of: Callable[[str, Limits], Limits], name: str) -> Callable[[Limits], Limits]:
    return lambda own: limits_of(name, own)

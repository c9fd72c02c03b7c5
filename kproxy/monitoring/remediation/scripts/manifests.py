"""The manifest beside a user script, and whether both may be trusted.

``mend`` and ``mend.yaml`` in the directory are the action ``mend``. ::

    summary: restart the tunnel of a node     # for kproxy remediate actions
    needs: [node]                             # labels of the alert
    args: [--node, "{node}"]                  # {label} stands for a label's value
    env: {NODE: node}                         # variable: label
    user: nobody                              # default: userScripts.user
    memoryBytes: 268435456
    processes: 64
    dryRun: true                              # it understands `rehearse`
    limits: {runs: 3, period: 1h, coolDown: 5m, runWithin: 30s}
"""

import os
import re
import stat
from pathlib import Path

import msgspec

from kproxy.api import codec, yamltext
from kproxy.api.durations import Duration
from kproxy.errors import InvalidObject, UsageError
from kproxy.monitoring.remediation.settings import ActionSettings, decode_duration

NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
PLACE = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*)\}")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
_RESERVED = re.compile(r"LD_.*|PATH|HOME|LANG|IFS|ENV|BASH_.*|PYTHON.*|PERL.*|KPROXY_.*")
_GROUP_OR_OTHERS_WRITE = 0o022


class Manifest(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """What a manifest says; see the module."""

    summary: str
    needs: list[str]
    args: list[str] = []
    env: dict[str, str] = {}
    user: str = ""
    memory_bytes: int = 256 << 20
    processes: int = 64
    file_bytes: int = 16 << 20
    dry_run: bool = False
    limits: ActionSettings = ActionSettings()


def find(directory: Path) -> list[tuple[Path, Manifest]]:
    """Return the scripts of a directory with their manifests.

    Raises UsageError for what cannot be trusted or read, InvalidObject for a wrong manifest.
    """
    check_directory(directory)
    directory = directory.resolve()  # Who can change a link to it cannot change what is run.
    found = []
    for path in sorted(directory.glob("*.yaml")):
        script = path.with_suffix("")
        check_file(path)
        check_file(script, executable=True)
        found.append((script, _read(path)))
    return found


def check_directory(directory: Path) -> None:
    """Raise UsageError unless only root, or we, can put something there."""
    try:
        is_directory = directory.is_dir()
        if is_directory:
            list(directory.iterdir())
    except OSError as error:
        words = f"userScripts.directory: cannot read {directory}: {error.strerror}"
        raise UsageError(words, remedy="let the receiver's user read it") from None
    if not is_directory:
        raise UsageError(f"userScripts.directory: there is no directory {directory}")
    for one in (directory.resolve(), *directory.resolve().parents):
        status = one.stat()
        others_may = status.st_mode & _GROUP_OR_OTHERS_WRITE
        # In a sticky directory others may add files, but not replace ours.
        if one != directory.resolve() and status.st_mode & stat.S_ISVTX:
            others_may = 0
        _trusted(one, status.st_uid, bool(others_may))


def check_file(path: Path, *, executable: bool = False) -> None:
    """Raise UsageError unless it is a plain file that only root, or we, can change."""
    try:
        status = path.lstat()
    except OSError as error:
        words = f"user script {path}: {error.strerror}"
        raise UsageError(words, remedy="keep NAME and NAME.yaml beside each other") from None
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"user script {path} is no plain file", remedy="copy it there")
    _trusted(path, status.st_uid, bool(status.st_mode & _GROUP_OR_OTHERS_WRITE))
    if executable and not status.st_mode & stat.S_IXUSR:
        raise UsageError(f"user script {path} is not executable", remedy=f"chmod 755 {path}")


def _trusted(path: Path, owner: int, others_may: bool) -> None:
    if owner not in (0, os.geteuid()):
        words = f"user scripts: {path} belongs to user {owner}, who could change what is run"
        raise UsageError(words, remedy=f"chown root {path}")
    if others_may:
        words = f"user scripts: {path} can be written by its group or by anybody"
        raise UsageError(words, remedy=f"chmod go-w {path}")


def _read(path: Path) -> Manifest:
    where = f"manifest {path}"
    if not NAME.fullmatch(path.stem):
        raise InvalidObject(where, "", f"{path.stem!r} is no name of an action")
    try:
        body = yamltext.parse_one(path.read_text(), where)
        manifest = msgspec.convert(body, Manifest, dec_hook=decode_duration)
    except msgspec.ValidationError as error:
        field, problem, remedy = codec.explain(error)
        raise InvalidObject(where, field, problem, remedy=remedy) from None
    except UnicodeDecodeError as error:
        raise InvalidObject(where, "", f"is no text: {error.reason}") from None
    except OSError as error:
        raise UsageError(f"cannot read {where}: {error.strerror}") from None
    _check(where, manifest)
    return manifest


def _check(where: str, manifest: Manifest) -> None:
    for index, label in enumerate(manifest.needs):
        if not _LABEL.fullmatch(label):
            raise InvalidObject(where, f"needs[{index}]", f"{label!r} is no name of a label")
    used = {f"args[{i}]": PLACE.findall(text) for i, text in enumerate(manifest.args)}
    used |= {f"env.{name}": [label] for name, label in manifest.env.items()}
    for field, labels in used.items():
        for label in labels:
            if label not in manifest.needs:
                problem = f"uses the label {label!r}, which the script does not need"
                raise InvalidObject(where, field, problem, remedy="add it to needs")
    for name in manifest.env:
        if not _VARIABLE.fullmatch(name) or _RESERVED.fullmatch(name):
            problem = "is no name that a variable may have"
            raise InvalidObject(where, f"env.{name}", problem, remedy="write ALERT_NODE")
    for part, prefix in ((manifest, ""), (manifest.limits, "limits.")):
        names = zip(part.__struct_encode_fields__, part.__struct_fields__, strict=True)
        for encoded, field in names:
            value = getattr(part, field)
            if isinstance(value, Duration | int) and not isinstance(value, bool) and value <= 0:
                raise InvalidObject(where, prefix + encoded, "is not above 0")

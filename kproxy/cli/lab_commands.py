"""``kproxy lab apply``, ``exec``, ``kubectl``, ``shell``, ``logs``: commands inside a lab."""

import contextlib
import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from kproxy import errors
from kproxy.api import catalog, manifests
from kproxy.cli.lab_option import find, place_options
from kproxy.lab.door import client, messages
from kproxy.lab.door.directory import LabDirectory
from kproxy.lab.site import ADMIN
from netns.kernels import base

INSIDE = [sys.executable, "-m", "kproxy.lab.whole.inside"]
_VALUED = {
    "-n",
    "--namespace",
    "-s",
    "--server",
    "-v",
    "--v",
    "--context",
    "--cluster",
    "--user",
    "--kubeconfig",
    "--as",
    "--as-group",
    "--as-uid",
    "--token",
    "--cache-dir",
    "--request-timeout",
    "--tls-server-name",
    "--certificate-authority",
    "--client-certificate",
    "--client-key",
    "--username",
    "--password",
}
"""Options of kubectl itself, before its command, whose value is the next word."""
_TAKES_ALL = {"ignore_unknown_options": True, "allow_interspersed_args": False}


def ask(directory: LabDirectory, *words: str, data: bytes = b"") -> bytes:
    """Return what a lab answers to a question of ours. Raises UsageError, KproxyError."""
    start = messages.Start(host="", argv=[*INSIDE, *words], cwd=str(Path.cwd()))
    answer = client.capture(directory, start, data)
    if answer.code != 0:
        text = answer.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise errors.KproxyError(text or f"lab {directory.name} gave no answer ({answer.code})")
    return answer.stdout


def enter(directory: LabDirectory, host: str, argv: list[str], **env: str) -> int:
    """Run a command in a host with our streams; return its exit code."""
    env = {"TERM": os.environ.get("TERM", "dumb"), **env}
    start = messages.Start(host=host, argv=argv, env=env, cwd=str(Path.cwd()))
    return client.attach(directory, start)


@click.command("exec", context_settings=_TAKES_ALL)
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@place_options
def exec_(host: str, command: tuple[str, ...], name: str | None, place: Path) -> int:
    """Run COMMAND in a HOST of the lab, with this terminal's input and output.

    HOST is a host that `kproxy lab status` lists, or a pod as NAMESPACE/NAME. The exit code is
    the command's; 2: there is no such lab or host.

    The command sees this machine's files. In an embedded kernel they are read-only, and /tmp and
    /run are the lab's own.
    """
    words = command[1:] if command[0] == "--" else command
    return enter(find(place, name), host, list(words))


@click.command()
@click.argument("host", default=ADMIN)
@place_options
def shell(host: str, name: str | None, place: Path) -> int:
    """Open a shell in a HOST of the lab [default: admin, where kubectl works]."""
    prompt = f"\\[\\e[1m\\]{host}\\[\\e[0m\\]:\\w\\$ "
    return enter(find(place, name), host, ["bash", "--norc"], PS1=prompt)


@click.command(context_settings=_TAKES_ALL)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@place_options
def kubectl(arguments: tuple[str, ...], name: str | None, place: Path) -> int:
    """Run this machine's kubectl in the lab's host admin, with all rights.

    Options of ours (--name, --state-dir) go before kubectl's own words. Files after -f are read
    here, also where the lab does not see them. Its own help: `kproxy lab kubectl help`, and --help
    after a command of its.
    """
    if base.find_program("kubectl") is None:
        raise errors.UsageError(
            "there is no kubectl on this machine",
            remedy="install one (Debian: apt-get install kubernetes-client); "
            "`kproxy lab apply` and `kproxy lab status` need none",
        )
    directory = find(place, name)
    words, text = _with_files_read(list(arguments))
    if text is None:
        return enter(directory, ADMIN, ["kubectl", *words])
    with _input(text):
        return enter(directory, ADMIN, ["kubectl", *words])


@contextlib.contextmanager
def _input(text: bytes) -> Iterator[None]:
    """Have a text as this process's input, so that a command gets it and its output passes on.

    As it comes: kubectl may watch what the files name.
    """
    with os.fdopen(os.memfd_create("input"), "w+b") as file:
        file.write(text)
        file.flush()
        file.seek(0)
        try:
            before = os.dup(0)
        except OSError:  # there is no input
            before = os.open(os.devnull, os.O_RDONLY)
        try:
            os.dup2(file.fileno(), 0)
            yield
        finally:
            os.dup2(before, 0)
            os.close(before)


def _with_files_read(words: list[str]) -> tuple[list[str], bytes | None]:
    """Return the words with all files after -f replaced by one ``-``, and what they hold.

    Only plain files are: directories, URLs and ``-`` are left to kubectl, and so are the words
    after ``--`` and those of ``kubectl logs``, whose -f means to follow. None: there are no files.
    """
    if _verb(words) == "logs":
        return words, None
    kept: list[str] = []
    texts: list[bytes] = []
    rest = iter(words)
    for word in rest:
        if word == "--":
            kept += [word, *rest]
            break
        flag, value = _filename(word)
        taken = [word] if value or not flag else [word, *itertools.islice(rest, 1)]
        found = (value or "".join(taken[1:])).split(",") if flag else []
        if not found or not all(Path(path).is_file() for path in found):
            kept += taken
            continue
        kept += [] if texts else ["-f", "-"]
        texts += map(_read, found)
    if not texts:
        return words, None
    # What begins as JSON does is not looked at by kubectl for the "---" of YAML.
    mark = b"---\n" if len(texts) > 1 and texts[0].lstrip().startswith(b"{") else b""
    return kept, mark + b"\n---\n".join(texts)


def _verb(words: Sequence[str]) -> str:
    """Return kubectl's command: the first word that is neither an option nor its value."""
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            return word
        if word in _VALUED:
            next(rest, None)
    return ""


def _filename(word: str) -> tuple[bool, str]:
    """Return whether a word is the option -f, and its value, if that is not the next word."""
    for flag in ("-f", "--filename"):
        if word == flag:
            return True, ""
        if word.startswith(f"{flag}="):
            return True, word.removeprefix(f"{flag}=")
    return word.startswith("-f"), word.removeprefix("-f")


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise errors.UsageError(f"cannot read {path}: {error.strerror}") from None


@click.command()
@click.option(
    "-f",
    "--filename",
    "filenames",
    type=click.Path(path_type=Path, allow_dash=True),
    multiple=True,
    required=True,
    help="File of manifests, any number of documents; - is standard input. Repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per manifest.")
@place_options
def apply(filenames: tuple[Path, ...], as_json: bool, name: str | None, place: Path) -> int:
    """Apply Kubernetes manifests to the lab's cluster, as `kubectl apply --server-side` does.

    An object with a mistake is told and left out; the others are applied. Exit code 1 if there
    was any.
    """
    assert catalog.POD  # all kinds are known now
    directory = find(place, name)
    texts = [sys.stdin.read() if str(path) == "-" else path for path in filenames]
    good, problems = manifests.read_manifests(*texts)
    done: list[dict[str, Any]] = []
    if good:
        data = msgspec.json.encode([one.data for one in good])
        done = json.loads(ask(directory, "apply", data=data))
    for problem in problems:
        done.append({"label": problem.obj, "error": str(problem), "changed": False})
    for one in done:
        if as_json:
            click.echo(json.dumps(one))
        elif one["error"]:
            text = one["error"]
            label = "" if text.startswith(one["label"]) else f"{one['label']}: "
            click.echo(f"kproxy: {label}{text}", err=True)
        else:
            click.echo(f"{one['label']} {'applied' if one['changed'] else 'unchanged'}")
    return 1 if any(one["error"] for one in done) else 0


@click.command()
@click.argument("components", nargs=-1)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option("--tail", type=int, default=-1, metavar="N", help="Only the last N lines.")
@click.option("--raw", is_flag=True, help="Lines as they were written: JSON.")
@place_options
def logs(
    components: tuple[str, ...],
    follow: bool,
    tail: int,
    raw: bool,
    name: str | None,
    place: Path,
) -> int:
    """Print the logs of parts of the cluster, together and in order.

    COMPONENT is a host (control1), a part of a host (control1/apiserver), or a part of all hosts
    (apiserver). Proxies and name servers are pods: kube-proxy is all of them, kube-system/NAME
    one; of other pods tells `kproxy lab kubectl logs`. Without any: the names that there are.
    """
    words = ["logs", "--tail", str(tail)]
    words += ["--follow"] * follow + ["--raw"] * raw
    return enter(find(place, name), "", [*INSIDE, *words, "--", *components])

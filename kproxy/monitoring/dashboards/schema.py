"""Are the dashboards what Grafana's own schema says a dashboard is? TypeScript's compiler tells.

Grafana publishes its schema as types (the npm package ``@grafana/schema``); a dashboard's JSON is
an expression of such a type, or does not compile. The packages (33 MB) are installed once, in the
user's cache: ``$XDG_CACHE_HOME/kproxy/grafana-schema/``.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from kproxy import errors

PACKAGES = ("@grafana/schema@13.2.3", "typescript@7.0.2")
INSTALL_S, COMPILE_S = 180.0, 120.0
_DONE = "installed"
# JSON has texts where the types have members of enums, and the general type of a query knows
# nothing of Prometheus.
_TYPES = """\
import type { Dashboard } from "@grafana/schema";
type Json<T> = T extends string ? `${T}`
  : T extends (infer U)[] ? Json<U>[]
  : T extends object ? { [K in keyof T]: K extends "target" ? Query<T[K]> : Json<T[K]> }
  : T;
type Query<T> = T & { expr: string };
export type File = Json<Dashboard>;
"""
_OPTIONS = (
    *("--noEmit", "--strict", "--skipLibCheck", "--pretty", "false"),
    *("--moduleResolution", "bundler", "--module", "esnext", "--target", "es2022"),
)


def directory() -> Path:
    """Return where the packages are, or are to be; other versions have another place."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():  # as the XDG specification demands
        cache = Path.home() / ".cache"
    versions = "-".join(one.rpartition("@")[2] for one in PACKAGES)
    return cache / "kproxy" / "grafana-schema" / versions


def install() -> Path:
    """Install the packages if they are not there; return their directory.

    Raises Unsupported where there is no npm, or it cannot get them.
    """
    place = directory()
    if (place / _DONE).exists():
        return place
    if shutil.which("npm") is None or shutil.which("node") is None:
        raise errors.Unsupported("Grafana's schema needs npm", remedy="install node.js and npm")
    try:
        place.mkdir(parents=True, exist_ok=True)
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        words = ["npm", "install", *options, "--prefix", str(place), *PACKAGES]
        done = _run(words, place, INSTALL_S)
    except subprocess.TimeoutExpired:
        raise errors.Unsupported(
            f"npm could not install Grafana's schema within {INSTALL_S:g} s"
        ) from None
    except OSError as error:
        raise errors.Unsupported(f"npm could not install Grafana's schema: {error}") from None
    if done.returncode != 0:
        last = done.stderr.strip().rpartition("\n")[2]
        raise errors.Unsupported(f"npm could not install Grafana's schema: {last}")
    (place / _DONE).touch()
    return place


def problems(documents: Mapping[str, str]) -> list[str]:
    """Return what the compiler says against files of dashboards (name: text); empty: nothing.

    That it does not come to an end is said in a line, too. Raises Unsupported as :func:`install`
    does, and if there is no compiler where that has put it.
    """
    place = install()
    tsc = place / "node_modules" / ".bin" / "tsc"
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        # Modules are looked for from here upwards.
        (work / "node_modules").symlink_to(place / "node_modules")
        (work / "types.ts").write_text(_TYPES)
        for name, text in documents.items():
            module = f'import type {{ File }} from "./types";\nexport const it: File = {text};\n'
            (work / f"{Path(name).stem}.ts").write_text(module)
        names = sorted(path.name for path in work.glob("*.ts"))
        try:
            done = _run([str(tsc), *_OPTIONS, *names], work, COMPILE_S)
        except subprocess.TimeoutExpired:
            return [f"tsc has not ended within {COMPILE_S:g} s: the dashboards are not checked"]
        except OSError as error:
            raise errors.Unsupported(
                f"cannot run {tsc}: {error.strerror}", remedy=f"remove {place}: it is made anew"
            ) from None
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines or (["tsc failed without a word"] if done.returncode else [])


def _run(words: Sequence[str], where: Path, within: float) -> subprocess.CompletedProcess[str]:
    """Run a program with all that it starts. Raises OSError and TimeoutExpired; then all is gone.

    (Both are scripts that start the program proper, which would outlive them.)
    """
    with subprocess.Popen(
        words,
        cwd=where,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as popen:
        try:
            stdout, stderr = popen.communicate(timeout=within)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(popen.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(words, popen.returncode, stdout, stderr)

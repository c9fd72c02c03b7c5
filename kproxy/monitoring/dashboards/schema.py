"""Are the dashboards what Grafana's own schema says a dashboard is? TypeScript's compiler tells.

Grafana publishes its schema as types (the npm package ``@grafana/schema``); a dashboard's JSON is
an expression of such a type, or does not compile. The packages (33 MB) are installed once, in the
user's cache: ``$XDG_CACHE_HOME/kproxy/grafana-schema/``.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
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
        done = subprocess.run(
            ["npm", "install", *options, "--prefix", str(place), *PACKAGES],
            cwd=place,
            capture_output=True,
            text=True,
            timeout=INSTALL_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise errors.Unsupported(f"npm could not install Grafana's schema: {error}") from None
    if done.returncode != 0:
        last = done.stderr.strip().rpartition("\n")[2]
        raise errors.Unsupported(f"npm could not install Grafana's schema: {last}")
    (place / _DONE).touch()
    return place


def problems(documents: Mapping[str, str]) -> list[str]:
    """Return what the compiler says against files of dashboards (name: text); empty: nothing.

    Raises Unsupported as :func:`install` does.
    """
    place = install()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        # Modules are looked for from here upwards.
        (work / "node_modules").symlink_to(place / "node_modules")
        (work / "types.ts").write_text(_TYPES)
        for name, text in documents.items():
            module = f'import type {{ File }} from "./types";\nexport const it: File = {text};\n'
            (work / f"{Path(name).stem}.ts").write_text(module)
        done = subprocess.run(
            [
                place / "node_modules" / ".bin" / "tsc",
                *_OPTIONS,
                *sorted(path.name for path in work.glob("*.ts")),
            ],
            cwd=work,
            capture_output=True,
            text=True,
            timeout=COMPILE_S,
            check=False,
        )
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines or (["tsc failed without a word"] if done.returncode else [])

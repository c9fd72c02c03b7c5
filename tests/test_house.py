"""The rules of the house that no other tool checks: what keeps a reader from getting lost.

An exception from a rule stands in a table below with its reason, so it is a decision and not an
accident; an exception that is no longer needed fails too.
"""

import ast
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from kproxy import errors

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("kproxy", "netns")

LONGEST_FILE = 400
LONGEST_FUNCTION = 40
LONGEST_SCRIPT = 40

# file or "file::function" -> why it may be longer
LONGER: dict[str, str] = {}

# What the tools and the tests make, and what belongs to git: not ours to judge.
NOT_OURS = {".git", ".venv", ".vagrant", "results", "build", "__pycache__"}

# A registry or mirror named in a file would be one that a reader cannot reach or should not trust;
# an absolute path of somebody's home or checkout works on one machine only.
FORBIDDEN_TEXT = re.compile(
    r"pypi\.org|pythonhosted|--(?:extra-)?index-url|--find-links|file:///"
    r"|(?<![\w.])/(?:work|home|root|Users)/\w"
)


def our_files() -> Iterator[Path]:
    """Yield every file that belongs to the project."""
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        generated = NOT_OURS.intersection(parts) or any(
            part.endswith(("_cache", ".egg-info")) or part == ".hypothesis" for part in parts
        )
        if path.is_file() and not path.is_symlink() and not generated:
            yield path


def modules() -> list[Path]:
    """Return the Python files of both packages."""
    return [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]


def python_of_tests() -> list[Path]:
    """Return the Python files of the tests."""
    return sorted((ROOT / "tests").rglob("*.py"))


def relative(path: Path) -> str:
    """Return the path as it is written in this file's tables and in messages."""
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield name and number of lines, decorators and docstring left out, of every function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            documented = ast.get_docstring(node, clean=False) is not None
            docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
            yield node.name, (node.end_lineno or 0) - node.lineno + 1 - docstring


def lint_imports() -> subprocess.CompletedProcess[str]:
    """Run the import contracts of pyproject.toml."""
    program = Path(sys.executable).parent / "lint-imports"
    return subprocess.run([program], cwd=ROOT, capture_output=True, text=True, check=False)


def test_import_contracts_hold() -> None:
    answer = lint_imports()
    assert answer.returncode == 0, answer.stdout[-4000:] + answer.stderr
    assert " 0 broken" in answer.stdout


def test_every_module_says_why_it_exists() -> None:
    silent = [
        relative(path)
        for path in modules()
        if ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert silent == []


def test_no_file_is_too_long() -> None:
    files = [*modules(), *python_of_tests()]
    lengths = {relative(path): len(path.read_text().splitlines()) for path in files}
    long = {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE}
    assert {name: lines for name, lines in long.items() if name not in LONGER} == {}
    assert [name for name in LONGER if "::" not in name and name not in long] == []


def test_files_of_tests_have_names_of_their_own() -> None:
    """They are no packages: a module is imported by its name alone, and of two the first wins."""
    places: dict[str, list[str]] = {}
    for path in python_of_tests():
        if path.name != "conftest.py":  # pytest knows these by their directory
            places.setdefault(path.name, []).append(relative(path))
    assert "test_house.py" in places
    assert [found for found in places.values() if len(found) > 1] == []


def test_no_function_is_too_long() -> None:
    long = {
        f"{relative(path)}::{name}": lines
        for path in modules()
        for name, lines in functions(path)
        if lines > LONGEST_FUNCTION
    }
    assert {name: lines for name, lines in long.items() if name not in LONGER} == {}
    assert [name for name in LONGER if "::" in name and name not in long] == []


def test_scripts_are_short() -> None:
    """Logic lives in Python, where it has types and tests."""
    shell = [path for path in our_files() if path.read_bytes().startswith(b"#!/usr/bin/env bash")]
    assert ROOT / "scripts" / "install" in shell
    long = [relative(p) for p in shell if len(p.read_text().splitlines()) > LONGEST_SCRIPT]
    assert long == []


def test_nothing_is_named_utils() -> None:
    vague = {"utils", "util", "helpers", "misc", "common"}
    assert [relative(path) for path in modules() if path.stem in vague] == []


def test_no_machine_and_no_registry_is_named() -> None:
    found = []
    for path in our_files():
        if path == Path(__file__).resolve():
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
            if FORBIDDEN_TEXT.search(line):
                found.append(f"{relative(path)}:{number}: {line.strip()}")
    assert found == []


def map_of_the_tree() -> set[str]:
    """Return the paths that docs/architecture.md lists in its map, directories with a slash.

    The map is the first code block; what is indented belongs to the directory above it.
    """
    text = (ROOT / "docs" / "architecture.md").read_text()
    found: set[str] = set()
    parents: list[tuple[int, str]] = []
    for line in text.split("```")[1].splitlines()[1:]:
        if not (entry := re.match(r"( *)([\w.\-]+(?:/[\w.\-]+)*/?)(?= {2}|$)", line)):
            continue
        indent, name = len(entry[1]), entry[2]
        while parents and parents[-1][0] >= indent:
            parents.pop()
        path = (parents[-1][1] if parents else "") + name
        found.add(path)
        if name.endswith("/"):
            parents.append((indent, path))
    return found


def test_what_the_map_shows_exists() -> None:
    entries = map_of_the_tree()
    assert "kproxy/" in entries
    assert [entry for entry in sorted(entries) if not (ROOT / entry).exists()] == []


def test_every_package_is_on_the_map() -> None:
    entries = map_of_the_tree()
    tops = [
        path
        for name in PACKAGES
        for path in (ROOT / name).iterdir()
        if path.name not in NOT_OURS and (path.is_dir() or path.suffix == ".py")
    ]
    names = {relative(path) + ("/" if path.is_dir() else "") for path in tops}
    assert sorted(name for name in names - entries if "/__" not in name) == []


def test_every_backend_explains_its_packet_flow() -> None:
    backends = [path.parent for path in (ROOT / "kproxy" / "backends").glob("*/__init__.py")]
    assert {"ipvs", "iptables"} <= {path.name for path in backends}
    assert [path.name for path in backends if not (path / "README.md").is_file()] == []


def test_errors_are_drawn_as_they_are() -> None:
    drawn = re.findall(r"^ +[│ ]*(?:[├└]── )?([A-Z]\w+) {2,}", errors.__doc__ or "", re.MULTILINE)
    defined = [
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    ]
    assert sorted(drawn) == sorted(defined)


def test_the_node_proxy_starts_light() -> None:
    """What is imported at its start lengthens every restart of the proxy."""
    heavy = {"asyncio", "click", "logging", "pyroute2", "rich", "scapy", "yaml"}
    script = "import json, sys, kproxy.agent; print(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert heavy.intersection(json.loads(answer.stdout)) == set()

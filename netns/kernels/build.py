"""Builds a User-Mode Linux kernel from source, with everything in it that a lab needs.

A build is named by a hash of all that goes into it (``fragment.config``, ``entropy.c``,
``dcache.h``, the source) and works in a directory ``unfinished-HASH`` in the cache; when the
kernel is complete, one rename puts it beside as ``VERSION-HASH`` (:mod:`registry`). Interrupted at
any point, the same call goes on where it stopped: every step leaves something that is there only
when it is done::

    unfinished-HASH/  source/   unpacked (source.partial/ before); a tree is used where it is
                      objects/  make's; .config.done when the configuration is final
                      done/     the kernel, complete
                      build.log
"""

import datetime
import hashlib
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from netns import errors
from netns.kernels import base, configuration, job, registry, source
from netns.kernels.progress import Meter, Progress
from netns.kernels.registry import Built

DCACHE = "dcache.h"
RECIPE = "1"  # to be raised when this module builds something else from the same
ROOM = 2600 * base.MIB  # an unpacked source takes 1.5 GB, its objects 300 MB
# program -> Debian package
TOOLS = {
    "gcc": "gcc",
    "ld": "binutils",
    "make": "make",
    "flex": "flex",
    "bison": "bison",
    "bc": "bc",
    "tar": "tar",
    "xz": "xz-utils",
}
# The same source gives the same kernel, whoever builds it and when.
FIXED = {
    "LC_ALL": "C",
    "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
    "KBUILD_BUILD_USER": "netns",
    "KBUILD_BUILD_HOST": "netns",
    "KBUILD_BUILD_VERSION": "1",
}
TYPICAL_OBJECTS = 1320
MACHINES = ("x86_64", "i686", "i386")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to build: ``source`` as users name it, ``jobs`` compilers at once.

    With ``force`` a kernel that is there already is built again, and replaced when that is done.
    """

    source: str = source.DEFAULT
    jobs: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    force: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The kernel, and whether it was built now (or was there already)."""

    built: Built
    fresh: bool


def build(request: Request, report: Callable[[Progress], None] = lambda _: None) -> Outcome:
    """Build a kernel unless it is there, and return it; waits for another build to end.

    Raises SourceUnusable, or BuildFailed with what is missing or what the log says. What was
    compiled so far stays for the next call, also after an interrupt.
    """
    origin = source.find(request.source)
    key = build_key(fragment(), origin)
    there = registry.with_key(key)
    if there is None or request.force:
        insist_on_tools()
    else:
        return Outcome(there, fresh=False)

    def wait() -> None:
        report(Progress(step="waiting for another build to end"))

    with registry.lock(busy=wait) as lock:
        registry.sweep()
        there = registry.with_key(key)
        if there is not None and not request.force:
            return Outcome(there, fresh=False)
        return Outcome(_Build(request, origin, key, lock, report).run(), fresh=True)


def fragment() -> dict[str, str]:
    """Return our own options."""
    return configuration.parse(_own_file("fragment.config").decode())


def build_key(options: Mapping[str, str], origin: source.Source) -> str:
    """Return the hash that names a build."""
    parts = (RECIPE, configuration.digest(options), origin.digest)
    own = _own_file("entropy.c") + _own_file(DCACHE)
    total = hashlib.sha256("\0".join(parts).encode() + own)
    return total.hexdigest()[:8]


def missing_packages() -> list[str]:
    """Return the Debian packages of programs that a build needs and that are not here."""
    return [package for name, package in TOOLS.items() if base.find_program(name) is None]


def insist_on_tools() -> None:
    """Raise BuildFailed if something is missing that can be known beforehand."""
    if platform.machine() not in MACHINES:
        raise errors.BuildFailed(
            f"User-Mode Linux does not exist for {platform.machine()}",
            remedy="use a machine with an x86 processor",
        )
    packages = missing_packages()
    if packages:
        raise errors.BuildFailed(
            f"to build a kernel, these packages are missing: {' '.join(packages)}",
            remedy=f"apt-get install {' '.join(packages)}",
        )


def _own_file(name: str) -> bytes:
    return resources.files("netns.kernels").joinpath(name).read_bytes()


class _Build:
    """One build, with the lock held. Each method is a step that can be done again."""

    def __init__(
        self,
        request: Request,
        origin: source.Source,
        key: str,
        lock: int,
        report: Callable[[Progress], None],
    ) -> None:
        self._begun = time.monotonic()
        self._request = request
        self._origin = origin
        self._key = key
        self._place = registry.directory() / f"{registry.UNFINISHED}{key}"
        self._objects = self._place / "objects"
        self._tree = origin.path if origin.is_tree else self._place / "source"
        self._meter = Meter(report)
        self._around = job.Surroundings(
            environment={
                **{name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ},
                **FIXED,
            },
            log=self._place / registry.LOG,
            lock=lock,
            on_line=self._meter.line,
            on_tick=self._meter.tick,
        )

    def run(self) -> Built:
        """Do all steps."""
        self._place.mkdir(exist_ok=True)
        self._objects.mkdir(exist_ok=True)
        self._compile_entropy()
        if not self._tree.is_dir():
            self._insist_on_room()
            self._unpack()
        if not self._configured().exists():
            self._configure()
        self._compile()
        built = self._assemble()
        registry.discard(self._place)
        return built

    def _compile_entropy(self) -> None:
        """Compile the shared object; done first, as it tells at once if the compiler works."""
        self._meter.step("trying the compiler")
        text = self._place / "entropy.c"
        text.write_bytes(_own_file("entropy.c"))
        options = ("-shared", "-fPIC", "-O2", "-Wall", "-Werror")
        try:
            job.run(["gcc", *options, "-o", self._place / registry.ENTROPY, text], self._around)
        except errors.BuildFailed as failure:
            raise errors.BuildFailed(
                "the compiler cannot compile a small program",
                remedy="apt-get install gcc libc6-dev",
                output=failure.output,
            ) from None

    def _insist_on_room(self) -> None:
        room = os.statvfs(self._place)
        free = room.f_bavail * room.f_frsize
        if free < ROOM:
            raise errors.BuildFailed(
                f"a build needs {ROOM // base.MIB} MiB in {registry.directory()},"
                f" where {free // base.MIB} MiB are free",
                remedy="let XDG_CACHE_HOME name a directory with more room",
            )

    def _unpack(self) -> None:
        self._meter.step(f"unpacking {self._origin.label}")
        partial = self._place / "source.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        job.run(
            [
                *("tar", "--extract", "--file", self._origin.path),
                *("--directory", partial, "--strip-components=1", "--no-same-owner"),
            ],
            self._around,
        )
        partial.rename(self._tree)

    def _configured(self) -> Path:
        return self._objects / ".config.done"

    def _configure(self) -> None:
        self._meter.step("configuring")
        config = self._objects / ".config"
        wanted = fragment()
        self._make("defconfig")
        defaults = configuration.parse(config.read_text())
        config.write_text(configuration.render(configuration.merge(defaults, wanted)))
        self._make("olddefconfig")
        unmet = configuration.unmet(wanted, configuration.parse(config.read_text()))
        if unmet:
            raise errors.BuildFailed(
                f"this kernel does not take {len(unmet)} of the options that a lab needs",
                remedy="build another version with --source",
                output=tuple(unmet),
            )
        self._configured().touch()

    def _compile(self) -> None:
        self._meter.compiling(objects=self._count_objects(), estimate=_estimate())
        header = self._place / DCACHE
        header.write_bytes(_own_file(DCACHE))
        # Of fs/dcache.c alone; make hands it on to the makes that it starts.
        included = f"CFLAGS_dcache.o=-include {header}"
        self._make(included, f"-j{self._request.jobs}", "linux")

    def _make(self, *arguments: str) -> list[str]:
        command = ["make", "-C", str(self._tree), f"O={self._objects}", "ARCH=um", *arguments]
        return job.run(command, self._around)

    def _count_objects(self) -> int:
        return sum(1 for _ in self._objects.rglob("*.o"))

    def _assemble(self) -> Built:
        """Put the kernel together and let it appear."""
        self._meter.step("finishing")
        done = self._place / "done"
        shutil.rmtree(done, ignore_errors=True)
        done.mkdir()
        shutil.copy2(self._objects / "linux", done / registry.EXECUTABLE)
        shutil.copy2(self._objects / ".config", done / registry.CONFIGURATION)
        shutil.copy2(self._around.log, done / registry.LOG)
        shutil.copy2(self._place / registry.ENTROPY, done / registry.ENTROPY)
        release = (self._objects / "include" / "config" / "kernel.release").read_text().strip()
        final = registry.directory() / f"{release}-{self._key}"
        registry.write(self._describe(done, final.name, release))
        os.sync()  # what appears is complete also after a loss of power
        if final.exists():
            registry.discard(final)
        done.rename(final)
        built = registry.read(final)
        assert built is not None
        return built

    def _describe(self, done: Path, name: str, release: str) -> Built:
        options = configuration.parse((done / registry.CONFIGURATION).read_text())
        now = datetime.datetime.now(tz=datetime.UTC)
        return Built(
            directory=done,
            name=name,
            version=release,
            source=self._origin.label,
            source_digest=self._origin.digest,
            fragment_digest=configuration.digest(fragment()),
            compiler=options.get("CC_VERSION_TEXT", "unknown").strip('"'),
            features=configuration.features(options),
            options={one: options[one] for one in configuration.TELLING if one in options},
            built=now.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - self._begun, 1),
            size=(done / registry.EXECUTABLE).stat().st_size,
            objects=self._count_objects(),
        )


def _estimate() -> int:
    """Return how many objects there will be: as many as last time, or a typical number."""
    last = max(registry.built_kernels(), key=lambda one: one.built, default=None)
    return last.objects if last else TYPICAL_OBJECTS

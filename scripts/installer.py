"""Install what kproxy needs: Debian packages, Python packages into .venv, maybe a kernel.

It runs before anything is installed, so it uses the standard library only. It writes nothing
outside the checkout, apart from the Debian packages and the kernel in the user's cache, and is
done in a second when nothing is missing: a stamp in .venv tells from which files the environment
was made, and a kernel is named by a hash of what it is made from.
"""

import argparse
import compileall
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "kproxy-stamp"
CONSTRAINTS = ROOT / "constraints.txt"
PACKAGES = ROOT / "scripts" / "debian-packages.txt"
KUBECTL_PACKAGES = ROOT / "scripts" / "debian-packages-kubectl.txt"
ETCD_PACKAGES = ROOT / "scripts" / "debian-packages-etcd.txt"
MONITORING_PACKAGES = ROOT / "scripts" / "debian-packages-monitoring.txt"
KERNEL_PACKAGES = ROOT / "scripts" / "debian-packages-kernel.txt"
NO_KERNEL_VARIABLE = "KPROXY_NO_KERNEL_BUILD"  # 1: --kernel does nothing
EXIT_NO_KERNEL = 3
HEADER = """\
# The exact versions with which kproxy is tested; pyproject.toml has the ranges that may work.
# Written by `scripts/install --upgrade`, which takes the newest releases within those ranges.
"""


def main(arguments: list[str]) -> int:
    """Install what is missing and say so. Returns the exit code."""
    options = parser().parse_args(arguments)
    with (ROOT / "pyproject.toml").open() as lock:
        # Two of these at once (scripts/check beside scripts/test) take turns.
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            install_debian_packages(PACKAGES, allowed=options.apt)
            if options.kubectl and not shutil.which("kubectl"):
                install_debian_packages(KUBECTL_PACKAGES, allowed=options.apt)
            if options.etcd:
                install_stopped(ETCD_PACKAGES, "etcd", apt=options.apt)
            if options.monitoring:
                names = packages(MONITORING_PACKAGES)
                install_stopped(MONITORING_PACKAGES, *names, apt=options.apt)
            install_python_packages(upgrade=options.upgrade)
        except subprocess.CalledProcessError as error:
            command = " ".join(map(str, error.cmd))
            print(f"scripts/install: this failed (see above): {command}", file=sys.stderr)
            return 1
    # Every start of the proxy counts; in a kernel that sees these files read-only nobody else
    # could keep the bytecode.
    compileall.compile_dir(ROOT / "kproxy", quiet=1)
    compileall.compile_dir(ROOT / "netns", quiet=1)
    if options.kernel and os.environ.get(NO_KERNEL_VARIABLE, "") in ("", "0"):
        return install_kernel(apt=options.apt)
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the options of scripts/install."""
    result = argparse.ArgumentParser(
        prog="scripts/install",
        description="Install the Debian packages of scripts/debian-packages.txt that are missing "
        "(as root; anyone else is told their names), and the Python packages of constraints.txt "
        "into .venv. Does nothing when nothing is missing. Exit code 3: only the kernel of "
        "--kernel could not be built.",
    )
    result.add_argument(
        "--no-apt",
        dest="apt",
        action="store_false",
        help="install no Debian package, only name those that are missing",
    )
    result.add_argument(
        "--etcd",
        action="store_true",
        help="also install etcd, for labs whose API servers keep their objects in it rather than "
        f"in SQLite (packages of scripts/{ETCD_PACKAGES.name}); it is not started",
    )
    result.add_argument(
        "--monitoring",
        action="store_true",
        help="also install Prometheus and Alertmanager, for labs that are monitored "
        f"(packages of scripts/{MONITORING_PACKAGES.name}); they are not started",
    )
    result.add_argument(
        "--kubectl",
        action="store_true",
        help="also install kubectl unless there is one, for labs and the tests of the API server "
        f"(packages of scripts/{KUBECTL_PACKAGES.name})",
    )
    result.add_argument(
        "--kernel",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="also build a kernel for the lab (`kproxy kernel build`: 6 minutes) unless it is "
        f"there, and install the packages of scripts/{KERNEL_PACKAGES.name} for it; "
        f"{NO_KERNEL_VARIABLE}=1 in the environment forbids it",
    )
    result.add_argument(
        "--upgrade",
        action="store_true",
        help="make .venv anew with the newest releases that pyproject.toml allows, "
        "and write their versions to constraints.txt",
    )
    return result


def install_stopped(wanted: Path, *programs: str, apt: bool) -> None:
    """Install what is missing of programs, and stop what Debian starts with them.

    A service that was there before goes on: somebody may need it. Services and programs have the
    same names.
    """
    missing = [name for name in programs if not shutil.which(name)]
    if not missing:
        return
    install_debian_packages(wanted, allowed=apt)
    installed = [name for name in missing if shutil.which(name)]
    if installed and Path("/run/systemd/system").is_dir():
        subprocess.run(["systemctl", "--quiet", "disable", "--now", *installed], check=False)
        return
    for name in installed:
        script = Path("/etc/init.d", name)
        if script.exists():
            subprocess.run([script, "stop"], stdout=subprocess.DEVNULL, check=False)


def install_kernel(*, apt: bool) -> int:
    """Build our kernel unless the cache has it. Returns the exit code."""
    try:
        install_debian_packages(KERNEL_PACKAGES, allowed=apt)
        subprocess.run([VENV / "bin" / "kproxy", "kernel", "build"], cwd=ROOT, check=True)
    except subprocess.CalledProcessError:
        print("scripts/install: no kernel of our own was built (see above)", file=sys.stderr)
        return EXIT_NO_KERNEL
    return 0


def install_debian_packages(wanted: Path, *, allowed: bool) -> None:
    """Install the missing ones where that is possible, otherwise name them and the remedy."""
    missing = missing_debian_packages(wanted)
    if not missing:
        return
    if not (allowed and os.geteuid() == 0 and shutil.which("apt-get")):
        print(f"not installed: {' '.join(missing)}", file=sys.stderr)
        print(f"remedy: sudo apt-get install {' '.join(missing)}", file=sys.stderr)
        return
    print(f"installing Debian packages: {' '.join(missing)}", flush=True)
    install = ["install", "-y", "--no-install-recommends", *missing]
    # The lists of packages may be missing or too old; only then are they fetched.
    if apt_get(*install, check=False) != 0:
        apt_get("update")
        apt_get(*install)


def packages(wanted_list: Path) -> list[str]:
    """Return the names in a list of packages."""
    lines = wanted_list.read_text().splitlines()
    return [name for line in lines if (name := line.partition("#")[0].strip())]


def missing_debian_packages(wanted_list: Path) -> list[str]:
    """Return those packages of the list that dpkg does not know as installed."""
    wanted = packages(wanted_list)
    if not shutil.which("dpkg-query"):
        return wanted
    query = ["dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Package}\n", *wanted]
    answer = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    return [name for name in wanted if f"installed {name}" not in answer.splitlines()]


def apt_get(*arguments: str, check: bool = True) -> int:
    """Run apt-get without questions and return its exit code."""
    return subprocess.run(
        ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", *arguments],
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # what dpkg tells; errors are on standard error
        check=check,
    ).returncode


def install_python_packages(*, upgrade: bool) -> None:
    """Bring .venv to the versions of constraints.txt, or (``upgrade``) write that file anew."""
    stamp = fingerprint()
    works = environment_works()
    if works and not upgrade and STAMP.is_file() and STAMP.read_text() == stamp:
        return
    print("installing Python packages into .venv", flush=True)
    if upgrade or not works:
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
    STAMP.unlink(missing_ok=True)
    exact = [] if upgrade else ["--constraint", str(CONSTRAINTS)]
    # setuptools comes first and builds without isolation, so that its version is the stated one.
    pip("install", "--upgrade", *exact, "setuptools>=70.1")
    # "compat" adds the checkout to the path. The other way is a program that every start of Python
    # runs first, and what it imports takes longer than Python itself.
    compat = ("--config-settings", "editable_mode=compat")
    pip("install", *exact, "--no-build-isolation", *compat, "--editable", ".[dev]")
    if upgrade:
        frozen = pip("freeze", "--all", "--exclude", "pip", "--exclude-editable")
        CONSTRAINTS.write_text(HEADER + frozen)
        stamp = fingerprint()
    STAMP.write_text(stamp)


def pip(*arguments: str) -> str:
    """Run the environment's pip, without a cache outside the checkout; return its output."""
    command = [
        str(VENV / "bin" / "python"),
        "-m",
        "pip",
        "--disable-pip-version-check",
        *arguments,
    ]
    if arguments[0] == "install":
        command += ["--quiet", "--quiet", "--no-cache-dir"]  # errors only
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def environment_works() -> bool:
    """Tell whether .venv is there, was made for this very directory, and starts."""
    configuration = VENV / "pyvenv.cfg"
    if not configuration.is_file():
        return False
    made_for = configuration.read_text().rstrip().splitlines()[-1].split()[-1]
    if made_for != str(VENV):
        return False  # a copy: its programs name the interpreter of the original
    command = [str(VENV / "bin" / "python"), "-I", "-m", "pip", "--version"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False  # the interpreter that it was made with is gone


def fingerprint() -> str:
    """Return a hash of everything that decides what belongs into .venv."""
    files = (ROOT / "pyproject.toml", CONSTRAINTS)
    content = b"\0".join(file.read_bytes() for file in files if file.exists())
    return hashlib.sha256(content + sys.version.encode()).hexdigest() + "\n"


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)

"""Compiles Python packages before they are used where nothing can be cached."""

import compileall
import os
from collections.abc import Iterable
from pathlib import Path


def compile_packages(directories: Iterable[Path]) -> None:
    """Compile what has changed in these directories; those that may not be written are left."""
    for directory in directories:
        if os.access(directory, os.W_OK):
            compileall.compile_dir(directory, quiet=2)

"""Names of what controllers make: they tell revisions apart, and nobody can make one twice. Pure.

The pods of one owner are numbered 1, 2, 3 … The five letters at the end of a pod's name are its
number, shuffled by the owner's uid, and can be turned back. So whoever wants to make "the next
pod" from the same picture makes it under the same name, and the API server lets one of them do so:
a controller whose picture is old, or that has been replaced meanwhile, cannot make a pod too many.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

Object = dict[str, Any]

LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' choice: nothing that looks like something else, and no words by accident."""

SUFFIX = 5
_ALL: int = len(LETTERS) ** SUFFIX
_STEP = 8_675_309
"""Has no factor in common with _ALL (a power of 3), so that every number has its own letters."""
_STEP_BACK: int = pow(_STEP, -1, _ALL)


def suffix(uid: str, number: int) -> str:
    """Return the letters of an owner's pod of this number (below 27⁵)."""
    code = (number * _STEP + _shift(uid)) % _ALL
    letters = ""
    for _ in range(SUFFIX):
        code, letter = divmod(code, len(LETTERS))
        letters += LETTERS[letter]
    return letters


def number(uid: str, name: str) -> int:
    """Return the number of an owner's pod by its name; 0 for a name that is not of this kind."""
    letters = name[-SUFFIX:]
    if len(letters) < SUFFIX or any(letter not in LETTERS for letter in letters):
        return 0
    code = 0
    for letter in reversed(letters):
        code = code * len(LETTERS) + LETTERS.index(letter)
    return (code - _shift(uid)) * _STEP_BACK % _ALL


def next_number(uid: str, prefix: str, names: Iterable[str], known: int) -> int:
    """Return the number of the next pod; ``known`` is the highest that is known to have been.

    A pod that was adopted has a name of its own, which may look like a number far ahead: that is
    not counted. Should its number come up one day, the API server will say that it is taken.
    """
    found = (number(uid, name) for name in names if name.startswith(f"{prefix}-"))
    return max(known, *(one for one in found if one < known + _FAR), 0) + 1


_FAR = 100_000


def template_hash(template: Object, salt: int = 0) -> str:
    """Return a short hash of a pod template; with another ``salt`` another one."""
    text = json.dumps(template, sort_keys=True, separators=(",", ":")) + (str(salt or ""))
    code = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    letters = ""
    for _ in range(10):
        code, letter = divmod(code, len(LETTERS))
        letters += LETTERS[letter]
    return letters


def _shift(uid: str) -> int:
    return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8], "big") % _ALL

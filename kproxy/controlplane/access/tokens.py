"""Bearer tokens: those of a file, and signed ones of service accounts that expire.

A signed token says for whom, until when and for which pod it is; its account (and pod) must still
exist. It is renewed by asking for another; whoever holds it reads it from a file that is replaced.
"""

import csv
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kproxy import errors

from . import identity
from .identity import User

ALGORITHM = "HS256"
ISSUER = "https://kubernetes.default.svc.cluster.local"
AUDIENCE = ISSUER
SHORTEST, USUAL, LONGEST = 600, 3600, 24 * 3600
"""Seconds for which a token may be asked."""

Exists = Callable[[str, str, str, str], bool]
"""Whether there is an object of this resource, namespace, name and uid."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Whose token it is, and for which of the audiences asked for it was given out."""

    user: User
    audiences: tuple[str, ...]


class Signer:
    """Signs and checks tokens of service accounts; API servers of one key are as one."""

    def __init__(self, key: str, now: Callable[[], float] = time.time) -> None:
        self._key = key
        self._now = now

    @classmethod
    def from_file(cls, path: Path) -> "Signer":
        """Read the key. Raises UsageError."""
        try:
            key = path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise errors.UsageError(f"cannot read the key of tokens {path}: {error}") from None
        if len(key) < 32:
            raise errors.UsageError(f"the key in {path} is shorter than 32 characters")
        return cls(key)

    def sign(
        self,
        namespace: str,
        name: str,
        uid: str,
        seconds: int,
        *,
        audiences: Sequence[str] = (AUDIENCE,),
        pod: Mapping[str, str] | None = None,
    ) -> tuple[str, float]:
        """Return a token of a service account, and when (by the wall clock) it expires."""
        import jwt  # takes as long as a third of the API server's start, and may never be needed

        now = int(self._now())
        about: dict[str, Any] = {"namespace": namespace, "serviceaccount": _ref(name, uid)}
        if pod:
            about["pod"] = _ref(pod["name"], pod["uid"])
        claims = {
            "iss": ISSUER,
            "sub": f"{identity.ACCOUNT_PREFIX}{namespace}:{name}",
            "aud": list(audiences),
            "iat": now,
            "nbf": now,
            "exp": now + seconds,
            "kubernetes.io": about,
        }
        return jwt.encode(claims, self._key, algorithm=ALGORITHM), float(now + seconds)

    def proof(
        self, token: str, exists: Exists, audiences: Sequence[str] = (AUDIENCE,)
    ) -> Proof | None:
        """Return what a token proves to these audiences; None if it is not valid (any more)."""
        import jwt

        try:
            # Our own clock decides: a lab's need not be the machine's.
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[ALGORITHM],
                audience=list(audiences),
                issuer=ISSUER,
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
            about = claims["kubernetes.io"]
            namespace, account = about["namespace"], about["serviceaccount"]
            now = self._now()
            if not claims["nbf"] <= now < claims["exp"]:
                return None
            bound = [("serviceaccounts", account)]
            if "pod" in about:
                bound.append(("pods", about["pod"]))
            for resource, ref in bound:
                if not exists(resource, namespace, ref["name"], ref["uid"]):
                    return None
        except (jwt.InvalidTokenError, KeyError, TypeError):
            return None
        for_whom = tuple(one for one in audiences if one in claims["aud"])
        return Proof(identity.account(namespace, account["name"], account["uid"]), for_whom)


def _ref(name: str, uid: str) -> dict[str, str]:
    return {"name": name, "uid": uid}


def read_static(path: Path) -> dict[str, User]:
    """Read a file of tokens as kube-apiserver has it: ``token,user,uid,"group1,group2"``.

    Raises UsageError.
    """
    found = {}
    try:
        with path.open(newline="") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                if not row or row[0].startswith("#"):
                    continue
                if len(row) < 3 or not row[0] or not row[1]:
                    raise errors.UsageError(
                        f"{path}, line {number}: not token,user,uid", remedy="correct it"
                    )
                groups = tuple(filter(None, row[3].split(","))) if len(row) > 3 else ()
                found[row[0]] = identity.authenticated(row[1], groups, row[2])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise errors.UsageError(f"cannot read the tokens {path}: {error}") from None
    return found


def look_up(tokens: Mapping[str, User], token: str) -> User | None:
    """Return whose static token this is; takes equally long for all that are not there."""
    found = None
    for known, user in tokens.items():
        if hmac.compare_digest(known.encode(), token.encode()):
            found = user
    return found

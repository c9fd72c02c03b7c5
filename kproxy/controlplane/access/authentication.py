"""Who a client is: by a certificate of the lab's authority, or by a bearer token."""

from collections.abc import Mapping, Sequence
from typing import Any

from kproxy import errors

from . import identity, tokens
from .identity import User


class Authenticator:
    """Tells who sent a request. May be used from several threads."""

    def __init__(
        self,
        *,
        static: Mapping[str, User] | None = None,
        signer: tokens.Signer | None = None,
        exists: tokens.Exists = lambda *_: False,
    ) -> None:
        self._static = static or {}
        self._exists = exists
        self.signer = signer

    def user(self, certificate: Mapping[str, Any] | None, authorization: str) -> User:
        """Return the user; without any proof that is nobody.

        ``certificate`` is that of the connection, verified, as ``ssl`` decodes it. Raises ApiError
        401 for a proof that is wrong.
        """
        if authorization:
            scheme, _, token = authorization.partition(" ")
            found = self.of_token(token.strip()) if scheme.lower() == "bearer" else None
            if found is None:
                raise errors.ApiError(401, "Unauthorized", "Unauthorized")
            return found.user
        if certificate:
            return of_certificate(certificate.get("subject", ()))
        return identity.ANONYMOUS

    def of_token(
        self, token: str, audiences: Sequence[str] = (tokens.AUDIENCE,)
    ) -> tokens.Proof | None:
        """Return whose token this is, and for which of the audiences; None if it proves nothing.

        The tokens of a file are for this server only.
        """
        if not token.isascii():
            return None
        user = tokens.look_up(self._static, token)
        if user is not None:
            here = tuple(one for one in audiences if one == tokens.AUDIENCE)
            return tokens.Proof(user, here) if here else None
        return self.signer.proof(token, self._exists, audiences) if self.signer else None


def of_certificate(subject: Sequence[Sequence[tuple[str, str]]]) -> User:
    """Return whose certificate this is: CN is the name, each O a group."""
    pairs = [pair for part in subject for pair in part]
    name = next((value for key, value in pairs if key == "commonName"), "")
    groups = tuple(value for key, value in pairs if key == "organizationName")
    if not name:
        raise errors.ApiError(401, "Unauthorized", "Unauthorized")
    return identity.authenticated(name, groups)


def acting(user: User, headers: Mapping[str, str]) -> User:
    """Return as whom a user acts: himself, or whom he impersonates (``kubectl --as``).

    Raises ApiError: 403 if he is no administrator, 400 if he does not say whom.
    """
    asked = sorted(name for name in headers if name.startswith("impersonate-"))
    if not asked:
        return user
    name = headers.get("impersonate-user", "")
    if identity.ADMINS not in user.groups:
        message = f'users "{name}" is forbidden: User "{user.name}" cannot impersonate resource '
        message += '"users" in API group "" at the cluster scope'
        raise errors.ApiError(403, "Forbidden", message)
    if not name:
        raise errors.ApiError(400, "BadRequest", f"{asked[0]} without impersonate-user")
    if name == identity.ANONYMOUS.name:
        return identity.ANONYMOUS
    groups = tuple(filter(None, headers.get("impersonate-group", "").split(", ")))
    namespace, _, account = name.removeprefix(identity.ACCOUNT_PREFIX).partition(":")
    if name.startswith(identity.ACCOUNT_PREFIX) and account and not groups:
        return identity.account(namespace, account)
    return identity.authenticated(name, groups, headers.get("impersonate-uid", ""))

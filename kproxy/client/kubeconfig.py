"""Reading a kubeconfig: where the API server is, and how to prove who we are."""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from kproxy.api import yamltext
from kproxy.api.addresses import with_port
from kproxy.errors import InvalidObject, UsageError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""The directory with a pod's token."""
SERVICE_ACCOUNT_VARIABLE = "KPROXY_SERVICEACCOUNT_DIR"
"""Names that directory, where it cannot lie where Kubernetes has it."""


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach an API server. Certificates and keys are PEM text or files."""

    server: str
    ca_file: Path | None = None
    """This file and those of the client's certificate are read again when they have changed."""
    ca_data: str = ""
    insecure: bool = False
    tls_server_name: str = ""
    cert_file: Path | None = None
    cert_data: str = ""
    key_file: Path | None = None
    key_data: str = ""
    token: str = ""
    token_file: Path | None = None
    """Read again for every request: tokens of service accounts are renewed in place."""


def load_kubeconfig(path: Path, *, server: str = "") -> Access:
    """Read a kubeconfig file; ``server`` overrides the URL in it.

    Raises :class:`UsageError` if the file cannot be read, :class:`InvalidObject` if it is wrong.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read kubeconfig {path}: {reason}") from None
    return parse_kubeconfig(text, f"kubeconfig {path}", path.parent, server=server)


def access_of_pod(
    environment: Mapping[str, str], *, remedy: str = "give --kubeconfig=FILE"
) -> Access:
    """Return how a pod reaches the API server, as its service account.

    Raises UsageError, with ``remedy``: how whoever asks names a kubeconfig instead.
    """
    host, port = (environment.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
    if not host:
        raise UsageError("no API server: this is no pod", remedy=remedy)
    if not port:
        problem = "KUBERNETES_SERVICE_HOST is set, and KUBERNETES_SERVICE_PORT is not"
        raise UsageError(f"no API server: {problem}", remedy=f"set both, as in a pod, or {remedy}")
    directory = Path(environment.get(SERVICE_ACCOUNT_VARIABLE) or SERVICE_ACCOUNT)
    return Access(
        server=f"https://{with_port(host, port)}",
        ca_file=directory / "ca.crt",
        token_file=directory / "token",
    )


def parse_kubeconfig(text: str, where: str, directory: Path, *, server: str = "") -> Access:
    """Read a kubeconfig; file names in it are relative to ``directory``.

    Raises :class:`InvalidObject`.
    """
    config = _Part(where, "", yamltext.parse_one(text, where))
    name = config.text("current-context")
    contexts = config.named("contexts", "context")
    if not name and len(contexts) == 1:
        name = next(iter(contexts))
    context = _pick(config, contexts, name, "current-context")
    cluster = _pick(
        config, config.named("clusters", "cluster"), context.text("cluster"), "clusters"
    )
    user = _Part(where, "users", {})
    if user_name := context.text("user"):
        user = _pick(config, config.named("users", "user"), user_name, "users")
    _refuse_what_is_not_done(cluster, user)
    access = Access(
        server=server or _url(cluster),
        ca_file=cluster.path("certificate-authority", directory),
        ca_data=cluster.pem("certificate-authority-data"),
        insecure=cluster.truth("insecure-skip-tls-verify"),
        tls_server_name=cluster.text("tls-server-name"),
        cert_file=user.path("client-certificate", directory),
        cert_data=user.pem("client-certificate-data"),
        key_file=user.path("client-key", directory),
        key_data=user.pem("client-key-data"),
        token=user.text("token"),
        token_file=user.path("tokenFile", directory),
    )
    if access.insecure and (access.ca_file or access.ca_data):
        problem = "contradicts certificate-authority: one of them only"
        raise cluster.fault("insecure-skip-tls-verify", problem, "remove it, to stay safe")
    if bool(access.cert_file or access.cert_data) != bool(access.key_file or access.key_data):
        missing = "client-certificate" if access.key_file or access.key_data else "client-key"
        raise user.fault(missing, "is missing beside its other half", "give both")
    return access


_NOT_DONE = {
    "exec": "logging in by a program is not supported",
    "auth-provider": "this way to log in is not supported",
    "username": "logging in by a password is not supported",
    "as": "acting as somebody else is not supported",
}


def _refuse_what_is_not_done(cluster: "_Part", user: "_Part") -> None:
    """Raise for what would change to whom we speak, or as whom, if it were ignored."""
    for key, problem in _NOT_DONE.items():
        if user.data.get(key):
            raise user.fault(key, problem, "use a token, tokenFile or a client certificate")
    if cluster.text("proxy-url"):
        problem = "reaching the API server through a proxy is not supported"
        raise cluster.fault("proxy-url", problem, "give a server that can be reached directly")


class _Part:
    """A mapping in the file, with its place in it for messages."""

    def __init__(self, where: str, place: str, data: dict[str, Any]) -> None:
        self.data = data
        self._where = where
        self._place = place

    def fault(self, key: str, problem: str, remedy: str) -> InvalidObject:
        field = f"{self._place}.{key}" if self._place else key
        return InvalidObject(self._where, field, problem, remedy=remedy)

    def text(self, key: str) -> str:
        value = self.data.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.fault(key, "must be text", "put it in quotes")
        return value

    def truth(self, key: str) -> bool:
        value = self.data.get(key)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise self.fault(key, f"must be true or false, not {value!r}", "remove the quotes")

    def path(self, key: str, directory: Path) -> Path | None:
        value = self.text(key)
        return directory / value if value else None

    def pem(self, key: str) -> str:
        try:
            return base64.b64decode(self.text(key), validate=True).decode("ascii")
        except (binascii.Error, ValueError):
            raise self.fault(key, "is not base64 of PEM text", "encode it with base64") from None

    def named(self, key: str, inner: str) -> dict[str, "_Part"]:
        """Return the entries of a list such as ``clusters`` by their names."""
        entries = self.data.get(key)
        if entries is None:
            return {}
        if not isinstance(entries, list):
            raise self.fault(key, "must be a list", "begin each entry with - name:")
        found = {}
        for index, entry in enumerate(entries):
            place = f"{key}[{index}]"
            name = entry.get("name") if isinstance(entry, dict) else None
            data = entry.get(inner) if isinstance(entry, dict) else None
            if not isinstance(name, str) or not isinstance(data or {}, dict):
                raise self.fault(place, f"must have name and {inner}", "see kubectl config view")
            found[name] = _Part(self._where, f"{place}.{inner}", data or {})
        return found


def _pick(config: _Part, parts: dict[str, _Part], name: str, field: str) -> _Part:
    if name in parts:
        return parts[name]
    known = ", ".join(parts) or "none"
    what = f"has no entry {name!r}" if name else "is not set"
    raise config.fault(field, what, f"name one of: {known}")


def _url(cluster: _Part) -> str:
    url = cluster.text("server")
    if not url.startswith(("http://", "https://")):
        raise cluster.fault("server", f"{url!r} is not a URL", "write https://host:port")
    return url

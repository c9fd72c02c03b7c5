"""How an API server proves itself, and whom it believes."""

import contextlib
import fcntl
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kproxy import errors

from .access import kubeconfigs, tokens
from .access.identity import User
from .serving.kubelets import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """Certificates and tokens of an API server. Without ``certificate`` there is no TLS."""

    certificate: Path | None = None
    key: Path | None = None
    client_authority: Path | None = None
    """Who presents a certificate of this authority is who it says."""
    static_tokens: Path | None = None
    token_key: Path | None = None
    kubelets: Identity | None = None

    @classmethod
    def from_directory(cls, directory: Path, hosts: tuple[str, ...], url: str) -> "Security":
        """Return what a lab's directory of secrets holds; what is missing is made."""
        made = kubeconfigs.Credentials(directory, hosts, url)
        with _alone_in(directory):
            certificate, key = made.api_server()
            own_certificate, own_key = made.kubelet_client()
            token_key = made.token_key()
            made.kubeconfig(kubeconfigs.ADMIN)
        return cls(
            certificate=certificate,
            key=key,
            client_authority=made.ca_file,
            token_key=token_key,
            kubelets=Identity(certificate=own_certificate, key=own_key, authority=made.ca_file),
        )

    def server_context(self) -> ssl.SSLContext | None:
        """Return what connections are accepted with. Raises UsageError."""
        if self.certificate is None:
            return None
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(self.certificate, self.key)
            if self.client_authority is not None:
                context.load_verify_locations(self.client_authority)
                context.verify_mode = ssl.CERT_OPTIONAL
        except (OSError, ValueError) as error:
            raise errors.UsageError(
                f"the server's certificates: {error}", remedy="check --tls-cert-file and the like"
            ) from None
        context.num_tickets = 0  # nobody resumes sessions here, and each ticket takes a write
        return context

    def kubelet_context(self) -> ssl.SSLContext | None:
        """Return what connections to kubelets are made with. Raises UsageError."""
        return self.kubelets.context() if self.kubelets else None

    def signer(self) -> tokens.Signer | None:
        """Return what signs tokens of service accounts. Raises UsageError."""
        return tokens.Signer.from_file(self.token_key) if self.token_key else None

    def static(self) -> dict[str, User]:
        """Return the tokens of the file. Raises UsageError."""
        return tokens.read_static(self.static_tokens) if self.static_tokens else {}


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Let several API servers that start at once make one authority, not one each."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

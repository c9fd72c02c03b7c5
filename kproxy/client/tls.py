"""What https needs: whom to trust, and how to prove who we are, renewed when files are.

Imported for https only: ``ssl`` takes as long as many other imports of a starting proxy.
"""

import contextlib
import os
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

from kproxy.errors import UsageError

from .kubeconfig import Access

_Stamp = tuple[tuple[int, int, int], ...]


class TlsContexts:
    """Gives the context for the next connection. Safe to use from several threads."""

    def __init__(self, access: Access) -> None:
        """Raise :class:`UsageError` for certificates that cannot be used."""
        self._access = access
        self._lock = threading.Lock()
        self._stamp = _stamp(access)
        self._context = _context(access)

    def current(self) -> ssl.SSLContext:
        """Return the context; made anew if a file of certificates or keys has changed.

        Files that are being replaced may not fit each other for a moment: then it stays the old
        one, and they are read again for the next connection.
        """
        with self._lock:
            stamp = _stamp(self._access)
            if stamp != self._stamp:
                try:
                    self._context = _context(self._access)
                except UsageError:
                    return self._context
                self._stamp = stamp
            return self._context


def _stamp(access: Access) -> _Stamp:
    """Return what changes with the files."""
    found = []
    for path in (access.ca_file, access.cert_file, access.key_file):
        try:
            stat = path.stat() if path else None
        except OSError:
            stat = None
        found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size) if stat else (0, 0, 0))
    return tuple(found)


def _context(access: Access) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=access.ca_file, cadata=access.ca_data or None)
        if access.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if access.cert_data or access.cert_file:
            _load_client_certificate(context, access)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"certificates for {access.server}: {error}",
            remedy="check certificate-authority and client-certificate in the kubeconfig",
        ) from None
    return context


def _load_client_certificate(context: ssl.SSLContext, access: Access) -> None:
    # OpenSSL through Python reads client certificates from files only. What a kubeconfig holds
    # itself goes into files without a name: no key is left on a disk, and no disk is needed.
    with contextlib.ExitStack() as files:
        cert, key = access.cert_file, access.key_file
        if access.cert_data:
            cert = files.enter_context(_file_of(access.cert_data))
        if access.key_data:
            key = files.enter_context(_file_of(access.key_data))
        assert cert is not None
        context.load_cert_chain(cert, key)


@contextlib.contextmanager
def _file_of(text: str) -> Iterator[Path]:
    """Make a file in memory for a while; give its path."""
    with os.fdopen(os.memfd_create("kproxy-tls"), "wb") as file:
        file.write(text.encode())
        file.flush()
        yield Path(f"/proc/self/fd/{file.fileno()}")

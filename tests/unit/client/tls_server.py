"""A scripted server that speaks TLS, with certificates made for the occasion."""

import contextlib
import ssl
import subprocess

from scripted_server import ScriptedServer


def make_certificate(directory, name, names="IP:127.0.0.1,DNS:api"):
    """Return a self-signed certificate and its key, as files."""
    cert, key = directory / f"{name}-cert.pem", directory / f"{name}-key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
               "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", f"/CN={name}",
               "-addext", f"subjectAltName={names}"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


class TlsServer(ScriptedServer):
    """Asks for a client certificate if told to; ``clients`` are the names in them."""

    def __init__(self, reply, certificate, *, ask=False, trust=None):
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(*certificate)
        self.clients = []
        if ask:
            for cert in trust or [certificate[0]]:
                self._tls.load_verify_locations(cert)
            self._tls.verify_mode = ssl.CERT_REQUIRED
        super().__init__(reply)
        self.url = self.url.replace("http:", "https:")

    def _serve(self, connection, number):
        with contextlib.suppress(OSError), connection:
            secure = self._tls.wrap_socket(connection, server_side=True)
            self._open.append(secure)
            if self._tls.verify_mode is ssl.CERT_REQUIRED:
                subject = dict(part[0] for part in secure.getpeercert()["subject"])
                self.clients.append(subject["commonName"])
            super()._serve(secure, number)

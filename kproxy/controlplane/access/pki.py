"""The certificates of a lab: one authority, and what it signs for servers and clients.

Ed25519 throughout: keys, certificates and signatures of one kind are of one size, so a handshake
takes the same bytes in every run. They are valid for this whole century, because a lab's clock may
say anything.
"""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kproxy import errors

from . import identity

_FIRST = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_LAST = datetime.datetime(2099, 12, 31, tzinfo=datetime.UTC)
_COMMON_NAME = "kproxy lab"
_SERIAL_BYTES = 16


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as PEM text."""

    certificate: str
    key: str

    def save(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Write ``NAME.crt`` and ``NAME.key`` (for the owner only); return their paths."""
        certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
        write_private(key, self.key)
        certificate.write_text(self.certificate)
        return certificate, key


class Authority:
    """A certificate authority that can sign."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self._certificate = x509.load_pem_x509_certificate(pair.certificate.encode())
        key = serialization.load_pem_private_key(pair.key.encode(), None)
        if not isinstance(key, Ed25519PrivateKey):
            raise errors.UsageError("the authority's key is not Ed25519", remedy="make a new one")
        self._key = key

    @classmethod
    def make(cls) -> "Authority":
        """Make a new one."""
        key = Ed25519PrivateKey.generate()
        name = _name(_COMMON_NAME, ())
        builder = _builder(name, name, key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        usage = _key_usage(signs_certificates=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(usage, critical=True)
        builder = builder.add_extension(identifier, critical=False)
        return cls(_pair(builder.sign(key, None), key))

    @classmethod
    def in_directory(cls, directory: Path) -> "Authority":
        """Return the authority of a directory (``ca.crt``, ``ca.key``); make it if need be."""
        certificate, key = directory / "ca.crt", directory / "ca.key"
        if certificate.exists() and key.exists():
            return cls(Pair(certificate.read_text(), key.read_text()))
        made = cls.make()
        directory.mkdir(parents=True, exist_ok=True)
        made.pair.save(directory, "ca")
        return made

    def client(self, name: str, groups: Sequence[str] = ()) -> Pair:
        """Return what proves that somebody is this user, of these groups."""
        return self._issue(_name(name, groups), (), ExtendedKeyUsageOID.CLIENT_AUTH)

    def server(self, name: str, hosts: Sequence[str]) -> Pair:
        """Return what proves that somebody is a server; ``hosts``: its addresses and names."""
        return self._issue(_name(name, ()), hosts, ExtendedKeyUsageOID.SERVER_AUTH)

    def node(self, name: str, hosts: Sequence[str]) -> Pair:
        """Return what proves that a kubelet's server is the node of that name."""
        return self._issue(
            _name(identity.NODE_PREFIX + name, (identity.NODES,)),
            hosts,
            ExtendedKeyUsageOID.SERVER_AUTH,
        )

    def _issue(
        self, subject: x509.Name, hosts: Sequence[str], purpose: x509.ObjectIdentifier
    ) -> Pair:
        key = Ed25519PrivateKey.generate()
        builder = _builder(subject, self._certificate.subject, key)
        builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
        builder = builder.add_extension(_key_usage(), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        own = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)
        builder = builder.add_extension(issuer, critical=False)
        if hosts:
            names = x509.SubjectAlternativeName([_host(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        return _pair(builder.sign(self._key, None), key)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _name(common: str, groups: Sequence[str]) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Ed25519PrivateKey
) -> x509.CertificateBuilder:
    # The first byte is set, so that all numbers are of one length.
    serial = int.from_bytes(b"\x40" + os.urandom(_SERIAL_BYTES - 1))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(_FIRST)
        .not_valid_after(_LAST)
    )


def _key_usage(*, signs_certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(certificate: x509.Certificate, key: Ed25519PrivateKey) -> Pair:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Pair(certificate.public_bytes(serialization.Encoding.PEM).decode(), pem.decode())

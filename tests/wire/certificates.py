"""Files of certificates and keys, as nodes are given them."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import attrs
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prometheus_client import CollectorRegistry

from hostler import wire
from hostler.abc import PKIData


def issued(folder: Path, name: str, ca: trustme.CA, trusted: trustme.CA | None = None) -> PKIData:
    cert = ca.issue_cert(name)
    data = PKIData(
        ca=str(folder / f"{name}.ca"),
        key=str(folder / f"{name}.key"),
        cert=str(folder / f"{name}.pem"),
    )
    (trusted or ca).cert_pem.write_to_path(data.ca)
    cert.private_key_pem.write_to_path(data.key)
    cert.cert_chain_pems[0].write_to_path(data.cert)
    return data


@attrs.frozen
class Files:
    """The PEM files of one end."""

    folder: Path

    @property
    def pki(self) -> PKIData:
        return PKIData(*(str(self.folder / name) for name in ("ca", "key", "cert")))

    def write(self, *trusted: trustme.CA, cert: trustme.LeafCert) -> Files:
        """Each file is replaced at once, as tools that issue certificates do."""
        self.folder.mkdir(exist_ok=True)
        self._put("ca", b"".join(ca.cert_pem.bytes() for ca in trusted))
        self._put("key", cert.private_key_pem.bytes())
        self._put("cert", cert.cert_chain_pems[0].bytes())
        return self

    def _put(self, name: str, data: bytes) -> None:
        new = self.folder / f"{name}.new"
        new.write_bytes(data)
        os.replace(new, self.folder / name)


def fresh() -> wire.TLSMetrics:
    return wire.TLSMetrics(CollectorRegistry())


def common_name_only(ca: trustme.CA, folder: Path, name: str, key: object) -> PKIData:
    """As authorities made them long ago, and Fn's deployments may still have: no SAN."""
    issuer_key = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    issuer = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(issuer_key, hashes.SHA256())
    )
    folder.mkdir()
    data = PKIData(*(str(folder / part) for part in ("ca", "key", "cert")))
    Path(data.ca).write_bytes(ca.cert_pem.bytes())
    Path(data.cert).write_bytes(made.public_bytes(serialization.Encoding.PEM))
    Path(data.key).write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return data

"""TLS contexts for mutual authentication with certificates of one private authority."""

from __future__ import annotations

import os
import ssl

from hostler.abc import PKIData
from hostler.errors import ConfigError


def server_tls(pki: PKIData) -> ssl.SSLContext:
    """For a runner: shows its certificate and demands one of the client.

    Raises `ConfigError` if a file is missing or unusable. Reads the files now.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    _load(context, pki)
    return context


def client_tls(pki: PKIData) -> ssl.SSLContext:
    """For an LB: shows its certificate and checks the runner's name and certificate.

    The expected name is `GrpcRunnerClient`'s ``server_name``. Raises as `server_tls`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _load(context, pki)
    return context


def _load(context: ssl.SSLContext, pki: PKIData) -> None:
    for path in (pki.ca, pki.key, pki.cert):
        if not os.path.isfile(path) or not os.access(path, os.R_OK):
            raise ConfigError(
                f"Cannot stat {path} for TLS: please specify a valid and readable file"
            )
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    try:
        context.load_verify_locations(cafile=pki.ca)
    except ssl.SSLError as error:
        raise ConfigError(f"{pki.ca} holds no usable PEM certificates: {error.reason}") from error
    try:
        context.load_cert_chain(certfile=pki.cert, keyfile=pki.key)
    except ssl.SSLError as error:
        raise ConfigError(
            f"{pki.cert} and {pki.key} are no certificate and its key: {error.reason}"
        ) from error

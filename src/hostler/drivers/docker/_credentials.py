"""Registry credentials: where they come from, and which one an image gets."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import structlog

from ...errors import ConfigError
from ._reference import HUB_HOSTS

_HELPER_NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
log = structlog.get_logger(__name__)

AuthConfig = Mapping[str, str]
"""One entry in the engine's field names: ``username``, ``password``, ``serveraddress``,
``identitytoken``, ``registrytoken``. Empty = anonymous."""


class _Entry(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


class _Document(msgspec.Struct):
    """What a Docker configuration file says about registries, under its names."""

    auths: dict[str, _Entry] | None = None
    credHelpers: dict[str, str] | None = None
    credsStore: str = ""


class Credentials:
    """Entries by registry host (with its port, if it has one).

    A host must match exactly: a token for one registry is never sent to another host of the same
    domain.
    """

    def __init__(
        self,
        by_host: Mapping[str, AuthConfig] | None = None,
        helpers: Mapping[str, str] | None = None,
        store: str = "",
    ) -> None:
        self._by_host = dict(by_host or {})
        self._helpers = dict(helpers or {})
        self._store = store

    def __repr__(self) -> str:
        return f"<Credentials for {sorted(self._by_host)}>"

    def lookup(self, registry: str) -> AuthConfig:
        """The entry for an image of ``registry`` ("" = Docker's own); empty if there is none.

        Docker's own registry has several names; the first of `HUB_HOSTS` that has an entry is
        used (Fn asks for the first two).
        """
        hosts = _names_of(registry)
        return next((self._by_host[host] for host in hosts if host in self._by_host), {})

    def helper(self, registry: str) -> str:
        """The credential helper to ask for an image of ``registry``; "" if there is none."""
        hosts = _names_of(registry)
        own = (self._helpers[host] for host in hosts if host in self._helpers)
        return next(own, self._store)


def _names_of(registry: str) -> tuple[str, ...]:
    registry = registry.lower()
    return HUB_HOSTS if registry in ("", *HUB_HOSTS) else (registry,)


def parse_credentials(text: str) -> Credentials:
    """Read the content of a Docker configuration file, or only its ``auths`` member.

    Raises `ValueError` with a text that tells nothing of the content.
    """
    try:
        document = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        if document and all(_is_host(name) for name in document):
            return _credentials(_Document(auths=msgspec.json.decode(text, type=dict[str, _Entry])))
        return _credentials(msgspec.json.decode(text, type=_Document))
    except msgspec.MsgspecError as error:
        # The library's text may quote the value.
        raise ValueError("not a JSON object of registry credentials") from error


def _credentials(document: _Document) -> Credentials:
    helpers = {_host(address): name for address, name in (document.credHelpers or {}).items()}
    for name in (*helpers.values(), document.credsStore):
        if name and not _HELPER_NAME.fullmatch(name):
            raise ValueError("the name of a credential helper is not part of a program's name")
    return Credentials(dict(_usable(document.auths or {})), helpers, document.credsStore)


def _host(address: str) -> str:
    """The host of an address, which may be a URL as ``https://index.docker.io/v1/``."""
    return address.split("://", 1)[-1].split("/", 1)[0].lower()


def _is_host(name: str) -> bool:
    return "." in name or ":" in name or name == "localhost"


def _usable(entries: Mapping[str, _Entry]) -> Iterator[tuple[str, AuthConfig]]:
    for address, entry in entries.items():
        host = _host(address)
        user, password = _login(entry)
        if entry.registrytoken:
            yield host, {"registrytoken": entry.registrytoken, "serveraddress": host}
        elif entry.identitytoken:
            token = entry.identitytoken
            yield host, {"username": user, "identitytoken": token, "serveraddress": host}
        elif user or password:
            yield host, {"username": user, "password": password, "serveraddress": host}


def _login(entry: _Entry) -> tuple[str, str]:
    if not entry.auth:
        return entry.username, entry.password
    try:
        decoded = base64.b64decode(entry.auth, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise ValueError("an auth member is not the base64 form of user:password") from None
    user, colon, password = decoded.partition(":")
    if not colon:
        raise ValueError("an auth member is not the base64 form of user:password")
    # Docker once padded the password with null bytes.
    return user, password.strip("\0")


def load_credentials(docker_auth: str, environ: Mapping[str, str]) -> Credentials:
    """Credentials of ``FN_DOCKER_AUTH`` if it is set, else of the first of Docker's own files
    that exists. Blocks for the time of reading one small file.

    Raises `ConfigError` for an unusable ``FN_DOCKER_AUTH``; an unusable file is only logged,
    since it was not written for us.
    """
    if docker_auth:
        try:
            return parse_credentials(docker_auth)
        except ValueError as error:
            raise ConfigError(f"invalid FN_DOCKER_AUTH: {error}") from error
    for path in _files(environ):
        try:
            return parse_credentials(path.read_text())
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            log.warning("registry credentials not read", path=str(path), error=str(error))
            return Credentials()
    return Credentials()


def _files(environ: Mapping[str, str]) -> Iterator[Path]:
    if directory := environ.get("DOCKER_CONFIG"):
        yield Path(directory, "config.json")
    if home := environ.get("HOME"):
        yield Path(home, ".docker", "config.json")
        yield Path(home, ".dockercfg")

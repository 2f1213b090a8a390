"""Registry credentials: where they come from, and which one an image gets."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import structlog

from ...errors import ConfigError

log = structlog.get_logger(__name__)

AuthConfig = Mapping[str, str]
"""One entry in the engine's field names: ``username``, ``password``, ``serveraddress``,
``identitytoken``, ``registrytoken``. Empty = anonymous."""

HUB_HOSTS = ("hub.docker.com", "index.docker.io", "docker.io", "registry-1.docker.io")
"""The names of Docker's own registry, which an image without a registry comes from. The first
one with an entry is used; Fn asks for the first two."""


class _Entry(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


class Credentials:
    """Entries by registry host (with its port, if it has one).

    A host must match exactly: a token for one registry is never sent to another host of the same
    domain.
    """

    def __init__(self, by_host: Mapping[str, AuthConfig] | None = None) -> None:
        self._by_host = dict(by_host or {})

    def __repr__(self) -> str:
        return f"<Credentials for {sorted(self._by_host)}>"

    def lookup(self, registry: str) -> AuthConfig:
        """The entry for an image of ``registry`` ("" = Docker's own); empty if there is none."""
        hosts = HUB_HOSTS if registry in ("", *HUB_HOSTS) else (registry.lower(),)
        return next((self._by_host[host] for host in hosts if host in self._by_host), {})


def parse_credentials(text: str) -> Credentials:
    """Read the content of a Docker configuration file, or only its ``auths`` member.

    Raises `ValueError` with a text that tells nothing of the content.
    """
    try:
        document = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        # A file that has other settings but no credentials is no list of hosts.
        if "auths" not in document and not all(_is_host(name) for name in document):
            return Credentials()
        auths = document.get("auths")
        entries = (
            {host: msgspec.json.decode(raw, type=_Entry) for host, raw in document.items()}
            if auths is None
            else msgspec.json.decode(auths, type=dict[str, _Entry])
        )
        return Credentials(dict(_usable(entries)))
    except msgspec.MsgspecError as error:
        # The library's text may quote the value.
        raise ValueError("not a JSON object of registry credentials") from error


def _is_host(name: str) -> bool:
    return "." in name or ":" in name or name == "localhost"


def _usable(entries: Mapping[str, _Entry]) -> Iterator[tuple[str, AuthConfig]]:
    for address, entry in entries.items():
        host = address.split("://", 1)[-1].split("/", 1)[0].lower()
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

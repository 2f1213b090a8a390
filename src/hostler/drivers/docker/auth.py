"""Registry credentials: configuration files and credential helpers."""

from __future__ import annotations

import base64
import binascii
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import msgspec
import structlog
import trio

from ...errors import ConfigError, HostlerError
from .containers import BackgroundOperation
from .images import HUB_HOSTS

_HELPER_NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)

log = structlog.get_logger(__name__)

AuthConfig = Mapping[str, str]
"""One entry in the engine's field names: ``username``, ``password``, ``serveraddress``,
``identitytoken``, ``registrytoken``. Empty = anonymous."""


class _AuthEntry(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


class _DockerConfig(msgspec.Struct):
    """What a Docker configuration file says about registries, under its names."""

    auths: dict[str, _AuthEntry] | None = None
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
            return _credentials(
                _DockerConfig(auths=msgspec.json.decode(text, type=dict[str, _AuthEntry]))
            )
        return _credentials(msgspec.json.decode(text, type=_DockerConfig))
    except msgspec.MsgspecError as error:
        # The library's text may quote the value.
        raise ValueError("not a JSON object of registry credentials") from error


def _credentials(document: _DockerConfig) -> Credentials:
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


def _usable(entries: Mapping[str, _AuthEntry]) -> Iterator[tuple[str, AuthConfig]]:
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


def _login(entry: _AuthEntry) -> tuple[str, str]:
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


HELPER_LIMIT = 10.0
"""Seconds that a credential helper may take."""

HUB_ADDRESS = "https://index.docker.io/v1/"
"""Under this name helpers keep the credentials of Docker's own registry."""

_NOT_FOUND = "credentials not found in native keychain"
_TOKEN_USER = "<token>"  # noqa: S105  (the name that stands for "the secret is a token")


class CredentialsUnavailable(HostlerError):
    """A credential helper is configured for the registry, and failed. Nobody knows whether there
    are credentials, so that a pull without them would blame the wrong one."""


class _HelperReply(msgspec.Struct):
    """What a helper prints, under its names."""

    Username: str
    Secret: str


class Keychain:
    """Finds credentials by registry.

    A host's helper (``credHelpers``) comes first, then the general one (``credsStore``), then the
    entries of the configuration. The secrets of helpers are not kept: they may be short-lived.
    Several who ask for one registry at the same time share one run of its helper, which goes on
    in ``nursery`` whoever stops waiting.
    """

    def __init__(
        self, credentials: Credentials, environ: Mapping[str, str], nursery: trio.Nursery
    ) -> None:
        self._credentials = credentials
        self._environ = dict(environ)
        self._nursery = nursery
        self._running: dict[str, BackgroundOperation[AuthConfig | None]] = {}

    async def lookup(self, registry: str) -> AuthConfig:
        """Credentials for images of ``registry`` ("" = Docker's own), empty = anonymous. Raises
        `CredentialsUnavailable` if its helper fails or takes longer than `HELPER_LIMIT`."""
        await trio.lowlevel.checkpoint()
        helper = self._credentials.helper(registry)
        if helper:
            address = HUB_ADDRESS if registry.lower() in ("", *HUB_HOSTS) else registry
            found = await self._ask_once(helper, address)
            if found is not None:
                return found
        return self._credentials.lookup(registry)

    async def _ask_once(self, helper: str, address: str) -> AuthConfig | None:
        running = self._running.get(address)
        if running is None:
            operation = partial(self._ask, helper, address)
            running = self._running[address] = BackgroundOperation(self._nursery, operation)
        return await running.wait()

    async def _ask(self, helper: str, address: str) -> AuthConfig | None:
        try:
            return await ask_helper(helper, address, self._environ)
        except CredentialsUnavailable as error:
            log.warning("no credentials", registry=address, helper=helper, error=str(error))
            raise
        finally:
            del self._running[address]


async def ask_helper(helper: str, address: str, environ: Mapping[str, str]) -> AuthConfig | None:
    """Run ``docker-credential-<helper> get``; ``None`` if it has nothing for ``address``.

    Raises `CredentialsUnavailable`. What the helper printed appears in no error: it may be a
    secret. Cancelling kills the helper with its children.
    """
    program = f"docker-credential-{helper}"
    with trio.move_on_after(HELPER_LIMIT):
        try:
            ended = await trio.run_process(
                [program, "get"],
                stdin=address.encode(),
                capture_stdout=True,
                check=False,
                env=dict(environ),
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                deliver_cancel=_kill_group,
            )
        except OSError as error:
            text = f"{program} can't be run: {error.strerror or error}"
            raise CredentialsUnavailable(text) from error
        return _understand(program, address, ended.returncode, ended.stdout)
    raise CredentialsUnavailable(f"{program} did not answer within {HELPER_LIMIT:g} s")


async def _kill_group(process: trio.Process) -> None:
    # It leads a group of its own, whose number stays taken until the process is waited for.
    os.killpg(process.pid, signal.SIGKILL)


def _understand(program: str, address: str, code: int, output: bytes) -> AuthConfig | None:
    if code:
        # Helpers print errors where the answer would be.
        if output.decode(errors="replace").strip() == _NOT_FOUND:
            return None
        raise CredentialsUnavailable(f"{program} ended with code {code}")
    try:
        answer = msgspec.json.decode(output, type=_HelperReply)
    except msgspec.MsgspecError:
        raise CredentialsUnavailable(f"{program} did not print credentials") from None
    if answer.Username == _TOKEN_USER:
        return {"identitytoken": answer.Secret, "serveraddress": address}
    return {
        "username": answer.Username,
        "password": answer.Secret,
        "serveraddress": address,
    }

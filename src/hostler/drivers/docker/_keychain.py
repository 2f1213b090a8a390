"""The credentials for a pull: of Docker's credential helpers, or of the configuration."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from functools import partial

import msgspec
import structlog
import trio

from ...errors import HostlerError
from ._credentials import AuthConfig, Credentials
from ._reference import HUB_HOSTS
from ._to_the_end import Started

log = structlog.get_logger(__name__)

HELPER_LIMIT = 10.0
"""Seconds that a credential helper may take."""
HUB_ADDRESS = "https://index.docker.io/v1/"
"""Under this name helpers keep the credentials of Docker's own registry."""
_NOT_FOUND = "credentials not found in native keychain"
_TOKEN_USER = "<token>"  # noqa: S105  (the name that stands for "the secret is a token")


class CredentialsUnavailable(HostlerError):
    """A credential helper is configured for the registry, and failed. Nobody knows whether there
    are credentials, so that a pull without them would blame the wrong one."""


class _Answer(msgspec.Struct):
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
        self._running: dict[str, Started[AuthConfig | None]] = {}

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
            running = self._running[address] = Started(self._nursery, operation)
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
        answer = msgspec.json.decode(output, type=_Answer)
    except msgspec.MsgspecError:
        raise CredentialsUnavailable(f"{program} did not print credentials") from None
    if answer.Username == _TOKEN_USER:
        return {"identitytoken": answer.Secret, "serveraddress": address}
    return {
        "username": answer.Username,
        "password": answer.Secret,
        "serveraddress": address,
    }

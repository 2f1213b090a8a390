"""The image of the prefork pool's containers, pulled or made if the engine does not have it."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from functools import partial

import docker
import structlog
import trio

from ...errors import APIError
from ._archives import load_archive
from ._engine import Engine
from ._errors import EngineError
from ._keychain import CredentialsUnavailable, Keychain
from ._limits import Operation
from ._pause import pause_image
from ._pull import ImagePuller
from ._reference import parse_image
from ._retry import FOREVER, Backoff

log = structlog.get_logger(__name__)

RETRY = Backoff(max_retries=FOREVER, interval_msec=1000, min_delay_msec=500, max_delay_msec=30_000)
"""Between the attempts to get it."""
_NOT_FOUND = 404


class PreforkImage:
    """Got once for all keepers of a pool, by ``get``, which may raise `EngineError`, `APIError`
    and `CredentialsUnavailable`."""

    def __init__(self, name: str, engine: Engine, get: Callable[[], Awaitable[None]]) -> None:
        self._name = name
        self._engine = engine
        self._get = get
        self._there = False
        self._lock = trio.Lock()

    def vanished(self) -> None:
        """Somebody has removed it: look again."""
        self._there = False

    async def ensure(self) -> None:
        """Return when the engine has the image, however long that takes; failures are logged."""
        async with self._lock:
            delays = RETRY.delays()
            while not self._there:
                try:
                    await self._look()
                except (EngineError, APIError, CredentialsUnavailable) as error:
                    delay = next(delays)
                    log.warning(
                        "prefork image can't be had, will try again",
                        image=self._name,
                        error=str(error),
                        delay_s=round(delay, 1),
                    )
                    await trio.sleep(delay)
                else:
                    self._there = True

    async def _look(self) -> None:
        def request(client: docker.APIClient) -> None:
            client.inspect_image(self._name)  # type: ignore[no-untyped-call]  # the stubs lack its types

        try:
            await self._engine.call(Operation.INSPECT_IMAGE, request)
        except EngineError as error:
            if error.status != _NOT_FOUND:
                raise
            await self._get()


def pulled(name: str, engine: Engine, puller: ImagePuller, keychain: Keychain) -> PreforkImage:
    """The image ``name`` of a registry."""

    async def pull() -> None:
        await puller.pull(name, await keychain.lookup(parse_image(name).registry))
        log.info("prefork image pulled", image=name)

    return PreforkImage(name, engine, pull)


def made(name: str, program: bytes, engine: Engine) -> PreforkImage:
    """The image ``name`` with nothing but ``program``. Several that make it at once make the same
    one, so that it is not taken from under anybody's containers."""
    archive = pause_image(name, program)
    return PreforkImage(name, engine, partial(load_archive, engine, lambda: io.BytesIO(archive)))

"""The image of the prefork pool's containers, fetched if the engine does not have it."""

from __future__ import annotations

import docker
import structlog
import trio

from ...errors import APIError
from ._engine import Engine
from ._errors import EngineError
from ._keychain import CredentialsUnavailable, Keychain
from ._limits import Operation
from ._pull import ImagePuller
from ._reference import parse_image
from ._retry import FOREVER, Backoff

log = structlog.get_logger(__name__)

RETRY = Backoff(max_retries=FOREVER, interval_msec=1000, min_delay_msec=500, max_delay_msec=30_000)
"""Between the attempts to fetch it."""
_NOT_FOUND = 404


class PreforkImage:
    """Fetched once for all keepers of a pool."""

    def __init__(self, image: str, engine: Engine, puller: ImagePuller, keychain: Keychain) -> None:
        self._image = image
        self._engine = engine
        self._puller = puller
        self._keychain = keychain
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
                    await self._fetch()
                except (EngineError, APIError, CredentialsUnavailable) as error:
                    delay = next(delays)
                    log.warning(
                        "prefork image can't be had, will try again",
                        image=self._image,
                        error=str(error),
                        delay_s=round(delay, 1),
                    )
                    await trio.sleep(delay)
                else:
                    self._there = True

    async def _fetch(self) -> None:
        def request(client: docker.APIClient) -> None:
            client.inspect_image(self._image)  # type: ignore[no-untyped-call]  # the stubs lack its types

        try:
            await self._engine.call(Operation.INSPECT_IMAGE, request)
        except EngineError as error:
            if error.status != _NOT_FOUND:
                raise
            auth = await self._keychain.lookup(parse_image(self._image).registry)
            await self._puller.pull(self._image, auth)
            log.info("prefork image pulled", image=self._image)

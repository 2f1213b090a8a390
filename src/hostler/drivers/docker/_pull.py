"""Image pulls: one transfer for everybody who wants the same image at the same time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import attrs
import docker
import structlog
import trio
from docker.auth import encode_header

from ...errors import ImagePullFailed
from ._credentials import AuthConfig
from ._engine import Engine
from ._errors import EngineError
from ._limits import Operation
from ._reference import ImageReference, parse_image
from ._retry import Backoff, RetryChecker, transient_trouble
from ._streams import JSON, JSONLines, open_json_lines

log = structlog.get_logger(__name__)


@attrs.frozen
class _Wanted:
    """What makes two pulls the same: image and credentials (in the engine's header form)."""

    reference: ImageReference
    auth_header: str = attrs.field(repr=False)


@attrs.define(eq=False)
class _Transfer:
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    over: trio.Event = attrs.Factory(trio.Event)
    waiting: int = 0
    error: EngineError | None = None


class ImagePuller:
    """Pulls images for the cookies of one driver.

    Transfers run in ``nursery``, not in the task of the first who asked: each waiter has its own
    time limit, and a transfer goes on as long as anybody waits for it. ``on_retry`` gets the
    reason of each retry.
    """

    def __init__(
        self,
        engine: Engine,
        nursery: trio.Nursery,
        backoff: Backoff,
        on_retry: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._nursery = nursery
        self._transfers: dict[_Wanted, _Transfer] = {}
        self._backoff = backoff
        self._on_retry = on_retry
        self._checker: RetryChecker = transient_trouble

    def set_retry_policy(self, backoff: Backoff, checker: RetryChecker) -> None:
        """Applies to transfers that start from now on."""
        self._backoff = backoff
        self._checker = checker

    async def pull(self, image: str, auth: AuthConfig) -> None:
        """Fetch ``image``. Raises `ImagePullFailed`. Cancelling it ends the transfer if nobody
        else waits for it."""
        wanted = _Wanted(parse_image(image), encode_header(dict(auth)).decode())
        transfer = self._transfers.get(wanted)
        if transfer is None:
            transfer = self._transfers[wanted] = _Transfer()
            self._nursery.start_soon(self._run, wanted, transfer)
        transfer.waiting += 1
        try:
            await transfer.over.wait()
        finally:
            transfer.waiting -= 1
            if not transfer.waiting:
                self._drop(wanted, transfer)
        if transfer.error is not None:
            _raise_pull_failed(image, transfer.error)

    def _drop(self, wanted: _Wanted, transfer: _Transfer) -> None:
        transfer.scope.cancel()
        if self._transfers.get(wanted) is transfer:
            del self._transfers[wanted]

    async def _run(self, wanted: _Wanted, transfer: _Transfer) -> None:
        transfer.error = EngineError(Operation.PULL.value, "the driver is closing")
        try:
            with transfer.scope:
                transfer.error = await self._try_often(wanted)
        finally:
            transfer.over.set()
            self._drop(wanted, transfer)

    async def _try_often(self, wanted: _Wanted) -> EngineError | None:
        checker = self._checker
        delays = self._backoff.delays()
        while True:
            try:
                await self._try_once(wanted)
            except EngineError as error:
                again, reason = checker(error)
                delay = next(delays, None) if again else None
                if delay is None:
                    return error
                self._on_retry(reason)
                log.info(
                    "pull is tried again",
                    image=wanted.reference.name,
                    tag=wanted.reference.tag,
                    reason=reason,
                    delay_s=delay,
                )
                await trio.sleep(delay)
            else:
                return None

    async def _try_once(self, wanted: _Wanted) -> None:
        failure: list[str] = []

        def on_message(message: JSON) -> None:
            if text := _error_text(message):
                failure.append(text)

        request = _pull_request(wanted, self._engine.limit(Operation.PULL))
        await self._engine.stream(Operation.PULL, request, on_message)
        if failure:
            raise EngineError(Operation.PULL.value, failure[0])


def _error_text(message: JSON) -> str:
    detail: Any = message.get("errorDetail")
    text = detail.get("message") if isinstance(detail, dict) else None
    return str(text or message.get("error") or "")


def _pull_request(wanted: _Wanted, silence: float) -> Callable[[docker.APIClient], JSONLines]:
    return partial(
        open_json_lines,
        method="POST",
        path="/images/create",
        silence=silence,
        params={"fromImage": wanted.reference.name, "tag": wanted.reference.tag},
        headers={"X-Registry-Auth": wanted.auth_header},
    )


def _raise_pull_failed(image: str, error: EngineError) -> NoReturn:
    code = error.status if error.status is not None and 400 <= error.status < 500 else None
    raise ImagePullFailed(code, f"Failed to pull image '{image}': {error.message}") from error

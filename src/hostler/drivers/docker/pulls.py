"""Image pulls shared by all who want the same image, with retries."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NoReturn

import attrs
import docker
import structlog
import trio
from docker.auth import encode_header

from ...config import AgentConfig
from ...errors import ConfigError, ImagePullFailed
from .auth import AuthConfig
from .engine import (
    JSON,
    Engine,
    EngineError,
    EngineOperation,
    EngineTimeout,
    EngineUnreachable,
    JSONLines,
    open_json_lines,
)
from .images import ImageReference, parse_image
from .metrics import DockerMetrics

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
    time limit, and a transfer goes on as long as anybody waits for it.
    """

    def __init__(
        self,
        engine: Engine,
        nursery: trio.Nursery,
        backoff: Backoff,
        metrics: DockerMetrics,
    ) -> None:
        self._engine = engine
        self._nursery = nursery
        self._transfers: dict[_Wanted, _Transfer] = {}
        self._backoff = backoff
        self._metrics = metrics
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
        transfer.error = EngineError(EngineOperation.PULL.value, "the driver is closing")
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
                self._metrics.call_retried("docker_pull_image", reason)
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
        request = _pull_request(wanted, self._engine.limit(EngineOperation.PULL))
        async with self._engine.stream(EngineOperation.PULL, request) as messages:
            failures = [text async for message in messages if (text := _error_text(message))]
        if failures:
            raise EngineError(EngineOperation.PULL.value, failures[0])


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


_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500

FOREVER = 2**64 - 1
"""As ``max_retries``: no limit (Fn's sentinel)."""

RetryChecker = Callable[[Exception], tuple[bool, str]]
"""Gets the error of one try; returns whether to try again and a short reason for the logs."""

_TRANSIENT: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("too many requests", re.compile(r"toomanyrequests|429 too many requests")),
    (
        "registry error",
        re.compile(
            r"(unexpected http status|parsing http|status code)\D{0,10}5\d\d|^unavailable: "
        ),
    ),
    (
        "connection",
        re.compile(
            r"connection (refused|reset)|broken pipe|\beof$|network is unreachable|no route to host"
            r"|i/o timeout|handshake timeout|client\.timeout exceeded|awaiting headers"
            r"|server misbehaving|temporary failure in name resolution"
        ),
    ),
)
"""Reasons, and what the engine's text looks like. It passes on what the registry or the network
said, nearly always with status 500, so that the text is all there is to tell them apart."""


def transient_trouble(error: Exception) -> tuple[bool, str]:
    """The default `RetryChecker`: what a while may mend.

    Tried again: the registry has too many requests (429) or an error of its own (5xx), can't be
    connected to, or breaks or stalls the connection; the engine itself is gone. Final is all
    else: a missing image, missing rights, an unknown host, a certificate, a full disk, an answer
    that makes no sense, and an engine that was silent for the whole limit of the call.
    """
    if isinstance(error, EngineUnreachable):
        return True, "engine"
    if not isinstance(error, EngineError) or isinstance(error, EngineTimeout):
        return False, ""
    if error.status == _TOO_MANY_REQUESTS:
        return True, "too many requests"
    if error.status is not None and error.status < _SERVER_ERROR:
        return False, ""
    text = error.message.strip().lower()
    for reason, pattern in _TRANSIENT:
        if pattern.search(text):
            return True, reason
    return False, ""


@attrs.frozen(kw_only=True)
class Backoff:
    """Delays between tries, with Fn's numbers and jitter. Milliseconds.

    The k-th delay (k = 1, 2, ...) is ``min_delay_msec`` plus a random part below
    ``(2**k - 1) * interval_msec``, a part that is capped at ``max_delay_msec - min_delay_msec``
    unless ``max_delay_msec`` is 0.
    """

    max_retries: int = 0
    interval_msec: int = 1000
    max_delay_msec: int = 0
    min_delay_msec: int = 0

    def __attrs_post_init__(self) -> None:
        if min(self.max_retries, self.max_delay_msec, self.min_delay_msec) < 0:
            raise ConfigError(f"a backoff has no negative numbers: {self}")
        if self.max_retries and self.interval_msec < 1:
            raise ConfigError(f"interval_msec of a backoff must be at least 1: {self}")
        if self.max_delay_msec and self.min_delay_msec > self.max_delay_msec:
            raise ConfigError(f"min_delay_msec is above max_delay_msec: {self}")

    def delays(self, rand: Callable[[], float] = random.random) -> Iterator[float]:
        """The delays in seconds, as many as there are retries. ``rand`` is uniform in [0, 1)."""
        retry = 0
        while self.max_retries == FOREVER or retry < self.max_retries:
            retry += 1
            # From 2**63 on the exact number makes no difference, only long integers.
            spread = (2 ** min(retry, 63) - 1) * self.interval_msec
            if self.max_delay_msec:
                spread = min(spread, self.max_delay_msec - self.min_delay_msec)
            yield (self.min_delay_msec + rand() * spread) / 1000


def pull_backoff(config: AgentConfig) -> Backoff:
    """The delays that the settings ask for."""
    return Backoff(
        max_retries=config.image_pull_retries,
        interval_msec=config.image_pull_retry_interval_msecs,
        max_delay_msec=config.image_pull_retry_max_delay_msecs,
    )

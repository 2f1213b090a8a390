"""Creation, start and proven removal of containers as background operations."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

import docker
import structlog
import trio

from ..._concurrency.signal import IdleGate
from ...errors import HostlerError
from .engine import CONFLICT, NOT_FOUND, Engine, EngineError, EngineOperation, EngineTimeout
from .options import DockerOptions

log = structlog.get_logger(__name__)

T = TypeVar("T")

LATE_CREATION = 5.0
"""Seconds for which a container is looked for that was not there when it was to be removed, if its
creation had no answer in time: an engine that goes on may answer before it has made it."""

LATE_CREATION_PAUSE = 0.2


class Containers:
    """The containers of one driver, from before their creation to their proven removal.

    Each operation runs to its end in ``nursery`` even if its caller is cancelled, and operations
    on one container run one after the other: so a removal finds what an interrupted creation
    made. What could not be removed is tried again by `retry_removals` and `remove_all`.
    """

    def __init__(self, engine: Engine, nursery: trio.Nursery) -> None:
        self._engine = engine
        self._nursery = nursery
        self.launches = IdleGate()
        """Disturbed while a container is created or started."""
        self._owned: set[str] = set()
        self._last: dict[str, BackgroundOperation[object]] = {}
        self._removals: dict[str, BackgroundOperation[None]] = {}
        self._failed: set[str] = set()
        self._errors: dict[str, str] = {}
        """Why they were not removed at the end."""
        self._unanswered: set[str] = set()
        """Those whose creation had no answer in time, and may still happen."""

    @property
    def owned(self) -> frozenset[str]:
        """Names of the containers that exist or may exist."""
        return frozenset(self._owned)

    async def create(self, options: DockerOptions) -> str:
        """Create a container and return its id. Raises `EngineError`."""
        name = options.name
        self._owned.add(name)
        operation = partial(self._create, name, options.payload())
        with self.launches.disturbed():
            return await self._start(name, operation).wait()

    async def start(self, name: str) -> None:
        """Raises `EngineError`."""
        operation = partial(
            self._engine.call, EngineOperation.START, lambda client: client.start(name)
        )
        with self.launches.disturbed():
            await self._start(name, operation).wait()

    async def remove(self, name: str) -> None:
        """Remove the container in any state, with its anonymous volumes. Nothing happens to a
        name that was never created or is removed already.

        Raises `EngineError` if it could not be done; it may be asked for again.
        """
        if name not in self._owned:
            return
        removal = self._removals.get(name)
        if removal is None or removal.over:
            removal = self._removals[name] = BackgroundOperation(
                self._nursery, partial(self._remove, name)
            )
        await removal.wait()

    def retry_removals(self) -> None:
        """Try once more, in the background, to remove what could not be removed. For moments at
        which the engine is there again."""
        for name in tuple(self._failed):
            self._failed.discard(name)
            self._nursery.start_soon(self._remove_late, name)

    async def _remove_late(self, name: str) -> None:
        try:
            await self.remove(name)
        except EngineError as error:
            log.debug("container still not removed", container=name, error=str(error))
        else:
            log.info("container removed late", container=name)

    async def remove_all(self) -> None:
        """Try once to remove each container that is left."""
        async with trio.open_nursery() as nursery:
            for name in self._owned:
                nursery.start_soon(self._try_to_remove, name)

    async def _try_to_remove(self, name: str) -> None:
        try:
            await self.remove(name)
        except (EngineError, OperationCut) as error:
            self._errors[name] = str(error)

    def tell_left(self, *, labeled: bool) -> None:
        """Log what exists, or may exist, at the end; ``labeled`` = the next start finds all."""
        if not self._owned:
            return
        errors = set(self._errors.values())
        log.warning(
            "containers left behind",
            containers=sorted(self._owned),
            next_start_removes="all" if labeled else "name spaces (no FN_CONTAINER_LABEL_TAG)",
            **({"errors": sorted(errors)} if errors else {}),
        )

    def _start(self, name: str, operation: Callable[[], Awaitable[T]]) -> BackgroundOperation[T]:
        started = BackgroundOperation(self._nursery, operation)
        self._last[name] = started
        return started

    async def _create(self, name: str, payload: dict[str, object]) -> str:
        def request(client: docker.APIClient) -> str:
            created = client.create_container_from_config(payload, name)  # type: ignore[no-untyped-call]  # the stubs lack its types
            return str(created["Id"])

        try:
            return await self._engine.call(EngineOperation.CREATE, request)
        except EngineTimeout:
            self._unanswered.add(name)
            raise
        except EngineError as error:
            if error.status is not None and error.status < 500:
                self._forget(name)  # the engine refused: there is nothing to remove
            raise

    async def _remove(self, name: str) -> None:
        if (last := self._last.get(name)) is not None:
            await last.settled()
        if name not in self._owned:
            return
        try:
            if not await remove_container(self._engine, name) and name in self._unanswered:
                await self._remove_later(name)
        except EngineError:
            self._failed.add(name)
            raise
        self._forget(name)

    async def _remove_later(self, name: str) -> None:
        end = trio.current_time() + LATE_CREATION
        while trio.current_time() < end:
            await trio.sleep(LATE_CREATION_PAUSE)
            if await remove_container(self._engine, name):
                return

    def _forget(self, name: str) -> None:
        self._owned.discard(name)
        self._failed.discard(name)
        self._unanswered.discard(name)
        self._last.pop(name, None)
        self._removals.pop(name, None)


async def remove_container(engine: Engine, name: str) -> bool:
    """Kill and remove a container; fine if it is gone, or somebody else is removing it, which is
    waited for. Returns whether it was there. Raises `EngineError`."""

    def remove(client: docker.APIClient) -> None:
        client.remove_container(name, v=True, force=True)

    def wait_until_removed(client: docker.APIClient) -> None:
        # Not without a timeout, which the library takes for "no limit", and in whole seconds.
        seconds = math.ceil(engine.limit(EngineOperation.REMOVE))
        client.wait(name, condition="removed", timeout=seconds)

    try:
        await engine.call(EngineOperation.REMOVE, remove)
    except EngineError as error:
        if error.status == NOT_FOUND:
            return False
        if error.status != CONFLICT or "already in progress" not in error.message:
            raise
        try:
            await engine.call(EngineOperation.REMOVE, wait_until_removed)
        except EngineError as gone:
            if gone.status != NOT_FOUND:
                raise
    return True


T_co = TypeVar("T_co", covariant=True)


class OperationCut(HostlerError):
    """The driver was closed, by force, while the operation was under way."""


class BackgroundOperation(Generic[T_co]):
    """An operation that runs in a nursery of its owner; ``wait`` for it as often as wanted."""

    def __init__(self, nursery: trio.Nursery, operation: Callable[[], Awaitable[T_co]]) -> None:
        self._over = trio.Event()
        self._values: list[T_co] = []
        self._error: Exception | None = None
        nursery.start_soon(self._run, operation)

    async def _run(self, operation: Callable[[], Awaitable[T_co]]) -> None:
        try:
            self._values.append(await operation())
        except Exception as error:  # noqa: BLE001  (raised again in whoever waits)
            self._error = error
        finally:
            self._over.set()

    @property
    def over(self) -> bool:
        return self._over.is_set()

    async def settled(self) -> None:
        """Wait for the end, whatever it is."""
        await self._over.wait()

    async def wait(self) -> T_co:
        """Wait for the end and return or raise what it was."""
        await self._over.wait()
        if self._error is not None:
            raise self._error
        if not self._values:
            raise OperationCut("the driver was closed during the operation")
        return self._values[0]

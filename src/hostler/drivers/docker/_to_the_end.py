"""Operations that their caller can stop waiting for, but never cut off."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

from ...errors import HostlerError

T_co = TypeVar("T_co", covariant=True)


class OperationCut(HostlerError):
    """The driver was closed, by force, while the operation was under way."""


class Started(Generic[T_co]):
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
